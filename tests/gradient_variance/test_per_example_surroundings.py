"""What lies around a model's modules: hooks, penalties in a loss, buffers, modes."""

import warnings
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from batchramp.gradient_variance import OneByOneWarning, per_example_statistics

NORMS = ("sum_squared_norms", "squared_norm_of_mean")
losses = nn.CrossEntropyLoss(reduction="none")


def make_data(count=6):
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(count, 8, generator=generator),
        torch.randint(3, (count,), generator=generator),
    )


def make_mlp(*between):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 5), *between, nn.Tanh(), nn.Linear(5, 3))


def plain(model, loss, inputs, targets):
    """Both norms from a backward pass for each sample, as an optimizer would have them."""
    rows = []
    for i in range(len(targets)):
        model.zero_grad()
        loss(model(inputs[i : i + 1]), targets[i : i + 1]).sum().backward()
        gradients = [p.grad.to_dense().flatten() for p in model.parameters()]
        rows.append(torch.cat(gradients).double())
    model.zero_grad()
    stacked = torch.stack(rows)
    return [float(stacked.square().sum()), float(stacked.mean(0).square().sum())]


def found(*arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OneByOneWarning)
        statistics = per_example_statistics(*arguments, NORMS)
    return [float(getattr(statistics, name)) for name in NORMS]


@pytest.mark.parametrize("between", [(), (nn.LayerNorm(5),)])
def test_a_penalty_that_the_loss_takes_of_the_parameters_counts(between):
    model, (inputs, targets) = make_mlp(*between), make_data()

    def loss(outputs, targets):
        penalty = sum(p.square().sum() for p in model.parameters())
        return losses(outputs, targets) + 0.1 * penalty

    expected = plain(model, loss, inputs, targets)
    assert found(model, loss, inputs, targets) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("between", [(), (nn.LayerNorm(5),)])
def test_a_hook_that_masks_a_parameters_gradient_counts(between):
    model, (inputs, targets) = make_mlp(*between), make_data()
    before = found(model, losses, inputs, targets)
    mask = torch.arange(40).view(5, 8) % 2
    model[0].weight.register_hook(lambda gradient: gradient * mask)
    expected = plain(model, losses, inputs, targets)
    assert expected[0] < 0.9 * before[0]
    assert found(model, losses, inputs, targets) == pytest.approx(expected, rel=1e-5)


def test_a_hook_that_gives_a_batch_another_gradient_than_its_samples_is_refused():
    model, (inputs, targets) = make_mlp(nn.LayerNorm(5)), make_data()
    model[0].weight.register_hook(lambda gradient: gradient.clamp(-0.01, 0.01))
    with pytest.raises(ValueError, match="another mean gradient"):
        per_example_statistics(model, losses, inputs, targets, NORMS)


class Reentrant(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 5), nn.Linear(5, 3)

    def forward(self, inputs):
        hidden = self.first(inputs)
        return checkpoint(lambda h: self.second(h.relu()), hidden, use_reentrant=True)


def test_an_optimizer_in_the_backward_pass_makes_no_step():
    torch.manual_seed(0)
    model, (inputs, targets) = Reentrant(), make_data()
    expected = plain(model, losses, inputs, targets)
    before = [p.detach().clone() for p in model.parameters()]
    for parameter in model.parameters():
        optimizer = torch.optim.SGD([parameter], lr=1.0)
        parameter.register_post_accumulate_grad_hook(
            lambda _, optimizer=optimizer: optimizer.step() and None
        )
    assert found(model, losses, inputs, targets) == pytest.approx(expected, rel=1e-5)
    assert all(map(torch.equal, model.parameters(), before))
    assert all(p.grad is None for p in model.parameters())


class Remembering(nn.Module):
    """Writes into its buffers whether it trains or not."""

    def __init__(self, *, reads):
        super().__init__()
        self.inner, self.reads = nn.Linear(8, 3), reads
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, inputs):
        self.seen += 1
        self.mean = 0.5 * self.mean + 0.5 * inputs.detach().mean(0)
        return self.inner(inputs - self.mean if self.reads else inputs)


