"""Per-example variance of a training step: ours beside BackPACK's, in turn."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from batchramp.gradient_variance import ways
from batchramp.gradient_variance.per_example import per_example_statistics

ROUNDS, BATCH = 15, 128


@pytest.fixture(params=[1, 2], ids=lambda count: f"{count} threads")
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1568, 116),
        nn.ReLU(),
        nn.Linear(116, 10),
    )


def losses(outputs, targets):
    return functional.cross_entropy(outputs, targets, reduction="none")


def backpack_step(model, inputs, targets):
    backpack = pytest.importorskip("backpack", reason="needs backpack-for-pytorch")
    from backpack.extensions import Variance

    model = backpack.extend(copy.deepcopy(model))
    loss = backpack.extend(nn.CrossEntropyLoss())

    def step():
        model.zero_grad()
        with backpack.backpack(Variance()):
            loss(model(inputs), targets).backward()

    return step


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # BackPACK's
@pytest.mark.parametrize("way", ["layers", "vmap"])
def test_per_example_variance(benchmark, threads, way, in_turn, say, monkeypatch):
    if way == "vmap":  # what models of other layers take
        monkeypatch.setattr(ways, "run_layers", lambda *_: None)
    model = make_model()
    size = BATCH if benchmark.enabled else 4
    inputs, targets = torch.randn(size, 1, 28, 28), torch.randint(10, (size,))
    names = ("variance", "sum_squared_norms", "squared_norm_of_mean")

    def plain():
        model.zero_grad()
        losses(model(inputs), targets).mean().backward()

    def ours():
        return per_example_statistics(model, losses, inputs, targets, names)

    found = ours()
    plain()
    for parameter, mean in zip(model.parameters(), found.mean, strict=True):
        torch.testing.assert_close(parameter.grad, mean, rtol=1e-3, atol=1e-5)
    theirs = backpack_step(model, inputs, targets)
    for function in (plain, theirs):
        function()
    benchmark.pedantic(ours, rounds=ROUNDS)
    turns = in_turn((plain, ours, theirs), ROUNDS)
    plain_ms, ours_ms, theirs_ms = (turns.seconds(index) * 1e3 for index in range(3))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    say(
        f"variance of {size} examples, {parameters} parameters, {threads} threads, "
        f"by {way}: "
        f"plain forward and backward {plain_ms:.1f} ms, ours {ours_ms:.1f} ms "
        f"({turns.ratio(1, 0):.2f} of plain), BackPACK {theirs_ms:.1f} ms "
        f"({turns.ratio(2, 0):.2f} of plain, {turns.ratio(2, 1):.1f} of ours)"
    )
