"""Ignite's engines, its batch-size scheduler and its deterministic sampler."""

import itertools

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from batchramp.sampler import VariableBatchSampler

engine = pytest.importorskip("ignite.engine")
deterministic = pytest.importorskip("ignite.engine.deterministic")
handlers = pytest.importorskip("ignite.handlers.param_scheduler")

SAMPLES = 53
ENGINES = [engine.Engine, engine.DeterministicEngine]


def grow(position):
    return 5 if position < SAMPLES else 10


def shrink(position):
    return 10 if position < SAMPLES else 5


def loader_of(sampler, workers=0):
    data = TensorDataset(torch.arange(SAMPLES))
    return DataLoader(data, batch_sampler=sampler, num_workers=workers)


def passes(count, **keywords):
    sampler = VariableBatchSampler(SAMPLES, **keywords)
    return [list(sampler) for _ in range(count)]


def chained(of_passes):
    return list(itertools.chain(*of_passes))


def new_trainer(kind=engine.Engine):
    seen = []
    return kind(lambda _, batch: seen.append(batch[0].tolist())), seen


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("workers", [0, 2])
def test_constant_sizes_go_pass_by_pass(kind, workers):
    trainer, seen = new_trainer(kind)
    trainer.run(loader_of(VariableBatchSampler(SAMPLES, 6), workers), max_epochs=3)
    assert seen == chained(passes(3, batch_size=6))


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("schedule", [grow, shrink])
def test_changing_lengths_go_pass_by_pass_in_one_epoch_of_the_engine(kind, schedule):
    expected = chained(passes(3, schedule=schedule))
    trainer, seen = new_trainer(kind)
    loader = loader_of(VariableBatchSampler(SAMPLES, schedule=schedule))
    trainer.run(loader, max_epochs=1, epoch_length=len(expected))
    assert seen == expected


@pytest.mark.parametrize("kind", ENGINES)
def test_a_resume_at_an_epoch_needs_set_epoch(kind):
    trainer, seen = new_trainer(kind)
    sampler = VariableBatchSampler(SAMPLES, 6)
    trainer.add_event_handler(
        engine.Events.EPOCH_STARTED,
        lambda running: sampler.set_epoch(running.state.epoch - 1),
    )
    loader = loader_of(sampler)
    saved = {"epoch": 1, "epoch_length": len(loader), "max_epochs": 3}
    trainer.load_state_dict(saved | {"rng_states": None, "seed": 0})
    trainer.run(loader)
    assert seen == chained(passes(3, batch_size=6)[1:])


@pytest.mark.parametrize(("workers", "late"), [(0, 1), (2, 5)])
def test_a_scheduler_sets_sizes_from_the_next_batch_drawn_on(workers, late):
    trainer, seen = new_trainer()
    loader = loader_of(VariableBatchSampler(SAMPLES, 4), workers)
    scheduler = handlers.BatchSizeScheduler(loader, lambda event: [7, 3][event])
    once = engine.Events.ITERATION_COMPLETED(once=1)
    trainer.add_event_handler(once, scheduler)
    trainer.run(loader, max_epochs=1, epoch_length=8)
    assert [len(batch) for batch in seen[: late + 2]] == [4] * late + [7, 7]


def test_a_scheduler_meets_a_schedule_with_a_named_error():
    trainer, _ = new_trainer()
    loader = loader_of(VariableBatchSampler(SAMPLES, schedule=grow))
    scheduler = handlers.BatchSizeScheduler(loader, lambda _: 7)
    trainer.add_event_handler(engine.Events.EPOCH_STARTED, scheduler)
    trainer.logger.disabled = True  # it logs what it raises
    with pytest.raises(ValueError, match="must not be set where a schedule decides it"):
        trainer.run(loader, max_epochs=1)


def test_the_reproducible_sampler_holds_a_pass_as_it_was_at_its_start():
    sampler = VariableBatchSampler(SAMPLES, 6)
    held = deterministic.ReproducibleBatchSampler(sampler)
    assert held.sampler is sampler
    batches = iter(held)
    first = [next(batches)]
    sampler.batch_size = 4  # drawn to its end: in force from the next pass on
    first += batches
    assert first == passes(1, batch_size=6)[0]
    assert {len(batch) for batch in list(held)[:-1]} == {4}
