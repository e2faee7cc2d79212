"""State that is not set from the seed is refused before the first update."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from batchramp.training.repeating import check_repeats
from batchramp.workloads import Data, Split, Workload, accuracy, cross_entropy

MODEL_AND = (
    r"the model and the {} of workload 'w' must give the same again from the same"
)


def network(*between):
    return lambda: nn.Sequential(nn.Linear(4, 8), *between, nn.Linear(8, 2))


def check(model=None, samples=40, **functions):
    inputs = torch.randn(samples, 4, generator=torch.Generator().manual_seed(2))
    split = Split(inputs, (inputs.sum(1) > 0).long())
    workload = Workload(
        name="w", load=lambda folder, seed: None, model=model or network(), **functions
    )
    check_repeats(workload, Data(split, split))


class Counting:
    """A loss or a metric that counts the calls that are made in one mode."""

    def __init__(self, function, gradients):
        self.function, self.gradients, self.n = function, gradients, 0

    def __call__(self, outputs, targets):
        self.n += torch.is_grad_enabled() == self.gradients
        return self.function(outputs, targets) * (1 + 0.001 * self.n)


class Layer(nn.Module):
    """Scales by what a function gives, in training or wherever it is called."""

    def __init__(self, draw, always=False):
        super().__init__()
        self.draw, self.always = draw, always

    def forward(self, inputs):
        return inputs * (1 + self.draw()) if self.training or self.always else inputs


class Holding(nn.Module):
    """Draws from a generator that it was given."""

    def __init__(self, generator):
        super().__init__()
        self.generator = generator

    def forward(self, inputs):
        return inputs * (1 + self.generator.random())


@pytest.mark.parametrize("samples", [1, 5, 40])
@pytest.mark.parametrize("gradients", [True, False])
def test_a_loss_that_counts_its_calls(gradients, samples):
    with pytest.raises(ValueError, match=MODEL_AND.format("loss")):
        check(loss=Counting(cross_entropy, gradients), samples=samples)


def test_a_metric_that_counts_its_calls():
    with pytest.raises(ValueError, match=MODEL_AND.format("metric")):
        check(metric=Counting(accuracy, False))


def test_a_generator_of_ones_own():
    own = torch.Generator().manual_seed(0)
    layer = Layer(lambda: torch.rand((), generator=own))
    for model in (
        network(layer),
        lambda: network(Layer(np.random.default_rng().normal))(),
    ):
        with pytest.raises(ValueError, match=MODEL_AND.format("loss")):
            check(model)

    def loss(outputs, targets):
        return cross_entropy(outputs, targets) * np.random.default_rng().uniform(1, 2)

    with pytest.raises(ValueError, match=MODEL_AND.format("loss")):
        check(loss=loss)


def test_a_generator_that_all_models_hold():
    own = np.random.default_rng(0)
    with pytest.raises(ValueError, match=MODEL_AND.format("loss")):
        check(lambda: network(Holding(own))())


def test_gradients_with_noise_of_ones_own():
    own = np.random.default_rng(0)

    def model():
        made = network()()
        made[0].weight.register_hook(lambda gradient: gradient * own.uniform(1, 2))
        return made

    with pytest.raises(ValueError, match=MODEL_AND.format("loss")):
        check(model)


def test_what_a_look_would_move_and_cannot_put_back():
    def model():
        return network(Holding(np.random.default_rng(0)))()

    with pytest.raises(
        ValueError, match="'w' must train after a look as it would with"
    ):
        check(model)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Dropout,
        lambda: Layer(lambda: torch.rand(())),
        lambda: Layer(lambda: np.random.rand()),  # noqa: NPY002
        lambda: Layer(random.random, always=True),
        lambda: Layer(np.random.default_rng(0).random),
    ],
    ids=["dropout", "torch", "numpy", "random", "its own in training"],
)
def test_what_follows_from_the_seed_passes(layer):
    check(lambda: network(layer())())


def test_what_wants_other_batches_is_not_looked_at():
    class Five(nn.Linear):
        def forward(self, inputs):
            return super().forward(inputs.unflatten(0, (5, -1)).flatten(0, 1))

    check(lambda: Five(4, 2), samples=64, loss=Counting(cross_entropy, True))


def test_once_per_workload():
    calls = []

    def model():
        calls.append(1)
        return nn.Linear(4, 2)

    inputs = torch.randn(8, 4)
    split = Split(inputs, torch.zeros(8, dtype=torch.int64))
    workload = Workload(name="w", load=lambda folder, seed: None, model=model)
    for _ in range(3):
        check_repeats(workload, Data(split, split))
        counted = len(calls)
    assert (
        counted == len(calls) == 4
    )  # three, and the one that a first one is compared to
