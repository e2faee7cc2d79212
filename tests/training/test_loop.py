"""The loop: rows, clocks, boundaries, determinism, and the adaptive path."""

import math
import sys
from dataclasses import asdict, replace
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batchramp.schedules import Schedule, Settings, make, plan
from batchramp.training import measures
from batchramp.training.loop import run_trial
from batchramp.training.trial import Trial
from batchramp.workloads import Data, Split, Workload

CPU = torch.device("cpu")
N = 50


def load(folder, seed):
    generator = torch.Generator().manual_seed(seed % 2**63)
    inputs = torch.randn(N + 20, 4, generator=generator)
    targets = (inputs.sum(1) > 0).long()
    return Data(Split(inputs[:N], targets[:N]), Split(inputs[N:], targets[N:]))


WORKLOAD = Workload(name="halves", load=load, model=lambda: torch.nn.Linear(4, 2))


def make_trial(schedule, **changes):
    given = {"seed": 0, "epochs": Fraction(4), "cadence": Fraction(1, 2)}
    return Trial(workload=WORKLOAD, schedule=schedule, **(given | changes))


def run(schedule, **changes):
    trial = make_trial(schedule, **changes)
    return run_trial(trial, load(None, trial.seed), CPU)


def without_seconds(record):
    return [
        {k: v for k, v in asdict(row).items() if not k.endswith("_seconds")}
        for row in record.rows
    ]


GROWING = {"batch_size": 3, "max_batch_size": 24, "interval": 0.25, "lr": 0.1}


@settings(deadline=None, max_examples=40)
@given(
    boundary=st.sampled_from(["keep", "drop", "wrap"]),
    epochs=st.fractions(Fraction(1, 5), 5, max_denominator=10),
    cadence=st.fractions(Fraction(1, 20), 3, max_denominator=20),
    batch_size=st.integers(1, 12),
)
def test_rows_follow_the_plan_and_the_looks(boundary, epochs, cadence, batch_size):
    schedule = make(
        "umeda-increasing-batch",
        **GROWING | {"batch_size": batch_size},
    )
    laid = plan(schedule, num_samples=N, epochs=epochs, boundary=boundary)
    record = run(schedule, epochs=epochs, cadence=cadence, boundary=boundary)
    rows = record.rows
    assert record.status == "finished", record.error
    assert (rows[-1].updates, rows[-1].samples) == (laid.updates, laid.samples)
    assert (rows[0].position, rows[0].train_loss, rows[0].batch_size) == (0, None, None)
    assert rows[-1].position >= laid.horizon.budget
    spacing = cadence * N
    # A row after each multiple's first update, one however many it crossed, and the end.
    every = run(schedule, epochs=epochs, cadence=Fraction(1, 10**6), boundary=boundary)
    after = {row.updates: row for row in every.rows}
    assert sorted(after) == list(range(laid.updates + 1))
    expected = {0, laid.updates}
    for multiple in range(1, int(laid.horizon.budget / spacing) + 1):
        reached = (t for t in after if after[t].position >= multiple * spacing)
        expected.add(min(reached))
    assert [row.updates for row in rows] == sorted(expected)
    for row in rows:
        assert (row.position, row.batch_size) == (
            after[row.updates].position,
            after[row.updates].batch_size,
        )
        assert row.epoch == row.position / N


def test_under_drop_the_position_at_a_passs_end_includes_the_tail():
    rows = run(make("constant", batch_size=8, lr=0.1), boundary="drop", epochs=2).rows
    at_ends = [row for row in rows if row.position % N == 0 and row.position]
    assert [row.position for row in at_ends] == [50, 100]
    assert [row.samples for row in at_ends] == [48, 96]
    assert [row.updates for row in at_ends] == [6, 12]


@pytest.mark.parametrize("name", ["noise-scale", "umeda-increasing-batch"])
def test_a_trial_is_a_pure_function_of_its_inputs(name):
    changes = {k: v for k, v in GROWING.items() if k != "interval"}
    first, again = (run(make(name, **changes)) for _ in range(2))
    assert first.status == "finished", first.error
    assert without_seconds(first) == without_seconds(again)
    other = run(make(name, **changes), seed=1)
    assert without_seconds(first) != without_seconds(other)


def test_global_generators_change_nothing_and_are_left_alone():
    torch.manual_seed(123)
    state = torch.random.get_rng_state()
    first = run(make("constant", batch_size=8, lr=0.1))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(456)
    assert without_seconds(first) == without_seconds(
        run(make("constant", batch_size=8, lr=0.1))
    )


