"""A plain DataLoader, the sampler given as it is."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from batchramp.sampler import VariableBatchSampler


def ramp(position):
    """Sizes that grow and shrink with the position."""
    return 2 + position // 7 % 5


def through_json(state):
    return json.loads(json.dumps(state))


def passes(sampler, count):
    return [list(sampler) for _ in range(count)]


def loader_of(sampler, workers, **kwargs):
    data = TensorDataset(torch.arange(sampler.num_samples))
    return DataLoader(data, batch_sampler=sampler, num_workers=workers, **kwargs)


def indices(loader):
    return [batch[0].tolist() for batch in loader]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_sees_every_sample_once_a_pass(workers):
    sampler = VariableBatchSampler(53, schedule=ramp)
    loader = loader_of(sampler, workers)
    assert len(loader) == len(sampler)
    first, second = indices(loader), indices(loader)
    expected = passes(VariableBatchSampler(53, schedule=ramp), 2)
    assert [first, second] == expected
    assert first != second
    assert sorted(itertools.chain(*first)) == list(range(53))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_resumes_from_what_was_trained(workers):
    whole = passes(VariableBatchSampler(53, schedule=ramp), 2)
    sampler = VariableBatchSampler(53, schedule=ramp)
    trained = list(itertools.islice(loader_of(sampler, workers), 4))
    # Workers are ahead: the sampler's own state is not the trainer's.
    assert sampler.state_dict()["batches_yielded"] == (4 if workers == 0 else 8)
    state = through_json(sampler.state_at(len(trained)))
    again = VariableBatchSampler(53, schedule=ramp)
    again.load_state_dict(state)
    loader = loader_of(again, workers)
    assert indices(loader) == whole[0][4:]
    assert indices(loader) == whole[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_finished_passes_state_is_the_next_passes_beginning(workers):
    sampler = VariableBatchSampler(20, 6)
    first, second = passes(VariableBatchSampler(20, 6), 2)
    assert indices(loader_of(sampler, workers)) == first
    again = VariableBatchSampler(20, 6)
    again.load_state_dict(sampler.state_dict())
    loader = loader_of(again, workers)
    assert indices(loader) == second


def test_persistent_workers_go_from_pass_to_pass():
    loader = loader_of(VariableBatchSampler(20, 6), 2, persistent_workers=True)
    got = [indices(loader) for _ in range(3)]
    assert got == passes(VariableBatchSampler(20, 6), 3)


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_workers_start_by_any_method(method, in_processes):
    # (`in_processes` has the fork server import torch once.)
    # `spawn` and `forkserver` hand a worker all that it needs by pickling.
    sampler = VariableBatchSampler(20, 6)
    loader = DataLoader(
        range(20),
        batch_sampler=sampler,
        num_workers=2,
        multiprocessing_context=method,
        collate_fn=list,
    )
    assert [list(loader) for _ in range(2)] == passes(VariableBatchSampler(20, 6), 2)


def test_iterators_abandoned_before_their_first_batch_skip_nothing():
    loader = loader_of(VariableBatchSampler(20, 6), 0)
    iter(loader)
    iter(loader)
    assert indices(loader) == passes(VariableBatchSampler(20, 6), 1)[0]


@pytest.mark.parametrize(("workers", "prefetch"), [(0, None), (1, 2), (2, 2), (2, 4)])
def test_a_size_acts_at_the_position_said_whatever_is_prefetched(workers, prefetch):
    sampler = VariableBatchSampler(200, 4, order="sequential")
    keywords = {} if prefetch is None else {"prefetch_factor": prefetch}
    drawn = 1 + workers * (prefetch or 0)
    sizes = []
    for update, (batch,) in enumerate(loader_of(sampler, workers, **keywords)):
        sizes.append(len(batch))
        if update == 0:
            assert sampler.position == 4 * drawn
            sampler.set_batch_size(10, at=100)
            with pytest.raises(ValueError, match="batches are drawn up to there"):
                sampler.set_batch_size(10, at=4 * drawn - 1)
    assert sizes == [4] * 25 + [10] * 10


@pytest.mark.parametrize("workers", [0, 2])
def test_a_size_set_without_a_position_acts_after_what_was_drawn(workers):
    sampler = VariableBatchSampler(60, 4, order="sequential")
    sizes = []
    for update, (batch,) in enumerate(loader_of(sampler, workers)):
        sizes.append(len(batch))
        if update == 0:
            sampler.batch_size = 7
    drawn = 1 + workers * 2  # the batch trained, and workers times prefetch_factor
    assert sizes[: drawn + 1] == [4] * drawn + [7]
    assert sum(sizes) == 60


def test_numpy_batches_suit_a_data_set_that_gathers():
    class Gathers:
        def __len__(self):
            return 20

        def __getitems__(self, wanted):
            assert isinstance(wanted, np.ndarray)
            return torch.arange(20)[torch.from_numpy(wanted)]

    sampler = VariableBatchSampler(20, 6, output="numpy")
    loader = DataLoader(Gathers(), batch_sampler=sampler, collate_fn=lambda got: got)
    got = [batch.tolist() for batch in loader]
    assert got == passes(VariableBatchSampler(20, 6), 1)[0]


def train(trained, folder, workers):
    """A loop of one's own: a state every fourth update and at a pass's end."""
    sampler = trained.new_sampler()
    saved, update, batches = Path(folder, "state.json"), 0, 0
    if saved.exists():
        update, state = json.loads(saved.read_text())
        sampler.load_state_dict(state)
        batches = state["batches_yielded"]
    loader = loader_of(sampler, workers)
    while update < trained.plan.updates:
        for (batch,) in loader:
            trained(update, batch.tolist())
            update, batches = update + 1, batches + 1
            if update % 4 == 0:
                saved.write_text(json.dumps([update, sampler.state_at(batches)]))
        saved.write_text(json.dumps([update, sampler.state_dict()]))
        batches = 0


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("at", "first"), [(13, 12), (14, 14)], ids=["mid", "end"])
def test_a_killed_loop_goes_on_from_its_last_state(workers, at, first, killed):
    assert killed(train, workers, at=at) == first
