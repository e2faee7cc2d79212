"""A loss that depends on the other samples of its batch is found, whatever makes it so."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from batchramp.training.mixing import check_not_mixed
from batchramp.workloads import Split, Workload, accuracy, cross_entropy

MIXES = (
    r"loss of workload 'w' must not mix the samples of a batch, .* 8 training samples"
)


def check(model, loss=cross_entropy, samples=30, metric=accuracy):
    generator = torch.Generator().manual_seed(4)
    inputs = torch.randn(samples, 6, generator=generator)
    train = Split(inputs, torch.randint(3, (samples,), generator=generator))
    workload = Workload(
        name="w",
        load=lambda folder, seed: None,
        model=lambda: model,
        loss=loss,
        metric=metric,
    )
    check_not_mixed(model.train(), workload, train, train)


def network(*between):
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 12), *between, nn.Linear(12, 3))


class Normalized(nn.Module):
    """Batch norm as a function."""

    def __init__(self, always):
        super().__init__()
        self.always = always

    def forward(self, inputs):
        if not (self.always or self.training):
            return inputs
        return functional.batch_norm(inputs, None, None, training=True)


@pytest.mark.parametrize("always", [True, False])
def test_batch_norm_as_a_function(always):
    with pytest.raises(ValueError, match=MIXES):
        check(network(Normalized(always)))


def test_batch_norm_beside_dropout_is_found_in_evaluation_mode():
    with pytest.raises(ValueError, match=MIXES):
        check(network(nn.Dropout(), Normalized(True)))


def test_a_loss_of_the_whole_batch():
    def centred(outputs, targets):
        return cross_entropy(outputs - outputs.mean(0), targets)

    with pytest.raises(ValueError, match=MIXES):
        check(network(), centred)


@pytest.mark.parametrize(
    "between",
    [nn.ReLU(), nn.Dropout(), nn.LayerNorm(12), nn.GroupNorm(3, 12), nn.Tanh()],
    ids=lambda layer: type(layer).__name__,
)
def test_what_does_not_mix_passes(between):
    check(network(between))


def test_what_a_pass_leaves_behind_is_no_mixing():
    layers = network()
    nn.utils.parametrizations.spectral_norm(layers[0])
    before = {name: value.clone() for name, value in layers.state_dict().items()}
    check(layers)
    after = layers.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_what_wants_other_batches_is_not_looked_at():
    class Five(nn.Linear):
        def forward(self, inputs):
            return super().forward(inputs.unflatten(0, (5, -1)).flatten(0, 1))

    check(Five(6, 3))
    check(network(Normalized(True)), samples=1)


def test_few_samples_are_looked_at_too():
    with pytest.raises(ValueError, match=r"must not mix .* 5 training samples"):
        check(network(Normalized(True)), samples=5)


def broadcast(outputs, targets):
    """(batch, 1) against (batch,) is (batch, batch): each sample meets every target."""
    return ((outputs[:, :1] - targets) ** 2).mean(1)


@pytest.mark.parametrize("order", ["drawn", "sorted", "alternating", "rare"])
def test_outputs_that_meet_every_target_are_found_whatever_their_order(order):
    targets = {
        "drawn": torch.randint(2, (40,), generator=torch.Generator().manual_seed(1)),
        "sorted": torch.arange(40) // 20,
        "alternating": torch.arange(40) % 2,
        "rare": (torch.arange(40) == 17).long(),
    }[order]
    split = Split(torch.randn(40, 6), targets)
    given = {"name": "w", "load": lambda folder, seed: None, "model": network}
    with pytest.raises(ValueError, match=r"loss of workload 'w' must not mix"):
        check_not_mixed(network(), Workload(**given, loss=broadcast), split, split)
    with pytest.raises(ValueError, match=r"metric of workload 'w' must not mix"):
        check_not_mixed(network(), Workload(**given, metric=broadcast), split, split)
    right = Workload(**given, loss=lambda o, t: (o[:, 0] - t) ** 2)
    check_not_mixed(network(), right, split, split)