def test_looks_and_measures_do_not_move_the_curve():
    schedule = make("umeda-increasing-batch", **GROWING)
    rare = run(schedule, cadence=Fraction(4))
    often = run(
        schedule,
        cadence=Fraction(1, 10),
        measures={
            "gradient_norm": Fraction(1, 10),
            "full_train_loss": Fraction(1, 5),
            "variance": Fraction(1, 2),
            "noise_scale": Fraction(1, 10),
            "sharpness": Fraction(1),
            "batch_mean": Fraction(1),
        },
    )
    end = {
        name: value
        for name, value in without_seconds(rare)[-1].items()
        if name != "train_loss" and value is not None
    }
    assert end.items() <= without_seconds(often)[-1].items()


def test_measures_come_at_their_own_cadence_and_at_the_end():
    measures = {"full_train_loss": Fraction(1)}
    rows = run(make("constant", batch_size=10, lr=0.1), measures=measures).rows
    measured = [row.epoch for row in rows if row.full_train_loss is not None]
    assert measured == [0, 1, 2, 3, 4]
    assert [row.epoch for row in rows if row.gradient_norm is not None] == [4]
    assert all(row.sharpness is row.variance is None for row in rows)
    measures = {"noise_scale": Fraction(2), "batch_mean": Fraction(9)}
    rows = run(make("constant", batch_size=10, lr=0.1), measures=measures).rows
    assert [row.epoch for row in rows if row.noise_scale is not None] == [0, 2, 4]
    assert [row.epoch for row in rows if row.batch_variance is not None] == [4]
    assert all(row.variance is None for row in rows)


def test_train_loss_is_the_mean_over_samples_since_the_previous_row():
    # With a rate of almost nothing the model stands still: every full pass has the
    # full training loss, whatever the batch sizes were.
    schedule = make("umeda-increasing-batch", **GROWING | {"lr": 1e-30})
    rows = run(schedule, cadence=Fraction(1), measures={"full_train_loss": 1}).rows
    for row in rows[1:]:
        assert row.train_loss == pytest.approx(row.full_train_loss, rel=1e-6)


def test_micro_batches_change_nothing_but_rounding():
    schedule = make("umeda-increasing-batch", **GROWING)
    whole, split = run(schedule), run(schedule, micro_batch=5)
    assert [row.updates for row in whole.rows] == [row.updates for row in split.rows]
    assert whole.rows[-1].full_train_loss == pytest.approx(
        split.rows[-1].full_train_loss, rel=1e-5
    )


def run_own(workload, data=None, schedule=None, **changes):
    schedule = schedule or make("constant", batch_size=8, lr=0.1)
    trial = replace(make_trial(schedule, **changes), workload=workload)
    return run_trial(trial, data or load(None, 0), CPU)


def test_a_loss_that_stops_being_finite_ends_the_trial_as_diverged():
    squares = replace(WORKLOAD, loss=lambda outputs, targets: outputs.square().sum(1))
    record = run_own(squares, schedule=make("constant", batch_size=8, lr=1e30))
    assert (record.status, record.error) == ("diverged", None)
    assert [row.position for row in record.rows] == [0, 32]
    assert not math.isfinite(record.rows[-1].train_loss)


def test_an_error_makes_a_failed_trial_that_keeps_its_rows():
    calls = []

    def loss(outputs, targets):
        calls.append(1)
        if len(calls) > 30:
            raise RuntimeError("out of luck")
        return torch.nn.functional.cross_entropy(outputs, targets, reduction="none")

    record = run_own(replace(WORKLOAD, loss=loss))
    line = loss.__code__.co_firstlineno + 3
    told = f"RuntimeError: out of luck (test_loop.py:{line}, in loss)"
    assert (record.status, record.error) == ("failed", told)
    assert record.traceback.startswith("Traceback (most recent call last):")
    assert "in run_trial" in record.traceback
    assert record.traceback.endswith("RuntimeError: out of luck\n")
    assert len(record.rows) >= 1


def test_an_exit_is_a_failed_trial_and_an_interrupt_is_none():
    def leave(outputs, targets):
        sys.exit("had enough")

    record = run_own(replace(WORKLOAD, loss=leave))
    assert record.status == "failed"
    assert "SystemExit: had enough (test_loop.py:" in record.error

    def interrupted(outputs, targets):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_own(replace(WORKLOAD, loss=interrupted))


