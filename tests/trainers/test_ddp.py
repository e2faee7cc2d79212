"""Two gloo processes: each rank its share, and weights that make DDP's mean exact."""

import itertools

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

from batchramp.sampler import VariableBatchSampler

SAMPLES, STOP = 41, 3


def ramp(position):
    return 3 + position // 10


def make_data():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(SAMPLES, 5, generator=generator, dtype=torch.float64)
    labels = torch.randn(SAMPLES, 1, generator=generator, dtype=torch.float64)
    return TensorDataset(torch.arange(SAMPLES), inputs, labels)


def make_model():
    model = nn.Linear(5, 1, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.linspace(-1, 1, 5))
        model.bias.fill_(0.5)
    return model


def make_sampler(**ranks):
    return VariableBatchSampler(SAMPLES, schedule=ramp, boundary="drop", **ranks)


def gradients(model, sampler, weigh, first=0, last=None):
    """The gradient of each batch of a pass, and the samples behind it."""
    found = []
    loader = DataLoader(make_data(), batch_sampler=sampler)
    stop = None if last is None else last - first
    for update, (indices, inputs, labels) in enumerate(
        itertools.islice(loader, stop), start=first
    ):
        model.zero_grad()
        loss = nn.functional.mse_loss(model(inputs), labels)
        (loss * weigh(update)).backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        found.append((indices.tolist(), gradient.tolist()))
    return found


def train(state, last):
    """One rank: the rest of a pass from a state, up to an update."""
    distributed.init_process_group("gloo")
    sampler = make_sampler(
        rank=distributed.get_rank(), world_size=distributed.get_world_size()
    )
    first = 0
    if state is not None:
        sampler.load_state_dict(state)
        first = state["batches_yielded"]
    model = DistributedDataParallel(make_model())
    found = gradients(model, sampler, sampler.weight, first, last)
    distributed.barrier()
    return {"found": found, "state": sampler.state_dict()}


def assert_averaged(ranks, expected):
    """Ranks share the batches of one process, and their mean gradient is its own."""
    shares = list(zip(*(rank["found"] for rank in ranks), strict=True))
    assert len(shares) == len(expected)
    for parts, (indices, gradient) in zip(shares, expected, strict=True):
        assert list(itertools.chain(*(part[0] for part in parts))) == indices
        for part in parts:  # after the all-reduce every rank holds the same
            assert part[1] == pytest.approx(gradient, rel=1e-12)
    return sum(len({len(part[0]) for part in parts}) > 1 for parts in shares)


@pytest.mark.timeout(240)
def test_processes_average_to_the_global_gradient_in_any_number(in_processes):
    alone = make_sampler()
    expected = gradients(make_model(), alone, lambda _: 1.0)
    two = in_processes(train, None, STOP, world_size=2)
    uneven = assert_averaged(two, expected[:STOP])
    # The state knows no ranks: three go on from what two saved, and one from three.
    assert two[0]["state"] == two[1]["state"]
    three = in_processes(train, two[0]["state"], None, world_size=3)
    uneven += assert_averaged(three, expected[STOP:])
    assert uneven >= 2
    assert all(rank["state"] == alone.state_dict() for rank in three)
    last = make_sampler()
    last.load_state_dict(three[0]["state"])
    assert list(last) == list(alone)
