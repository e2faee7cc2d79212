"""Loaders that keep one endless iterator, and loops that look at a batch beforehand."""

import itertools

import pytest
from torch.utils.data import DataLoader

import batchramp
from batchramp.sampler import VariableBatchSampler

SAMPLES, EPOCHS = 40, 4
PLAN = batchramp.plan(
    "smith-increase",
    num_samples=SAMPLES,
    epochs=EPOCHS,
    batch_size=4,
    max_batch_size=16,
)


class _RepeatSampler:
    def __init__(self, sampler):
        self.sampler = sampler

    def __iter__(self):
        while True:
            yield from iter(self.sampler)


class MultiEpochsDataLoader(DataLoader):
    """As timm has it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._DataLoader__initialized = False
        self.batch_sampler = _RepeatSampler(self.batch_sampler)
        self._DataLoader__initialized = True
        self.iterator = super().__iter__()

    def __len__(self):
        return len(self.batch_sampler.sampler)

    def __iter__(self):
        for _ in range(len(self)):
            yield next(self.iterator)


class InfiniteDataLoader(DataLoader):
    """As ultralytics has it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        object.__setattr__(self, "batch_sampler", _RepeatSampler(self.batch_sampler))
        self.iterator = super().__iter__()

    def __len__(self):
        return len(self.batch_sampler.sampler)

    def __iter__(self):
        for _ in range(len(self)):
            yield next(self.iterator)


KINDS = [MultiEpochsDataLoader, InfiniteDataLoader]
GROWING = [{"schedule": PLAN}, {"schedule": lambda position: 4 + position // SAMPLES}]


def loader_of(kind, sampler, workers=0):
    return kind(range(SAMPLES), batch_sampler=sampler, num_workers=workers)


def indices(loader):
    return [batch.tolist() for batch in loader]


def passes(**keywords):
    sampler = VariableBatchSampler(SAMPLES, **keywords)
    return [list(sampler) for _ in range(EPOCHS)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [*GROWING, {"batch_size": 8}])
@pytest.mark.parametrize("asks", [False, True])
def test_an_endless_iterator_goes_pass_by_pass(kind, sizes, asks):
    sampler = VariableBatchSampler(SAMPLES, **sizes)
    loader = loader_of(kind, sampler)
    for epoch, whole in enumerate(passes(**sizes)):
        if asks:
            sampler.set_epoch(epoch)
        found = []
        for step, batch in enumerate(loader):
            found.append(batch.tolist())
            assert (step + 1 == len(loader)) == (len(found) == len(whole))
        assert found == whole
    if sizes.get("schedule") is PLAN:
        with pytest.raises(ValueError, match="where the plan ends"):
            indices(loader)


@pytest.mark.parametrize("kind", KINDS)
def test_an_endless_iterator_goes_on_with_the_rest_of_a_pass(kind):
    whole = passes(schedule=PLAN)
    sampler = VariableBatchSampler(SAMPLES, schedule=PLAN)
    loader = loader_of(kind, sampler)
    indices(loader)
    head = indices(itertools.islice(loader, 3))
    again = VariableBatchSampler(SAMPLES, schedule=PLAN)
    again.load_state_dict(sampler.state_dict())
    for rest in (loader, loader_of(kind, again)):
        assert head + indices(rest) == whole[1]
        assert indices(rest) == whole[2]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [*GROWING, {"batch_size": 7, "boundary": "wrap"}])
def test_workers_that_draw_passes_of_other_lengths_ahead_are_refused(kind, sizes):
    sampler = VariableBatchSampler(SAMPLES, **sizes)
    with pytest.raises(ValueError, match=r"write DataLoader.*persistent_workers=True"):
        loader_of(kind, sampler, workers=2)


def test_workers_may_draw_passes_of_one_length_ahead():
    whole = passes(batch_size=8)
    loader = loader_of(InfiniteDataLoader, VariableBatchSampler(SAMPLES, 8), workers=2)
    assert [indices(loader) for _ in range(EPOCHS)] == whole
    # Told the pass that they have drawn from, they would draw it twice.
    sampler = VariableBatchSampler(SAMPLES, 8)
    loader = loader_of(InfiniteDataLoader, sampler, workers=2)
    sampler.set_epoch(0)
    with pytest.raises(ValueError, match="set_epoch must be left out where"):
        indices(loader)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_looked_at_beforehand_shifts_the_plan_by_name(workers):
    # As Keras' `fit` does to build a model.
    whole = passes(schedule=PLAN)
    sampler = VariableBatchSampler(SAMPLES, schedule=PLAN)
    loader = loader_of(DataLoader, sampler, workers)
    next(iter(loader))
    assert [indices(loader) for _ in range(EPOCHS - 1)] == whole[1:]
    with pytest.raises(ValueError, match=r"dropped.*next.iter.loader.*set_epoch"):
        indices(loader)
    for epoch in range(EPOCHS):  # right where each epoch is said
        sampler.set_epoch(epoch)
        assert indices(loader) == whole[epoch]


@pytest.mark.parametrize("kind", ["DataLoader", "StatefulDataLoader"])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_last_batch_is_known_by_the_loaders_length(kind, workers):
    loader_kind = DataLoader
    if kind == "StatefulDataLoader":
        torchdata = pytest.importorskip("torchdata.stateful_dataloader")
        loader_kind = torchdata.StatefulDataLoader
    sampler = VariableBatchSampler(SAMPLES, schedule=PLAN)
    loader = loader_of(loader_kind, sampler, workers)
    for whole in passes(schedule=PLAN):
        length = len(loader)
        assert length == len(whole)
        last = []
        for step, _ in enumerate(loader):
            # Workers have drawn the pass to its end before it is trained.
            if step + 1 == (length if workers else len(loader)):
                last.append(step)
        assert last == [len(whole) - 1]
