"""Two gloo processes: each rank its share, and weights that make DDP's mean exact."""

import contextlib
import itertools
import json
import warnings
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

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


def warned_of(share):
    """How often each of some samplers warns when it is drawn from, in a group of two."""
    distributed.init_process_group("gloo")
    theirs = DistributedSampler(range(SAMPLES))
    cases = {
        "left out": VariableBatchSampler(SAMPLES, 8),
        "said": VariableBatchSampler(SAMPLES, 8, boundary="drop", **share),
        "own data": VariableBatchSampler(SAMPLES, 8, world_size=1),
        "dealt": VariableBatchSampler(
            SAMPLES, 8, boundary="drop", rank=None, world_size=2
        ),
        "theirs": VariableBatchSampler(theirs, 4, boundary="drop"),
    }
    found = {}
    for name, sampler in cases.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                list(sampler)
        found[name] = [str(warning.message) for warning in caught]
    # Their own epoch is followed, whenever it is set.
    followed = []
    for epoch in (2, 3, 1):
        theirs.set_epoch(epoch)
        followed.append(list(cases["theirs"]))
    return {"warned": found, "followed": followed}


def test_ranks_left_out_in_a_group_of_processes_are_warned_of_once(in_processes):
    share = {"rank": 0, "world_size": 2}
    ranks = in_processes(warned_of, share)
    for rank, found in enumerate(ranks):
        (told,) = found["warned"].pop("left out")
        assert "every sample is trained 2 times" in told
        assert "rank=torch.distributed.get_rank()" in told
        assert all(not said for said in found["warned"].values())
        alone = VariableBatchSampler(
            SAMPLES, 8, boundary="drop", rank=rank, world_size=2
        )
        for epoch, batches in zip((2, 3, 1), found["followed"], strict=True):
            alone.set_epoch(epoch)
            assert batches == list(alone)


def train_killed(trained, folder, workers):
    """DDP: a state every fourth update and at a pass's end, written by one rank."""
    distributed.init_process_group("gloo")
    ranks = {"rank": distributed.get_rank(), "world_size": 2}
    sampler = trained.new_sampler(**ranks)
    model = DistributedDataParallel(nn.Linear(1, 1))
    saved, update, batches = Path(folder, "state.json"), 0, 0
    if saved.exists():
        update, state = json.loads(saved.read_text())
        sampler.load_state_dict(state)
        batches = state["batches_yielded"]
    data = torch.arange(sampler.num_samples)
    loader = DataLoader(data, batch_sampler=sampler, num_workers=workers)

    def save(state):
        distributed.barrier()
        if ranks["rank"] == 0:
            saved.write_text(json.dumps([update, state]))
        distributed.barrier()

    while update < trained.plan.updates:
        for batch in loader:
            loss = model(batch[:, None].float()).mean() * sampler.weight(batches)
            loss.backward()
            trained(update, batch.tolist())
            update, batches = update + 1, batches + 1
            if update % 4 == 0:
                save(sampler.state_at(batches))
        batches = 0
        save(sampler.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("at", "first"), [(13, 12), (14, 14)], ids=["mid", "end"])
def test_killed_processes_go_on_from_their_last_state(workers, at, first, killed):
    assert killed(train_killed, workers, at=at, world_size=2) == first


def gradients_of_pieces(micro_batch):
    """One rank: the gradient of each global batch of a pass, summed over its pieces."""
    distributed.init_process_group("gloo")
    sampler = make_sampler(
        rank=distributed.get_rank(), world_size=2, micro_batch=micro_batch
    )
    model = DistributedDataParallel(make_model())
    found, seen = [], []
    for index, (indices, inputs, labels) in enumerate(
        DataLoader(make_data(), batch_sampler=sampler)
    ):
        update, weight, last = sampler.piece(index)
        assert update == len(found)
        with contextlib.nullcontext() if last else model.no_sync():
            loss = nn.functional.mse_loss(model(inputs), labels)
            (loss * weight).backward()
        seen += indices.tolist()
        assert len(indices) <= micro_batch
        if last:
            gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
            found.append((seen, gradient.tolist()))
            seen = []
            model.zero_grad()
    return {"found": found}


def test_pieces_without_sync_average_to_the_global_gradient(in_processes):
    expected = gradients(make_model(), make_sampler(), lambda _: 1.0)
    ranks = in_processes(gradients_of_pieces, 2)
    assert assert_averaged(ranks, expected) >= 2