@pytest.mark.parametrize("training", [True, False])
def test_buffers_are_left_alone(training):
    model, (inputs, targets) = Remembering(reads=False), make_data()
    model.train(training)
    per_example_statistics(model, losses, inputs, targets, NORMS)
    assert float(model.seen) == 0
    assert not model.mean.any()
    with pytest.raises(ValueError, match="samples do not mix"):
        per_example_statistics(
            Remembering(reads=True).train(training), losses, inputs, targets, NORMS
        )


def test_weights_and_parametrizations_are_left_alone():
    _, targets = make_data()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 8, max_norm=0.1), nn.Flatten())
    model.append(parametrizations.spectral_norm(nn.Linear(16, 3)))
    tokens = torch.arange(12).view(6, 2) % 9
    before = {name: t.clone() for name, t in model.state_dict().items()}
    found(model, losses, tokens, targets)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize(
    "layer",
    [nn.Embedding(9, 8, sparse=True), nn.EmbeddingBag(9, 8, sparse=True)],
    ids=["embedding", "bag"],
)
def test_sparse_gradients_count_as_what_they_are(layer):
    _, targets = make_data()
    torch.manual_seed(0)
    model = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(3))
    tokens = torch.arange(12).view(6, 2) % 9
    model(tokens)
    expected = plain(model, losses, tokens, targets)
    assert found(model, losses, tokens, targets) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("between", [(), (nn.LayerNorm(5),)])
def test_a_caller_that_records_no_graph_gets_the_same(without, between):
    model, (inputs, targets) = make_mlp(*between), make_data()
    expected = plain(model, losses, inputs, targets)
    with without():
        inputs = inputs.clone()
        given = found(model, losses, inputs, targets)
    assert given == pytest.approx(expected, rel=1e-5)
    assert found(model, losses, inputs, targets) == given


class Pair(NamedTuple):
    one: torch.Tensor
    other: list


def test_tensors_that_lie_deeper_belong_to_their_samples():
    class Sums(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, inputs, more):
            pair = more["pair"]
            return self.inner(inputs + pair.one + pair.other[0])

    model, (inputs, targets) = make_mlp(nn.LayerNorm(5)), make_data()
    expected = plain(model, losses, 3 * inputs, targets)
    given = inputs, {"pair": Pair(inputs, [inputs])}
    assert found(Sums(model), losses, given, targets) == pytest.approx(
        expected, rel=1e-5
    )


def test_what_all_samples_share_is_told_from_samples():
    model, (inputs, targets) = make_mlp(), make_data()
    with pytest.raises(ValueError, match="what all samples share is held in the model"):
        per_example_statistics(
            model, losses, (inputs, torch.tensor(2.0)), targets, NORMS
        )


def test_a_parameter_without_numbers_varies_nowhere():
    class Empty(nn.Module):
        def __init__(self):
            super().__init__()
            self.empty, self.inner = nn.Parameter(torch.empty(0, 3)), make_mlp()

        def forward(self, inputs):
            return self.inner(inputs)

    inputs, targets = make_data()
    statistics = per_example_statistics(Empty(), losses, inputs, targets, ["variance"])
    assert statistics.variance[0].shape == (0, 3)
    assert statistics.variance[1].all()


def test_generators_of_the_model_stay_where_they_were():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.generator, self.inner = torch.Generator(), make_mlp()

        def forward(self, inputs):
            kept = torch.rand(inputs.shape, generator=self.generator) < 0.5
            return self.inner(functional.dropout(inputs * kept, 0.0))

    model, (inputs, targets) = Own(), make_data()
    before = model.generator.get_state()
    found(model, losses, inputs, targets)
    assert torch.equal(model.generator.get_state(), before)
