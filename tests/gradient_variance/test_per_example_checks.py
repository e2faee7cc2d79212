"""When samples are checked, and what a check leaves alone."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

from batchramp.gradient_variance import (
    STATISTICS,
    OneByOneWarning,
    mixing,
    per_example_statistics,
    ways,
)
from batchramp.gradient_variance.draws import AtRest

NORMS = ("sum_squared_norms", "squared_norm_of_mean")
losses = nn.CrossEntropyLoss(reduction="none")


def contrastive(outputs, targets):
    logits = functional.normalize(outputs, dim=1) @ functional.normalize(targets).T
    return functional.cross_entropy(
        logits, torch.arange(len(outputs)), reduction="none"
    )


def make_mlp(*between):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), *between, nn.Tanh(), nn.Linear(5, 3))


def make_data(count=8):
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(count, 6, generator=generator),
        torch.randint(3, (count,), generator=generator),
    )


def sum_of_squares(model, loss, inputs, targets):
    total = 0.0
    for i in range(len(inputs)):
        one = loss(model(inputs[i : i + 1]), targets[i : i + 1]).sum()
        parts = torch.autograd.grad(one, list(model.parameters()))
        total += sum(float(part.double().square().sum()) for part in parts)
    return total


@pytest.fixture
def checks(monkeypatch):
    """How many checks were made."""
    made, check = [], ways.check_not_mixed

    def counted(*args, **kwargs):
        made.append(args)
        return check(*args, **kwargs)

    monkeypatch.setattr(ways, "check_not_mixed", counted)
    return made


@pytest.mark.parametrize("between", [(), (nn.LayerNorm(5),)])
def test_what_was_asked_before_does_not_matter(between, checks):
    model, (inputs, targets) = make_mlp(*between), make_data()
    others = torch.randn(8, 3)
    for _ in range(2):
        per_example_statistics(model, losses, inputs, targets, NORMS)
        with pytest.raises(ValueError, match="samples do not mix"):
            per_example_statistics(model, contrastive, inputs, others, NORMS)
    assert len(checks) == 3  # one that is right is made once, what is refused each time


def test_a_check_is_made_once_a_kind_of_samples(checks):
    model, (inputs, targets) = make_mlp(), make_data()
    counts = []
    for change in (
        lambda: None,
        lambda: None,
        model.eval,
        lambda: model[2].requires_grad_(requires_grad=False),
    ):
        change()
        per_example_statistics(model, losses, inputs, targets, NORMS)
        counts.append(len(checks))
    per_example_statistics(model, losses, inputs[:5], targets[:5], NORMS)
    another = nn.CrossEntropyLoss(reduction="none")
    per_example_statistics(model, another, inputs, targets, NORMS)
    assert [*counts, len(checks)] == [1, 1, 2, 3, 5]


def test_a_loss_is_known_by_itself_and_not_by_its_place_in_memory(checks):
    model, (inputs, targets) = make_mlp(), make_data()

    class Owner:
        def loss(self, outputs, targets):
            return losses(outputs, targets)

    owner = Owner()
    for _ in range(3):  # a new bound method each time, of the same owner
        per_example_statistics(model, owner.loss, inputs, targets, NORMS)
    assert len(checks) == 1
    for _ in range(20):  # most of them where the one before was
        with pytest.raises(ValueError, match="samples do not mix"):
            per_example_statistics(
                model, lambda o, _: contrastive(o, o.detach()), inputs, targets, NORMS
            )
        per_example_statistics(model, lambda o, t: losses(o, t), inputs, targets, NORMS)


class Flag(nn.Module):
    """Takes another dimension for the samples', or mixes them, once it is told to."""

    def __init__(self, kind):
        super().__init__()
        self.inner, self.outer = nn.Linear(6, 6), nn.Linear(6, 3)
        self.norm = nn.LayerNorm(6) if kind == "vmap" else nn.Identity()
        self.turned = self.mixed = False

    def forward(self, x):
        x = x.transpose(0, 1) if self.turned else x
        hidden = self.norm(torch.tanh(self.inner(x)))
        hidden = hidden.transpose(0, 1) if self.turned else hidden
        hidden = hidden - hidden.mean(0) if self.mixed else hidden
        return self.outer(hidden).mean(1)


