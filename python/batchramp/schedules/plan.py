"""A plan: a static schedule laid over N samples, a budget and a boundary."""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from itertools import accumulate
from typing import Any, NamedTuple

from batchramp._rust import Batches, advance
from batchramp.schedules.checks import check_schedule, decided, declared_events
from batchramp.schedules.interface import Horizon, Progress, Schedule, Settings
from batchramp.schedules.registry import load, make, named, names
from batchramp.values import shown, whole


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A span in which batch size and momentum are constant and no event lies.

    Attributes:
        start: First position of its first batch.
        batch_size: Global batch size.
        lr: Learning rate of its first update.
        lr_end: Learning rate of its last update.
        momentum: Momentum.
        updates: Number of updates.
    """

    start: int
    batch_size: int
    lr: float
    lr_end: float
    momentum: float
    updates: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The exact batches of a static schedule, before any training.

    Attributes:
        schedule: What was laid.
        horizon: What it was laid over, `total_updates` included.
        stages: Its stages, in order.
        updates: Number of updates until the budget.
        samples: Samples behind them: what `keep` cuts is cut, what `drop` skips is not
            counted, and the last batch may overshoot the budget.
        runs: (position, batch size): the size that holds for every batch decided from
            that position on, until the next run. Under `drop` a run may begin in a
            tail that its size skips; the size is then looked up anew where the next
            pass begins.
        fingerprint: Short hash of the schedule, the horizon and the runs.
    """

    schedule: Schedule
    horizon: Horizon
    stages: tuple[Stage, ...]
    updates: int
    samples: int
    runs: tuple[tuple[int, int], ...]
    fingerprint: str
    _state: Any = field(repr=False, compare=False)
    _starts: tuple[int, ...] = field(repr=False, compare=False)
    _first_updates: tuple[int, ...] = field(repr=False, compare=False)

    def settings_at(self, position: int) -> Settings:
        """Returns the settings of the batch that holds a position.

        A position in a tail that `drop` skips is held by the batch after it, and in a
        last tail by the batch before it.

        Args:
            position: A position at least 0 and below the budget.

        Raises:
            ValueError: If the position lies outside the plan.
        """
        budget = self.horizon.budget
        if not 0 <= whole("position", position) < budget:
            raise ValueError(
                f"position must be at least 0 and below {budget} (the budget), "
                f"got {shown(position)}"
            )
        index = bisect_right(self._starts, position) - 1
        progress = self._held_by(index, position)
        return decided(self.schedule, self.horizon, progress, self._state)

    def settings_of(self, update: int) -> Settings:
        """Returns the settings of an update.

        Args:
            update: Its index from the trial's start, from 0 (a sampler's `settings`
                takes it from the pass's start).

        Raises:
            ValueError: If the plan has no such update.
        """
        if not 0 <= whole("update", update) < self.updates:
            raise ValueError(
                f"update must be at least 0 and below {self.updates} (those of the "
                f"plan), got {shown(update)}"
            )
        index = bisect_right(self._first_updates, update) - 1
        first = Progress(self._starts[index], self._first_updates[index])
        size = self.stages[index].batch_size
        at = _advance(self.horizon, first, size, until_update=int(update))
        return decided(self.schedule, self.horizon, at, self._state)

    def to_dict(self) -> dict[str, Any]:
        """Returns the plan as JSON values."""
        return {
            "schedule": self.schedule.name,
            "parameters": self.schedule.parameters(),
            "num_samples": self.horizon.num_samples,
            "budget": self.horizon.budget,
            "boundary": self.horizon.boundary,
            "updates": self.updates,
            "samples": self.samples,
            "fingerprint": self.fingerprint,
            "stages": [asdict(stage) for stage in self.stages],
        }

    def _held_by(self, index: int, position: int) -> Progress:
        """Returns the progress of the batch that holds `position` in a stage."""
        size = self.stages[index].batch_size
        first = Progress(self._starts[index], self._first_updates[index])
        last = first.update + self.stages[index].updates - 1
        after = _advance(self.horizon, first, size, until_position=position + 1)
        held = _advance(
            self.horizon, first, size, until_update=min(after.update - 1, last)
        )
        if position < _cutter(self.horizon).end(held.position, size):
            return held
        # A dropped tail: the batch after it is this stage's, the next one's, or none.
        if held.update < last:
            return after
        if index + 1 < len(self.stages):
            return Progress(self._starts[index + 1], last + 1)
        return held


