"""A witness to a schedule: a copy that never trains, and must decide the same."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

from batchramp.schedules import Plan, Schedule, plan
from batchramp.schedules.interface import Evidence, Horizon, Progress, Settings
from batchramp.training.trial import Trial

Decision = tuple[Settings, Any]
"""What `decide` returns: the settings of an update, and the next state."""


class Question(NamedTuple):
    """The arguments of `decide`."""

    progress: Progress
    evidence: Evidence | None
    state: Any


class Witness:
    """Finds out a schedule whose decisions are no function of their arguments.

    Such a one (it counts its calls, say) would follow another curve after another trial,
    or after a resume. A static schedule is held against the plan of its copy; an
    adaptive one's copy is asked again.

    Args:
        trial: Whose schedule; it is left alone.
        num_samples: Samples of one pass.

    Attributes:
        horizon: What the schedule is laid over.
        plan: The plan of a static schedule; None of an adaptive one.

    Raises:
        ValueError: The schedule does not fit, or cannot be copied.
    """

    def __init__(self, trial: Trial, num_samples: int) -> None:
        self._name = trial.schedule.name
        try:
            self._copy = copy.deepcopy(trial.schedule)
        except Exception as error:
            raise ValueError(
                f"schedule {self._name!r} must be a value that can be copied: "
                f"{type(error).__name__}: {error}"
            ) from error
        self._first: tuple[Question, Decision] | None = None
        self.plan: Plan | None = None
        if self._copy.evidence:
            self.horizon = Horizon.of(num_samples, trial.epochs, trial.boundary)
            self._copy.init(self.horizon)
        else:
            self.plan = plan(
                self._copy,
                num_samples=num_samples,
                epochs=trial.epochs,
                boundary=trial.boundary,
            )
            self.horizon = self.plan.horizon

    def begin(self, schedule: Schedule) -> Any:
        """Return the first state of the trial's own schedule, which decides twice.

        Raises:
            ValueError: Its decisions differ.
        """
        state, at = schedule.init(self.horizon), Progress(0, 0)
        first, again = (schedule.decide(at, None, state) for _ in range(2))
        self._compare(at, first, again, "asked again")
        self._first = (Question(at, None, state), first)
        self._hold(*self._first)
        return state

    def check(self, question: Question, decision: Decision) -> None:
        """Hold a decision of the trial's schedule, and its first again, to the copy's.

        Raises:
            ValueError: They differ.
        """
        if self._first:
            self._hold(*self._first)
        self._hold(question, decision)

    def _hold(self, question: Question, decision: Decision) -> None:
        progress = question.progress
        if self.plan is not None:
            planned = self.plan.settings_at(progress.position)
            self._compare(progress, (decision[0], None), (planned, None), "in its plan")
        else:
            again = self._copy.decide(*question)
            self._compare(progress, decision, again, "asked again")

    def _compare(
        self, progress: Progress, one: Decision, other: Decision, when: str
    ) -> None:
        if _same(one, other):
            return
        differing = zip(one, other, strict=True)
        told, against = next(pair for pair in differing if not _same(*pair))
        raise ValueError(
            f"decide of schedule {self._name!r} must be a function of its arguments (what "
            "it counts belongs into its state), and change size and momentum only where "
            f"events() says: for update {progress.update} at position "
            f"{progress.position} it gave {told}, and {when} {against}"
        )


def _same(one: object, other: object) -> bool:
    try:
        if one == other:
            return True
    except Exception:  # a state may be anything, such as an array
        pass
    return repr(one) == repr(other)  # NaN is not equal to itself