@pytest.mark.parametrize("kind", ["layers", "vmap"])
def test_a_model_that_changes_is_checked_anew(kind):
    torch.manual_seed(0)
    model, inputs, targets = Flag(kind), torch.randn(6, 6, 6), torch.randint(3, (6,))
    for model.turned in (False, True):
        found = per_example_statistics(model, losses, inputs, targets, NORMS)
        expected = sum_of_squares(model, losses, inputs, targets)
        assert float(found.sum_squared_norms) == pytest.approx(expected, rel=1e-5)
    model.mixed = True
    with pytest.raises(ValueError, match="samples do not mix"):
        per_example_statistics(model, losses, inputs, targets, NORMS)


class Loss(nn.Module):
    def __init__(self):
        super().__init__()
        self.mixed = False

    def forward(self, outputs, targets):
        found = losses(outputs, targets)
        return found / found.mean() if self.mixed else found


def test_a_loss_module_that_changes_is_checked_anew():
    model, loss, (inputs, targets) = make_mlp(), Loss(), make_data()
    per_example_statistics(model, loss, inputs, targets, NORMS)
    loss.mixed = True
    with pytest.raises(ValueError, match="samples do not mix"):
        per_example_statistics(model, loss, inputs, targets, NORMS)


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x) * torch.empty_like(x).uniform_()


class Drawn(nn.Module):
    def forward(self, x):
        gamma = torch.distributions.Gamma(x.abs() + 1, 1.0).rsample()
        shares = torch.distributions.Dirichlet(x.abs() + 1).rsample()
        coins = torch.distributions.Binomial(3, torch.full_like(x, 0.5)).sample()
        return x * gamma + shares + coins


RANDOM = {
    "distributions": Drawn,
    "gumbel": lambda: nn.Sequential(nn.RReLU(), Gumbel()),
    "dropout": lambda: nn.Dropout(0.5),
    "alpha dropout": lambda: nn.AlphaDropout(0.5),
    "noise": Noise,
    "attention": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 5)),
        nn.TransformerEncoderLayer(5, 1, 4, 0.5, batch_first=True),
        nn.Flatten(),
    ),
    "recurrent": lambda: Last(nn.LSTM(5, 5, 2, batch_first=True, dropout=0.5)),
}


class Gumbel(nn.Module):
    def forward(self, x):
        return functional.gumbel_softmax(x)


class Last(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x[:, None])[0][:, -1]


class Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


@pytest.mark.parametrize("plain", [True, False], ids=["linear", "LayerNorm"])
@pytest.mark.parametrize("name", RANDOM)
def test_random_layers_are_checked_at_rest(name, plain):
    inputs, targets = make_data()
    between = () if plain else (nn.LayerNorm(5),)
    model = make_mlp(*between, RANDOM[name]())
    found = []
    for _ in range(2):  # the second is not checked, and draws alike
        torch.manual_seed(3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OneByOneWarning)
            found.append(
                per_example_statistics(model, losses, inputs, targets, STATISTICS)
            )
    assert float(found[0].sum_squared_norms) == float(found[1].sum_squared_norms) > 0
    mixed = make_mlp(*between, RANDOM[name](), Centred())
    with pytest.raises(ValueError, match="samples do not mix"):
        per_example_statistics(mixed, losses, inputs, targets, NORMS)


def test_what_is_drawn_is_what_a_call_without_a_check_draws():
    inputs, targets = make_data()
    for between in ((), (nn.LayerNorm(5),), (nn.LayerNorm(5), nn.Dropout())):
        model, states = make_mlp(*between), []
        for _ in range(2):
            torch.manual_seed(3)
            per_example_statistics(model, losses, inputs, targets, NORMS)
            states.append(torch.random.get_rng_state())
        assert torch.equal(*states)


