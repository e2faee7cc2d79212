"""A loss that depends on the other samples of its batch is found, whatever makes it so."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from batchramp.training.mixing import SAMPLES, check_not_mixed
from batchramp.workloads import Split, Workload, cross_entropy

MIXES = r"'w' must not mix the samples of a batch, .* the first 8 training samples have"


def check(model, loss=cross_entropy, samples=30):
    generator = torch.Generator().manual_seed(4)
    inputs = torch.randn(samples, 6, generator=generator)
    train = Split(inputs, torch.randint(3, (samples,), generator=generator))
    workload = Workload(
        name="w", load=lambda folder, seed: None, model=lambda: model, loss=loss
    )
    check_not_mixed(model.train(), workload, train)


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
    check(network(Normalized(True)), samples=SAMPLES - 1)
