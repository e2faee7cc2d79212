"""Per-example statistics against one backward pass an example, and BackPACK."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from batchramp.gradient_variance import per_example, statistics
from batchramp.gradient_variance.layers import run_layers
from batchramp.gradient_variance.objective import Objective
from batchramp.gradient_variance.per_example import per_example_statistics
from batchramp.gradient_variance.samples import Samples

NAMES = statistics.STATISTICS
COUNT = 7


def losses(outputs, targets):
    return functional.cross_entropy(outputs, targets, reduction="none")


class Tied(nn.Module):
    """Uses its first weight a second time, transposed, past its layer."""

    def __init__(self):
        super().__init__()
        self.encode, self.head = nn.Linear(16, 6), nn.Linear(16, 3)

    def forward(self, inputs):
        hidden = self.encode(inputs.flatten(1)).tanh()
        return self.head(hidden @ self.encode.weight)


class Repeated(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.inner = nn.Linear(16, 5), nn.Linear(5, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, inputs):
        hidden = self.first(inputs.flatten(1))
        return self.head(self.inner(self.inner(hidden).tanh()))


class Sequence(nn.Module):
    """Rows of the image as positions: a linear layer on three dimensions."""

    def __init__(self):
        super().__init__()
        self.mix, self.head = nn.Linear(4, 6), nn.Linear(24, 3)

    def forward(self, inputs):
        return self.head(self.mix(inputs[:, 0]).relu().flatten(1))


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 16))
        self.head = nn.Linear(16, 3)

    def forward(self, inputs):
        return self.head(inputs.flatten(1) * self.scale)


def convolutions(**kwargs):
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, **kwargs),
        nn.ReLU(inplace=True),
        nn.Conv2d(3, 4, 2, bias=False),
        nn.Flatten(),
        nn.LazyLinear(3),
    )


def frozen():
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 4), nn.Linear(4, 3)
    )
    model[1].requires_grad_(requires_grad=False)
    model[3].weight.requires_grad_(requires_grad=False)
    return model


def hooked():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    model[1].register_forward_hook(lambda module, taken, given: 2 * given)
    return model


MODELS = {
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Linear(5, 3)),
    "convolutions": convolutions,
    "strides": lambda: convolutions(stride=2, padding=(2, 3), dilation=(1, 2)),
    "sequence": Sequence,
    "frozen": frozen,
    "tied": Tied,
    "repeated": Repeated,
    "scaled": Scaled,
    "hooked": hooked,
    "norms": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(16, 3)
    ),
    "reflected": lambda: convolutions(padding=1, padding_mode="reflect"),
}
BY_LAYERS = ("mlp", "convolutions", "strides", "sequence", "frozen")


def make(name):
    torch.manual_seed(0)
    inputs = torch.randn(COUNT, 1, 4, 4)
    targets = torch.randint(3, (COUNT,))
    model = MODELS[name]()
    model(inputs)  # lazy layers take their shape
    return model.double(), inputs.double(), targets


def trainable(model):
    return [p for p in model.parameters() if p.requires_grad]


def one_by_one(model, inputs, targets):
    rows = []
    for example in range(len(inputs)):
        where = slice(example, example + 1)
        loss = losses(model(inputs[where]), targets[where]).sum()
        gradients = torch.autograd.grad(loss, trainable(model))
        rows.append(torch.cat([part.reshape(-1) for part in gradients]))
    return torch.stack(rows)


@pytest.mark.parametrize("max_bytes", [1, 1000, 2**25])
@pytest.mark.parametrize("name", MODELS)
def test_statistics_are_those_of_single_backward_passes(name, max_bytes):
    model, inputs, targets = make(name)
    rows = one_by_one(model, inputs, targets)
    found = per_example_statistics(
        model, losses, inputs, targets, NAMES, max_bytes=max_bytes
    )
    expected = statistics.micro_batch_statistics(
        [[row] for row in rows], NAMES, batch_size=1
    )
    for which in NAMES[:-1]:
        torch.testing.assert_close(getattr(found, which), getattr(expected, which))
    for which in ("mean", "variance"):
        parts = getattr(found, which)
        assert [p.shape for p in parts] == [p.shape for p in trainable(model)]
        joined = torch.cat([part.reshape(-1) for part in parts])
        torch.testing.assert_close(joined, getattr(expected, which)[0])
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_the_fast_way_is_taken_where_it_holds(name):
    model, inputs, targets = make(name)
    samples = Samples.of(inputs, targets)
    found = run_layers(Objective(model, losses), samples, 2**20)
    assert (found is not None) == (name in BY_LAYERS)


@pytest.mark.parametrize("name", ["convolutions", "norms"])
@pytest.mark.parametrize("which", NAMES)
def test_nothing_else_is_computed(name, which):
    model, inputs, targets = make(name)
    found = per_example_statistics(model, losses, inputs, targets, {which})
    assert [other for other in NAMES if getattr(found, other) is not None] == [which]
    rows = one_by_one(model, inputs, targets)
    mean = torch.cat([part.reshape(-1) for part in found.mean])
    torch.testing.assert_close(mean, rows.mean(0))


def test_equal_examples_do_not_vary():
    model, inputs, _ = make("mlp")
    same = (model.float(), losses, inputs[:1].float().repeat(5, 1, 1, 1))
    found = per_example_statistics(
        *same, torch.zeros(5, dtype=torch.int64), ("variance", "squared_norm_of_mean")
    )
    spread = sum(float(part.sum()) for part in found.variance)
    assert 0 <= spread < 1e-12 * float(found.squared_norm_of_mean)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # BackPACK's
def test_backpack_agrees():
    backpack = pytest.importorskip("backpack", reason="needs backpack-for-pytorch")
    from backpack.extensions import SumGradSquared, Variance

    model, inputs, targets = make("mlp")
    found = per_example_statistics(model, losses, inputs, targets, NAMES)
    extended = backpack.extend(model)
    loss = backpack.extend(nn.CrossEntropyLoss())
    with backpack.backpack(Variance(), SumGradSquared()):
        loss(extended(inputs), targets).backward()
    # Of gradients divided by the batch (f-dangel/backpack#49), with divisor B.
    for parameter, variance in zip(model.parameters(), found.variance, strict=True):
        scale = COUNT**2 * COUNT / (COUNT - 1)
        torch.testing.assert_close(variance, scale * parameter.variance)
    squares = sum(float(p.sum_grad_squared.sum()) for p in model.parameters())
    assert float(found.sum_squared_norms) == pytest.approx(COUNT**2 * squares)


@pytest.mark.parametrize("name", ["convolutions", "mlp", "norms"])
def test_half_precision_is_summed_in_single(name):
    model, inputs, targets = make(name)
    model, inputs = model.bfloat16(), inputs.bfloat16()
    found = per_example_statistics(model, losses, inputs, targets, NAMES)
    rows = one_by_one(model, inputs, targets).float()
    assert all(part.dtype == torch.float32 for part in found.mean)
    mean = torch.cat([part.reshape(-1) for part in found.mean])
    torch.testing.assert_close(mean, rows.mean(0), rtol=0.05, atol=0.005)
    expected = float(mean.double().square().sum())
    assert float(found.squared_norm_of_mean) == pytest.approx(expected, rel=1e-5)
    spread = sum(float(part.sum()) for part in found.variance)
    assert spread == pytest.approx(float(rows.var(0).sum()), rel=0.02)


def test_dropout_is_one_draw_in_both_passes():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(16, 50), nn.LayerNorm(50), nn.Dropout(), nn.Linear(50, 3)
    )
    inputs, targets = torch.randn(COUNT, 16), torch.randint(3, (COUNT,))
    found = []
    for _ in range(2):
        torch.manual_seed(1)
        found.append(
            per_example_statistics(
                model, losses, inputs, targets, NAMES, max_bytes=20_000
            )
        )
    # The products with the mean sum to K |mean|^2 only where both passes drew alike.
    total = COUNT * found[0].squared_norm_of_mean
    torch.testing.assert_close(found[0].inner_products.sum(), total, rtol=1e-5, atol=0)
    assert torch.equal(found[0].inner_products, found[1].inner_products)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False)])
def test_batch_norm_in_training_is_refused(norm):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.Flatten(), nn.Linear(16, 3))
    inputs, targets = torch.randn(5, 1, 4, 4), torch.randint(3, (5,))
    message = r"BatchNorm2d .* at 1: use micro_batch_statistics .* model.eval\(\)"
    with pytest.raises(ValueError, match=message):
        per_example_statistics(model, losses, inputs, targets, NAMES)
    found = per_example_statistics(model.eval(), losses, inputs, targets, NAMES)
    assert float(found.sum_squared_norms) > 0
    model[1] = nn.BatchNorm2d(4, track_running_stats=False)
    with pytest.raises(ValueError, match="samples do not mix"):
        per_example_statistics(model.eval(), losses, inputs, targets, NAMES)


def test_bad_arguments_are_refused():
    model, inputs, targets = make("mlp")
    for bad, length in ((functional.cross_entropy, 7), (nn.MSELoss(), 7)):
        with pytest.raises(
            ValueError, match=rf"one value a sample, shape \({length},\)"
        ):
            per_example_statistics(
                model, lambda o, t, bad=bad: bad(o, o.detach()), inputs, targets, NAMES
            )
    with pytest.raises(ValueError, match="one value a sample"):
        per_example_statistics(
            make("norms")[0], functional.cross_entropy, inputs, targets, NAMES
        )
    with pytest.raises(ValueError, match="at least 2, got 1 and 1"):
        per_example_statistics(model, losses, inputs[:1], targets[:1], NAMES)
    with pytest.raises(ValueError, match="same length"):
        per_example_statistics(model, losses, inputs, targets[:3], NAMES)
    with pytest.raises(ValueError, match="max_bytes must be at least 1"):
        per_example_statistics(model, losses, inputs, targets, NAMES, max_bytes=0)
    model.requires_grad_(requires_grad=False)
    with pytest.raises(ValueError, match="trainable parameter"):
        per_example_statistics(model, losses, inputs, targets, NAMES)


@pytest.mark.parametrize("name", ["convolutions", "norms"])
def test_no_value_crosses_to_the_host(name, monkeypatch):
    # On the device `meta` a tensor has no value: reading one raises.
    monkeypatch.setattr(per_example, "DEVICE_BYTES", 1000)  # several chunks
    model, inputs, targets = make(name)
    found = per_example_statistics(
        model.to("meta"), losses, inputs.to("meta"), targets.to("meta"), NAMES
    )
    assert found.orthogonal.shape == (COUNT,)
    assert [p.shape for p in found.variance] == [p.shape for p in model.parameters()]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["convolutions", "sequence", "norms"])
def test_a_gpu_finds_the_same_without_waiting(name):
    model, inputs, targets = make(name)
    expected = per_example_statistics(model, losses, inputs, targets, NAMES)
    arguments = model.cuda(), losses, inputs.cuda(), targets.cuda(), NAMES
    per_example_statistics(*arguments)  # libraries load, which waits
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = per_example_statistics(*arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for which in NAMES[:-1]:
        torch.testing.assert_close(
            getattr(found, which).cpu(), getattr(expected, which)
        )
    for ours, theirs in zip(found.variance, expected.variance, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs)


class TimeFirst(torch.nn.Module):
    """Takes the steps of a sequence for its first dimension, as recurrent models do."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = torch.nn.Linear(6, 5), torch.nn.Linear(5, 3)

    def forward(self, inputs):
        hidden = torch.tanh(self.inner(inputs.transpose(0, 1)))
        return self.outer(hidden).mean(0)


