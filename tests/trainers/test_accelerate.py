"""Accelerate in one process and in two: shares dealt out, and all else refused."""

import itertools
import os

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from batchramp.sampler import VariableBatchSampler

accelerate = pytest.importorskip("accelerate")

SAMPLES = 53
SIZES = {"schedule": lambda position: 3 + position // 7 % 5}, {"batch_size": 7}
DEALT = "rank must be None and world_size 2 where Accelerate deals"


def new_sampler(**keywords):
    return VariableBatchSampler(SAMPLES, boundary="drop", **keywords)


def new_accelerator(**configuration):
    config = accelerate.utils.DataLoaderConfiguration(**configuration)
    return accelerate.Accelerator(cpu=True, dataloader_config=config)


def prepared(accelerator, sampler, **keywords):
    data = TensorDataset(torch.arange(SAMPLES))
    return accelerator.prepare(DataLoader(data, batch_sampler=sampler, **keywords))


def indices(loader):
    return [batch[0].tolist() for batch in loader]


def drawn(accelerator, sampler):
    return indices(prepared(accelerator, sampler))


def message(function, *arguments):
    """What a call refuses with."""
    try:
        return f"returned {function(*arguments)}"
    except ValueError as error:
        return str(error)


def dealt(accelerator, world_size, sizes):
    """Passes of a prepared loader, in order and by set_epoch, and skipped into."""
    sampler = new_sampler(rank=None, world_size=world_size, **sizes)
    loader = prepared(accelerator, sampler)
    found = [[len(loader), *indices(loader)] for _ in range(2)]
    for epoch in (0, 5):
        loader.set_epoch(epoch)
        found.append(indices(loader))
    loader.set_epoch(4)
    found.append(indices(accelerate.skip_first_batches(loader, 3)))
    return found


def expected(rank, world_size, sizes):
    """The same, from a sampler of that rank."""
    sampler = new_sampler(rank=rank, world_size=world_size, **sizes)
    found = [[len(sampler), *sampler] for _ in range(2)]
    for epoch in (0, 5):
        sampler.set_epoch(epoch)
        found.append(list(sampler))
    sampler.set_epoch(4)
    return [*found, list(sampler)[3:]]


def stateful(accelerator, world_size, workers):
    """Saves and loads at three places of pass 2, and goes on with the next."""
    found = []
    for stop in (1, 6, 11):
        sampler = new_sampler(rank=None, world_size=world_size, **SIZES[0])
        loader = prepared(accelerator, sampler, num_workers=workers)
        loader.set_epoch(2)
        head = indices(itertools.islice(loader, stop))
        state = loader.state_dict()
        sampler = new_sampler(rank=None, world_size=world_size, **SIZES[0])
        loader = prepared(accelerator, sampler, num_workers=workers)
        loader.load_state_dict(state)
        loader.set_epoch(2)
        rest = indices(loader)
        loader.set_epoch(3)
        found.append([head + rest, indices(loader)])
    return found


def work():
    """What one of two processes sees."""
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    found = {}
    for options in ({}, {"even_batches": False}, {"use_seedable_sampler": True}):
        accelerator = new_accelerator(**options)
        found[f"dealt {options}"] = [
            dealt(accelerator, world_size, sizes) for sizes in SIZES
        ]
    assert accelerator.num_processes == world_size
    # Whole batches, slices cut again, slices for another number of processes.
    for ranks in (
        {},
        {"rank": rank, "world_size": world_size},
        {"rank": None, "world_size": 3},
    ):
        for sizes in SIZES:
            loader = prepared(accelerator, new_sampler(**ranks, **sizes))
            found[f"refused {ranks} {list(sizes)}"] = message(indices, loader)
    loader = prepared(accelerator, Wrapped(new_sampler(batch_size=6)))
    found["refused in a wrapper"] = message(indices, loader)
    share = {"rank": None, "world_size": world_size}
    loader = prepared(accelerator, new_sampler(**share, **SIZES[0]))
    rest = accelerate.skip_first_batches(loader, 3)
    rest.set_epoch(
        4
    )  # does not reach the sampler, which finds it when it is drawn from
    found["skipped"] = indices(rest)
    found["skipped again"] = message(indices, loader)
    (batch,) = next(iter(loader_of_sevens(accelerator, share)))
    padded = accelerator.pad_across_processes(batch, pad_index=-1)
    found["gathered"] = accelerator.gather(padded).tolist()
    accelerator = new_accelerator(split_batches=True)
    for ranks, sizes in itertools.product((share, {}), SIZES):
        sampler = new_sampler(**ranks, **sizes)
        found[f"split {ranks} {list(sizes)}"] = message(drawn, accelerator, sampler)
    for stateful_too in (False, True):  # on all ranks, though one draws
        accelerator = new_accelerator(
            dispatch_batches=True, use_stateful_dataloader=stateful_too
        )
        sampler = new_sampler(**share, **SIZES[0])
        found[f"dispatch {stateful_too}"] = message(drawn, accelerator, sampler)
    accelerator = new_accelerator(use_stateful_dataloader=True)
    found["stateful"] = stateful(accelerator, world_size, 0)
    loader = prepared(accelerator, new_sampler(**share, **SIZES[0]))
    loader.load_state_dict(loader.state_dict())
    found["unsaid"] = message(indices, loader)
    found["workers"] = message(stateful, accelerator, world_size, 2)
    return found


class Wrapped(torch.utils.data.BatchSampler):
    """A batch sampler of the user's own, which hands on what ours yields."""

    batch_size, drop_last = None, False

    def __init__(self, inner):
        self.inner = inner

    def __iter__(self):
        yield from self.inner

    def __len__(self):
        return len(self.inner)


def loader_of_sevens(accelerator, share):
    return prepared(accelerator, new_sampler(batch_size=7, **share))


@pytest.mark.timeout(240)
def test_two_processes_get_their_shares_and_nothing_else(in_processes):
    for rank, found in enumerate(in_processes(work)):
        for what, seen in found.items():
            if what.startswith("dealt"):
                assert seen == [expected(rank, 2, sizes) for sizes in SIZES], what
            elif what.startswith("refused"):
                assert seen.startswith(DEALT), what
            elif what.startswith("dispatch"):
                assert seen.startswith("dispatch_batches must be False"), what
            elif what == "skipped":
                assert seen == expected(rank, 2, SIZES[0])[-1]
            elif what == "skipped again":
                assert "write loader.set_epoch(epoch)" in seen
            elif what == "gathered":  # 4 and 3 samples: the second is filled up
                assert seen[:4] + seen[4:7] == next(iter(new_sampler(batch_size=7)))
                assert seen[7:] == [-1]
            elif what == "unsaid":
                assert seen.startswith("epoch must be said where a stateful loader")
            elif what == "workers":
                assert seen.startswith("num_workers must be 0 with Accelerate's")
            elif what.startswith("split"):
                theirs = "To use a `DataLoader` in `split_batches` mode"
                assert seen.startswith(("split_batches must be False", DEALT, theirs))
            else:
                assert seen == [again(rank, 2)] * 3


def again(rank, world_size):
    """Passes 2 and 3 of a rank."""
    sampler = new_sampler(rank=rank, world_size=world_size, **SIZES[0])
    sampler.set_epoch(2)
    return [list(sampler), list(sampler)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("rank", [0, None])
def test_one_process_gets_the_batches_as_they_are(rank, sizes):
    loader = prepared(new_accelerator(), new_sampler(rank=rank, **sizes))
    assert [[len(loader), *indices(loader)] for _ in range(2)] == expected(0, 1, sizes)[
        :2
    ]
    assert dealt(new_accelerator(), 1, sizes) == expected(0, 1, sizes)


def test_a_saved_state_resumes_in_one_process():
    pytest.importorskip("torchdata")
    accelerator = new_accelerator(use_stateful_dataloader=True)
    assert stateful(accelerator, 1, 0) == [again(0, 1)] * 3


def test_shares_are_not_taken_for_batches_where_there_is_one_process():
    sampler = new_sampler(batch_size=6, rank=None, world_size=3)
    with pytest.raises(ValueError, match="world_size must be 1 where Accelerate runs"):
        drawn(new_accelerator(), sampler)


def test_a_state_given_to_the_sampler_is_not_lost_to_the_loaders_count():
    saved = new_sampler(batch_size=6)
    saved.set_epoch(3)
    head = list(itertools.islice(saved, 2))
    for loaded in (True, False):
        sampler = new_sampler(batch_size=6)
        loader = prepared(new_accelerator(), sampler)
        if loaded:
            sampler.load_state_dict(saved.state_dict())
        else:
            sampler.set_epoch(3)
        with pytest.raises(
            ValueError,
            match=r"epoch must be 3, .* got 0 .* write loader.set_epoch\(epoch\)",
        ):
            indices(loader)
        loader.set_epoch(3)
        rest = indices(loader)
        whole = new_sampler(batch_size=6)
        whole.set_epoch(3)
        assert (head + rest if loaded else rest) == list(whole)
        assert indices(loader) == list(whole)


def test_a_size_acts_one_batch_later_as_the_loader_looks_ahead():
    sampler = new_sampler(batch_size=4)
    sizes = []
    for update, (batch,) in enumerate(prepared(new_accelerator(), sampler)):
        sizes.append(len(batch))
        if update == 0:
            sampler.set_batch_size(7)
            sampler.set_batch_size(9, at=8 + 14)
    assert sizes == [4, 4, 7, 7, 9, 9, 9]


def test_the_sampler_is_not_replaced():
    sampler = new_sampler(batch_size=6)
    loader = prepared(new_accelerator(), sampler)
    loader.set_sampler(sampler)
    with pytest.raises(ValueError, match="sampler must not be replaced: make another"):
        loader.set_sampler(torch.utils.data.SequentialSampler(range(SAMPLES)))