def test_a_measure_that_fails_leaves_its_column_and_a_note():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(context, values):
            return values.clone()

        @staticmethod
        def backward(context, gradient):
            return torch.from_numpy(gradient.numpy())  # no gradient of a gradient

    def loss(outputs, targets):
        return WORKLOAD.loss(Once.apply(outputs), targets)

    once = replace(WORKLOAD, loss=loss)
    record = run_own(once, measures={"sharpness": Fraction(1)})
    assert record.status == "finished", record.error
    assert {row.sharpness for row in record.rows} == {None}
    (note,) = record.notes
    assert note.startswith("sharpness was not measured (first at position 0): Runtime")
    assert "(test_loop.py:" in note
    plain = run_own(WORKLOAD)
    assert plain.notes == ()
    assert without_seconds(plain) == without_seconds(record)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_a_measure_without_memory_costs_its_column_and_is_told_once(error, monkeypatch):
    def greedy(*args):
        raise error("tried to allocate 9 GiB")

    monkeypatch.setattr(measures, "per_example_statistics", greedy)
    asked = {"noise_scale": Fraction(1), "sharpness": Fraction(1)}
    record = run_own(WORKLOAD, measures=asked)
    assert record.status == "finished", record.error
    assert {row.noise_scale for row in record.rows} == {None}
    assert record.rows[-1].sharpness is not None
    (note,) = record.notes
    assert note.startswith("noise_scale was not measured (first at position 0): ")
    assert f"{error.__name__}: tried to allocate 9 GiB" in note


def test_a_measure_that_is_interrupted_interrupts(monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(measures, "per_example_statistics", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_own(WORKLOAD, measures={"variance": Fraction(1)})


class Shrinking(Schedule):
    """Changes its batch size where it declares nothing."""

    name = "undeclared"

    def parameters(self):
        return {}

    def init(self, horizon):
        return None

    def decide(self, progress, evidence, state):
        return Settings(8 if progress.position < 100 else 5, 0.1, 0.0), state

    def events(self, horizon):
        return ()

    def restore(self, values):
        return None


def test_a_schedule_that_changes_what_it_has_not_declared_fails():
    record = run(Shrinking())
    assert record.status == "failed"
    assert "must declare an event" in record.error


ASKED_AGAIN = 2
"""Times that a schedule is asked beforehand, to see that it answers alike."""


class Asking(Schedule):
    """An adaptive schedule that writes down what it is given."""

    name = "asking"
    evidence = frozenset({"micro_batches"})

    def __init__(self, size):
        self.size, self.given = size, []

    def parameters(self):
        return {"size": self.size}

    def init(self, horizon):
        assert horizon.total_updates is None
        return 0

    def decide(self, progress, evidence, state):
        self.given.append((progress, evidence, state))
        return Settings(self.size, 0.1, 0.0), state + 1

    def events(self, horizon):
        return ()

    def restore(self, values):
        return values


def test_an_adaptive_schedule_gets_its_evidence_once_an_update():
    schedule = Asking(10)
    record = run(schedule)
    assert record.status == "finished", record.error
    given = schedule.given[ASKED_AGAIN:]
    assert [progress.update for progress, _, _ in given] == list(range(20))
    assert [state for _, _, state in given] == list(range(20))
    evidence = [evidence for _, evidence, _ in given]
    assert evidence[0] is None
    assert {(found.count, found.batch_size) for found in evidence[1:]} == {(2, 5)}


def test_under_drop_a_tail_is_decided_anew_with_the_same_state():
    schedule = Asking(20)
    record = run(schedule, boundary="drop", epochs=2)
    assert record.status == "finished", record.error
    given = schedule.given[ASKED_AGAIN:]
    seen = [(p.position, p.update, state) for p, _, state in given]
    assert seen == [
        (0, 0, 0),
        (20, 1, 1),
        (40, 2, 2),
        (50, 2, 2),
        (70, 3, 3),
        (90, 4, 4),
    ]
    assert record.rows[-1].updates == 4
    assert record.rows[-1].position == 100


def test_noise_scale_grows_its_batch_and_is_charged_for_it():
    noisy = make("noise-scale", batch_size=2, max_batch_size=32, lr=0.05)
    record = run(noisy, epochs=20)
    assert record.status == "finished", record.error
    sizes = [row.batch_size for row in record.rows[1:]]
    assert sizes == sorted(sizes)
    assert 2 <= sizes[0] < sizes[-1] <= 32


def test_clocks_add_up_to_no_more_than_the_wall():
    end = run(make("constant", batch_size=8, lr=0.1)).rows[-1]
    parts = end.train_seconds + end.evaluation_seconds + end.compile_seconds
    assert 0 < parts <= end.total_seconds


def test_an_adaptive_schedule_gets_what_it_names_and_no_more():
    schedule = Asking(10)
    schedule.evidence = frozenset({"inner_products"})
    assert run(schedule, micro_batch=5).status == "finished"
    for _, found, _ in schedule.given[ASKED_AGAIN + 1 :]:
        assert sum(found.inner_products) / 2 == pytest.approx(
            found.squared_norm_of_mean, rel=1e-5
        )
        assert found.orthogonal is None