@pytest.mark.parametrize("steps", [7, 8])
def test_a_sequence_as_long_as_the_batch_is_not_taken_for_it(steps):
    torch.manual_seed(0)
    model, loss = TimeFirst(), torch.nn.CrossEntropyLoss(reduction="none")
    inputs, targets = torch.randn(8, steps, 6), torch.randint(0, 3, (8,))
    expected = 0.0
    for i in range(8):
        one = loss(model(inputs[i : i + 1]), targets[i : i + 1]).sum()
        parts = torch.autograd.grad(one, list(model.parameters()))
        expected += sum(float(part.double().square().sum()) for part in parts)
    found = per_example_statistics(model, loss, inputs, targets, ("sum_squared_norms",))
    assert float(found.sum_squared_norms) == pytest.approx(expected, rel=1e-5)


class Mixing(TimeFirst):
    def forward(self, inputs):
        hidden = self.inner(inputs)
        return self.outer(hidden - hidden.mean(0, keepdim=True))


def test_samples_that_mix_without_a_batch_norm_are_noticed():
    torch.manual_seed(0)
    loss = torch.nn.CrossEntropyLoss(reduction="none")
    inputs, targets = torch.randn(8, 6), torch.randint(0, 3, (8,))
    with pytest.raises(ValueError, match="in which samples do not mix"):
        per_example_statistics(Mixing(), loss, inputs, targets, ("variance",))
