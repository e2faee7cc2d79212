"""What a trial draws from global generators follows from its seed, and leaves no trace."""

# ruff: noqa: NPY002

import random

import numpy as np
import pytest
import torch

from batchramp._rust import derive_key
from batchramp.training import streams


def draw():
    numbers = [random.random(), *np.random.rand(2), *torch.rand(2).tolist()]
    if torch.cuda.is_available():
        numbers += torch.rand(2, device="cuda").tolist()
    return numbers


def test_a_stream_follows_from_seed_and_name():
    drawn = []
    for seed, stream in ((3, "model"), (3, "model"), (3, "training"), (4, "model")):
        draw()
        with streams.seeded(seed, stream):
            drawn.append(draw())
    assert drawn[0] == drawn[1]
    assert all(a != b for a, b in zip(drawn[0], drawn[2], strict=True))
    assert all(a != b for a, b in zip(drawn[0], drawn[3], strict=True))


def test_torchs_generator_is_set_as_manual_seed_sets_it():
    # Initial parameters of published figures follow from it.
    with streams.seeded(2**63 + 5, "model"):
        drawn = torch.rand(4)
    with streams.kept():
        torch.manual_seed(derive_key(2**63 + 5, "model"))
        assert torch.equal(torch.rand(4), drawn)


@pytest.mark.parametrize(
    "within", [streams.kept, lambda: streams.seeded(7, "split")], ids=["kept", "seeded"]
)
def test_every_generator_is_put_back(within):
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    draw()
    np.random.randn()  # NumPy keeps the second of a pair: that is put back too
    with streams.kept():
        expected = [*draw(), np.random.randn()]
    with within():
        draw()
    assert [*draw(), np.random.randn()] == expected
