"""A schedule that is no function of its arguments is found out, and named."""

from fractions import Fraction

import pytest
import torch

from batchramp.schedules import Schedule, Settings, make
from batchramp.training.loop import run_trial
from batchramp.training.trial import Trial
from batchramp.workloads import Data, Split, Workload

CPU = torch.device("cpu")
N = 40


def run(schedule, **changes):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(N, 3, generator=generator)
    split = Split(inputs, (inputs.sum(1) > 0).long())
    workload = Workload(
        name="w",
        load=lambda folder, seed: None,
        model=lambda: torch.nn.Linear(3, 2),
    )
    given = {"seed": 0, "epochs": Fraction(4), "cadence": Fraction(1, 2)}
    trial = Trial(workload=workload, schedule=schedule, **(given | changes))
    return run_trial(trial, Data(split, split), CPU)


class Counting(Schedule):
    """Lowers its rate once it has been asked often enough."""

    name = "counting"

    def __init__(self, calls=0, *, adaptive=False, state=None):
        self.calls, self.after, self.state = 0, calls, state
        if adaptive:
            self.evidence = frozenset({"micro_batches"})

    def parameters(self):
        return {}

    def init(self, horizon):
        return self.state

    def decide(self, progress, evidence, state):
        self.calls += 1
        return Settings(8, 0.1 if self.calls <= self.after else 0.01, 0.0), state

    def events(self, horizon):
        return ()

    def restore(self, values):
        return values


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("calls", [1, 2, 3, 4, 6, 9, 15])
def test_a_schedule_that_counts_in_itself(adaptive, calls):
    record = run(Counting(calls, adaptive=adaptive))
    assert record.status == "failed"
    words = "decide of schedule 'counting' must be a function of its arguments"
    assert record.error.startswith(words)
    assert "Settings(batch_size=8, lr=0.01, momentum=0.0)" in record.error


def test_a_schedule_that_counts_in_its_state_is_pure():
    class InState(Counting):
        def decide(self, progress, evidence, state):
            return Settings(8, 0.1 if state < 9 else 0.01, 0.0), state + 1

    record = run(InState(adaptive=True, state=0))
    assert record.status == "finished", record.error
    assert [row.lr for row in record.rows[1:]] == [0.1] * 3 + [0.01] * 5


def test_a_state_that_differs_is_found_too():
    class Remembering(Counting):
        def decide(self, progress, evidence, state):
            self.calls += 1
            return Settings(8, 0.1, 0.0), self.calls

    record = run(Remembering(adaptive=True))
    assert "for update 0 at position 0 it gave 1, and asked again 2" in record.error


def test_a_state_of_anything_can_be_compared():
    class Odd(Counting):
        def decide(self, progress, evidence, state):
            state = torch.tensor([float("nan"), 1.0])
            return Settings(8, 0.1, 0.0), state

    assert run(Odd(adaptive=True)).status == "finished"


def test_a_schedule_that_cannot_be_copied_is_named():
    schedule = Counting(10**9)
    schedule.module = torch  # which nothing can copy
    record = run(schedule)
    assert record.error.startswith(
        "schedule 'counting' must be a value that can be cop"
    )


@pytest.mark.parametrize("boundary", ["keep", "drop", "wrap"])
@pytest.mark.parametrize(
    "schedule",
    [
        make("umeda-increasing-batch", batch_size=3, max_batch_size=24, interval=0.25),
        make("constant-cosine", batch_size=7, lr=0.1),
        make("noise-scale", batch_size=2, max_batch_size=16, lr=0.05),
    ],
    ids=lambda schedule: schedule.name,
)
def test_our_own_schedules_are_pure(schedule, boundary):
    record = run(schedule, boundary=boundary, cadence=Fraction(1, 20))
    assert record.status == "finished", record.error