def test_a_dropout_at_rest_passes_everything_on():
    values = torch.randn(50, requires_grad=True)
    torch.manual_seed(0)
    with AtRest():
        assert torch.allclose(functional.dropout(values, 0.3), values)
        assert torch.equal(torch.rand(3), torch.full((3,), 0.5))
        assert torch.equal(torch.randn(3), torch.zeros(3))
        assert torch.randperm(3).tolist() == [2, 1, 0]
    assert not torch.allclose(functional.dropout(values, 0.3), values)


def test_random_numbers_of_others_are_named():
    import numpy as np

    class Noisy(nn.Linear):
        def forward(self, x):
            noise = np.random.default_rng().normal(size=tuple(x.shape))
            return super().forward(x + torch.from_numpy(noise).to(x))

    with pytest.raises(ValueError, match="gives the same twice"):
        per_example_statistics(Noisy(6, 3), losses, *make_data(), NORMS)


class Counting(nn.Module):
    """Changes a buffer and attributes at each pass, and keeps what it saw."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(5))
        self.seen = None

    def forward(self, x):
        with torch.no_grad():
            self.mean.mul_(0.9).add_(0.1)
        self.seen = x
        return x + self.mean


@pytest.mark.parametrize("between", [(), (nn.LayerNorm(5),), (nn.GRUCell(5, 5),)])
def test_a_model_is_left_as_it_was(between):
    model, (inputs, targets) = make_mlp(*between, Counting()), make_data()
    model[0].weight.grad = torch.ones(5, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OneByOneWarning)
        per_example_statistics(model, losses, inputs, targets, STATISTICS)
    counting = next(part for part in model if isinstance(part, Counting))
    assert counting.seen is None
    assert torch.equal(counting.mean, torch.zeros(5))
    assert torch.equal(model[0].weight.grad, torch.ones(5, 6))
    assert model[-1].weight.grad is None


def test_rounding_near_a_minimum_is_no_mixing():
    # Losses and gradients of about eps: single precision alone would refuse it.
    model, (inputs, targets) = make_mlp(nn.LayerNorm(5)), make_data(64)
    with torch.no_grad():
        model[-1].weight.mul_(0)
        model[-1].bias.copy_(torch.tensor([16.0, 0.0, 0.0]))
    found = per_example_statistics(
        model, losses, inputs, torch.zeros_like(targets), NORMS
    )
    assert 0 <= float(found.sum_squared_norms) < 1e-8


def test_a_detached_loss_is_refused():
    inputs, targets = make_data()
    for between in ((), (nn.LayerNorm(5),), (nn.GRUCell(5, 5),)):
        with pytest.raises(ValueError, match=r"depend on a trainable parameter, and "):
            per_example_statistics(
                make_mlp(*between),
                lambda o, t: losses(o.detach(), t),
                inputs,
                targets,
                NORMS,
            )


def test_values_that_are_no_numbers_are_no_mixing():
    model, (inputs, targets) = make_mlp(nn.LayerNorm(5)), make_data()
    inputs[3] = float("nan")
    found = per_example_statistics(model, losses, inputs, targets, NORMS)
    assert found.sum_squared_norms.isnan()

    def spread(outputs, targets):
        return losses(outputs, targets) + 0 * outputs.sum()

    with pytest.raises(ValueError, match="samples do not mix"):
        per_example_statistics(model, spread, inputs, targets, NORMS)


def test_half_precision_is_judged_by_a_double():
    # At 50 eps of bfloat16 times the root of 8, everything would pass.
    model, (inputs, targets) = make_mlp(nn.LayerNorm(5), Centred()), make_data()
    with pytest.raises(ValueError, match=r"rounding explains 2e-05"):
        per_example_statistics(
            model.bfloat16(), losses, inputs.bfloat16(), targets, NORMS
        )


def test_a_model_that_knows_one_precision_is_judged_in_it(monkeypatch):
    class Single(nn.Linear):
        def forward(self, x):
            if x.dtype == torch.float64:
                raise TypeError("single precision only")
            return super().forward(x)

    monkeypatch.setattr(mixing, "FINE", 0.0)  # nothing is believed at once
    found = per_example_statistics(Single(6, 3), losses, *make_data(), NORMS)
    assert float(found.sum_squared_norms) > 0
