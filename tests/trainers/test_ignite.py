"""Ignite's engines, its batch-size scheduler and its deterministic sampler."""

import itertools

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import batchramp
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


PLAN = batchramp.plan(
    "smith-increase", num_samples=SAMPLES, epochs=4, batch_size=4, max_batch_size=16
)
FLAT = batchramp.plan(
    "smith-increase", num_samples=SAMPLES, epochs=3, batch_size=6, max_batch_size=6
)
RAMP = [(0, 5), (120, 10)]  # the third pass is the first of another length


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize(
    ("schedule", "epochs", "message"),
    [
        (PLAN, 4, "max_epochs must be 1 where passes differ in length, got 4 epochs"),
        (grow, 3, "max_epochs must be 1 where passes differ in length, got 3 epochs"),
        (RAMP, 4, "got 4 epochs of 11 iterations where pass 2 has 7: .*length=35"),
        (FLAT, 5, "max_epochs must end with the plan, got 45 iterations to come where"),
    ],
)
def test_epochs_that_are_not_the_passes_are_refused_at_the_start(
    kind, schedule, epochs, message
):
    trainer, seen = new_trainer(kind)
    trainer.logger.disabled = True
    loader = loader_of(VariableBatchSampler(SAMPLES, schedule=schedule))
    with pytest.raises(ValueError, match=message):
        trainer.run(loader, max_epochs=epochs)
    assert seen == []


@pytest.mark.parametrize("kind", ENGINES)
def test_a_list_of_sizes_runs_whole_in_one_epoch(kind):
    trainer, seen = new_trainer(kind)
    loader = loader_of(VariableBatchSampler(SAMPLES, schedule=RAMP))
    trainer.run(loader, max_epochs=1, epoch_length=35)  # as the refusal says
    assert seen == chained(passes(4, schedule=RAMP))


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_plan_runs_whole_in_one_epoch_or_in_the_users_own(kind, workers):
    whole = chained(passes(4, schedule=PLAN))
    assert len(whole) == PLAN.updates
    for run in (
        {"max_epochs": 1, "epoch_length": PLAN.updates},
        {"max_epochs": PLAN.updates, "epoch_length": 1},
        {"max_iters": PLAN.updates},
    ):
        trainer, seen = new_trainer(kind)
        trainer.run(loader_of(VariableBatchSampler(SAMPLES, schedule=PLAN)), **run)
        assert seen == whole
    trainer, seen = new_trainer(kind)
    sampler = VariableBatchSampler(SAMPLES, schedule=FLAT)
    trainer.run(loader_of(sampler, workers), max_epochs=3)
    assert seen == chained(passes(3, schedule=FLAT))


def resumed(kind, at, prepare, **run):
    """What an engine trains that goes on after some updates, in another process."""
    trainer, _ = new_trainer(kind)
    stops = engine.Events.ITERATION_COMPLETED(once=at)
    trainer.add_event_handler(stops, trainer.terminate)
    trainer.run(loader_of(VariableBatchSampler(SAMPLES, schedule=PLAN)), **run)
    saved = trainer.state_dict()
    trainer, seen = new_trainer(kind)
    trainer.logger.disabled = True
    trainer.load_state_dict(saved)
    sampler = VariableBatchSampler(SAMPLES, schedule=PLAN)
    prepare(sampler)
    trainer.run(loader_of(sampler))
    return seen


def state_after(updates):
    sampler = VariableBatchSampler(SAMPLES, schedule=PLAN)
    endless = itertools.chain.from_iterable(itertools.repeat(sampler))
    for _ in itertools.islice(endless, updates):
        pass
    return sampler.state_dict()


@pytest.mark.parametrize("at", [1, 14, 16, 21])
def test_a_plan_resumes_where_the_engine_does_or_is_refused(at):
    whole = chained(passes(4, schedule=PLAN))
    run = {"max_epochs": 1, "epoch_length": PLAN.updates}
    state = state_after(at)
    rest = resumed(engine.Engine, at, lambda each: each.load_state_dict(state), **run)
    assert rest == whole[at:]
    for kind, prepare in (
        (engine.Engine, lambda each: None),
        (engine.Engine, lambda each: each.set_epoch(0)),
        (engine.Engine, lambda each: each.load_state_dict(state_after(at - 1))),
    ):
        with pytest.raises(ValueError, match="must stand where the engine resumes"):
            resumed(kind, at, prepare, **run)


@pytest.mark.parametrize("at", [9, 13])
def test_a_constant_size_resumes_within_a_pass(at):
    whole = chained(passes(3, batch_size=6))
    saved = {"iteration": at, "epoch_length": 9, "max_epochs": 3}
    for kind, tell in (
        (engine.DeterministicEngine, lambda each: each.set_epoch(1)),
        (engine.Engine, lambda each: each.load_state_dict(each.state_of(at))),
    ):
        trainer, seen = new_trainer(kind)
        trainer.load_state_dict(saved | {"rng_states": None, "seed": 0})
        sampler = VariableBatchSampler(SAMPLES, 6)
        tell(sampler)
        trainer.run(loader_of(sampler))
        assert seen == whole[at:]
    if at % 9:
        for kind, tell in (
            (engine.Engine, lambda each: each.set_epoch(1)),
            (engine.DeterministicEngine, lambda each: None),
        ):
            trainer, _ = new_trainer(kind)
            trainer.logger.disabled = True
            trainer.load_state_dict(saved | {"rng_states": None, "seed": 0})
            sampler = VariableBatchSampler(SAMPLES, 6)
            tell(sampler)
            with pytest.raises(ValueError, match="must stand where the engine resumes"):
                trainer.run(loader_of(sampler))


def test_a_deterministic_engine_skips_by_itself():
    whole = chained(passes(4, schedule=PLAN))
    run = {"max_epochs": 1, "epoch_length": PLAN.updates}
    kind = engine.DeterministicEngine
    assert resumed(kind, 3, lambda each: None, **run) == whole[3:]
    for at, prepare in (
        (3, lambda each: each.load_state_dict(state_after(3))),
        (16, lambda each: None),
        (17, lambda each: each.load_state_dict(state_after(17))),
    ):
        told = "must stand where|must not be loaded into a pass where Deterministic"
        with pytest.raises(ValueError, match=told):
            resumed(kind, at, prepare, **run)