def plan(
    schedule: Schedule | str,
    *,
    num_samples: float | str | None = None,
    epochs: float | str | Fraction | None = None,
    boundary: str = "keep",
    **parameters: Any,
) -> Plan:
    """Returns the plan of a static schedule.

    Batch sizes are laid first, with the total number of updates unknown, then the
    rates, which may depend on it. The time taken follows the number of events, not that
    of updates.

    Args:
        schedule: A schedule, a name of `names()`, or `file.py:name`.
        num_samples: Samples of one pass, a whole number; the paper's if None.
        epochs: Passes, an exact decimal; the paper's if None.
        boundary: What happens to a batch at a pass's end: `keep` (cut short), `drop`
            (skipped where it does not fit) or `wrap` (runs on into the next pass).
        **parameters: The schedule's parameters, if it is given by name.

    Raises:
        ValueError: If an argument is not valid, the schedule is adaptive, it reaches a
            batch size above `num_samples`, or its size or momentum change where it has
            declared no event.
    """
    if isinstance(schedule, str):
        schedule = (load if ":" in schedule else make)(schedule, **parameters)
    elif parameters:
        raise ValueError(
            "schedule must be a name to take parameters, got a schedule and "
            f"{', '.join(sorted(parameters))}"
        )
    schedule = check_schedule(schedule)
    if schedule.evidence:
        raise ValueError(
            f"schedule must be static to be planned, got {schedule.name!r}, which "
            f"decides from {', '.join(sorted(schedule.evidence))} while it trains"
        )
    if num_samples is None:
        num_samples = _default(schedule, "num_samples")
    if epochs is None:
        epochs = _default(schedule, "epochs")
    horizon = Horizon.of(num_samples, epochs, boundary)
    sizes = _lay(schedule, horizon)
    horizon = replace(horizon, total_updates=sizes.updates)
    laid = _lay(schedule, horizon)
    if laid.runs != sizes.runs or laid.updates != sizes.updates:
        raise ValueError(
            f"batch sizes of schedule {schedule.name!r} must not depend on "
            "total_updates, which follows from them"
        )
    return Plan(
        schedule=schedule,
        horizon=horizon,
        stages=laid.stages,
        updates=laid.updates,
        samples=laid.samples,
        runs=laid.runs,
        fingerprint=_fingerprint(schedule, horizon, laid.runs),
        _state=laid.state,
        _starts=tuple(stage.start for stage in laid.stages),
        _first_updates=(
            0,
            *accumulate(stage.updates for stage in laid.stages[:-1]),
        ),
    )


class _Laid(NamedTuple):
    stages: tuple[Stage, ...]
    runs: tuple[tuple[int, int], ...]
    updates: int
    samples: int
    state: Any


class _Marks:
    """Declared events of one clock, ascending."""

    def __init__(self, marks: Iterable[int | None]) -> None:
        self._marks = sorted({mark for mark in marks if mark is not None})

    def after(self, at: int) -> int | None:
        index = bisect_right(self._marks, at)
        return self._marks[index] if index < len(self._marks) else None


def _lay(schedule: Schedule, horizon: Horizon) -> _Laid:
    """Jumps from event to event, deciding settings at each."""
    state = schedule.init(horizon)
    events = declared_events(schedule, horizon)
    position_marks = _Marks(event.position for event in events)
    update_marks = _Marks(event.update for event in events)
    cutter = _cutter(horizon)
    stages: list[Stage] = []
    runs: list[tuple[int, int]] = []
    samples = 0
    at = Progress(0, 0)
    while at.position < horizon.budget:
        settings = decided(schedule, horizon, at, state)
        size = settings.batch_size
        if not runs or runs[-1][1] != size:
            runs.append((at.position, size))
        start = cutter.start(at.position, size)
        if start != at.position:
            # A tail is skipped: the settings are decided anew at the next pass.
            at = Progress(start, at.update)
            continue
        until_position = position_marks.after(at.position) or horizon.budget
        after = _advance(
            horizon,
            at,
            size,
            until_position=min(until_position, horizon.budget),
            until_update=update_marks.after(at.update),
        )
        last = _advance(horizon, at, size, until_update=after.update - 1)
        last_settings = decided(schedule, horizon, last, state)
        _check_constant(schedule, at, settings, last, last_settings)
        # Not `after`, which is where the next batch of this size would begin: a smaller
        # one may still fit into the tail.
        end = cutter.end(last.position, size)
        count = after.update - at.update
        samples += count * size if horizon.boundary == "drop" else end - at.position
        stages.append(
            Stage(
                start=at.position,
                batch_size=size,
                lr=settings.lr,
                lr_end=last_settings.lr,
                momentum=settings.momentum,
                updates=count,
            )
        )
        at = Progress(end, after.update)
    return _Laid(tuple(stages), tuple(runs), at.update, samples, state)


def _cutter(horizon: Horizon) -> Batches:
    """Returns the rules of cutting; no order is computed for them."""
    return Batches(horizon.num_samples, order="sequential", boundary=horizon.boundary)


def _advance(
    horizon: Horizon,
    at: Progress,
    batch_size: int,
    *,
    until_position: int | None = None,
    until_update: int | None = None,
) -> Progress:
    return Progress(
        *advance(
            horizon.num_samples,
            horizon.boundary,
            at.position,
            at.update,
            batch_size,
            until_position,
            until_update,
        )
    )


def _check_constant(
    schedule: Schedule,
    first: Progress,
    first_settings: Settings,
    last: Progress,
    last_settings: Settings,
) -> None:
    if (first_settings.batch_size, first_settings.momentum) != (
        last_settings.batch_size,
        last_settings.momentum,
    ):
        raise ValueError(
            f"schedule {schedule.name!r} must declare an event where its batch size or "
            f"momentum change, got {first_settings} at position {first.position} and "
            f"{last_settings} at position {last.position} without one between them"
        )


def _default(schedule: Schedule, name: str) -> int:
    if schedule.name not in names():
        raise ValueError(
            f"{name} must be given, for schedule {schedule.name!r} has no default"
        )
    default: int = getattr(named(schedule.name), name)
    return default


def _fingerprint(
    schedule: Schedule, horizon: Horizon, runs: tuple[tuple[int, int], ...]
) -> str:
    identity = [schedule.name, schedule.parameters(), asdict(horizon), runs]
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
