"""The one static schedule: a table of steps, and a shape laid over its rates."""

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, final

from batchramp.schedules.interface import (
    Evidence,
    Horizon,
    Mark,
    Progress,
    Schedule,
    Settings,
)
from batchramp.schedules.learning_rates import Clock, Shape
from batchramp.values import shown


class Steps(NamedTuple):
    """What holds after how many marks were passed, whichever they were.

    Attributes:
        positions: Positions of the steps that follow position, ascending.
        updates: Update indices of those that follow updates, ascending.
        batch_sizes: Batch size after each number of marks, one more than there are.
        rates: Rate after each number of marks, before the shape.
        warmup: Length of the warm-up, in the unit that the shape reads.
    """

    positions: tuple[int, ...]
    updates: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    rates: tuple[float, ...]
    warmup: float = 0.0


class StepRule(Protocol):
    """How steps follow from a horizon."""

    def steps(self, horizon: Horizon) -> Steps:
        """Returns the steps laid over `horizon`."""


@dataclass(frozen=True)
class ConstantSteps:
    """No step at all.

    Attributes:
        lr: The rate, before the shape.
        batch_size: The batch size.
    """

    lr: float
    batch_size: int

    def steps(self, horizon: Horizon) -> Steps:  # noqa: ARG002
        """Returns one entry and no mark."""
        return Steps((), (), (self.batch_size,), (self.lr,))


class StaticState(NamedTuple):
    """The steps as laid over a horizon; the same from the first update to the last.

    Attributes:
        positions: As in `Steps`.
        updates: As in `Steps`.
        batch_sizes: As in `Steps`.
        rates: As in `Steps`.
        clock: What the shape reads.
    """

    positions: tuple[int, ...]
    updates: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    rates: tuple[float, ...]
    clock: Clock


@final
@dataclass(frozen=True, kw_only=True)
class StaticSchedule(Schedule):
    """Settings that follow from position and update alone.

    Attributes:
        name: The schedule's name.
        values: Its parameters, resolved, as JSON values.
        momentum: Its momentum, constant.
        rule: Its steps of batch size and rate.
        shape: What the rate does between them.
    """

    name: str
    values: dict[str, Any]
    momentum: float
    rule: StepRule
    shape: Shape

    # The interface asks for something to read; only a schedule of one's own assigns it.
    @property
    def needs_total_updates(self) -> bool:  # type: ignore[override]
        """Whether the shape of the rate follows the total number of updates."""
        return self.shape.needs_total_updates

    def parameters(self) -> dict[str, Any]:
        """Returns every parameter, resolved, as JSON values."""
        return dict(self.values)

    def init(self, horizon: Horizon) -> StaticState:
        """Returns the steps laid over `horizon`.

        Raises:
            ValueError: If a batch size reached by position exceeds the number of
                samples (a plan also finds those that are reached by update).
        """
        steps = self.rule.steps(horizon)
        _refuse_sizes_above(horizon, steps)
        clock = Clock(
            horizon.num_samples, horizon.budget, horizon.total_updates, steps.warmup
        )
        return StaticState(*steps[:4], clock)

    def decide(
        self,
        progress: Progress,
        evidence: Evidence | None,  # noqa: ARG002
        state: StaticState,
    ) -> tuple[Settings, StaticState]:
        """Returns the settings of the update at `progress`, and `state` itself."""
        passed = bisect_right(state.positions, progress.position)
        if state.updates:
            passed += bisect_right(state.updates, progress.update)
        lr = self.shape.rate(state.rates[passed], progress, state.clock)
        return Settings(state.batch_sizes[passed], lr, self.momentum), state

    def events(self, horizon: Horizon) -> tuple[Mark, ...]:
        """Returns the marks of the steps that lie before the budget."""
        steps = self.rule.steps(horizon)
        positions = sorted({at for at in steps.positions if 0 < at < horizon.budget})
        return (
            *(Mark(position=position) for position in positions),
            *(Mark(update=update) for update in sorted(set(steps.updates))),
        )

    def restore(self, values: Any) -> StaticState:
        """Returns the state whose JSON was read back as `values`.

        Raises:
            ValueError: If it is not the state of such a schedule.
        """
        try:
            *tables, clock = values
            positions, updates, batch_sizes, rates = map(tuple, tables)
            return StaticState(positions, updates, batch_sizes, rates, Clock(*clock))
        except (TypeError, ValueError) as error:
            raise ValueError(not_a_state(self.name, values)) from error


def not_a_state(name: str, values: Any) -> str:
    """Returns what an error says of values that no state was."""
    return (
        f"state of schedule {name!r} must be what was read back of its JSON, got "
        f"{shown(values)}"
    )


def merge_position_steps(
    size_starts: tuple[int, ...],
    sizes: tuple[int, ...],
    rate_starts: tuple[int, ...],
    rates: tuple[float, ...],
    warmup: float = 0.0,
) -> Steps:
    """Returns the steps of sizes and rates that each start at positions of their own.

    Both lists of starts begin at 0. Starts where nothing changes give no step.
    """
    positions: list[int] = []
    settings: list[tuple[int, float]] = []
    for start in sorted({*size_starts, *rate_starts}):
        setting = (
            sizes[bisect_right(size_starts, start) - 1],
            rates[bisect_right(rate_starts, start) - 1],
        )
        if not settings or setting != settings[-1]:
            positions.append(start)
            settings.append(setting)
    return Steps(
        positions=tuple(positions[1:]),
        updates=(),
        batch_sizes=tuple(size for size, _ in settings),
        rates=tuple(rate for _, rate in settings),
        warmup=warmup,
    )


def _refuse_sizes_above(horizon: Horizon, steps: Steps) -> None:
    num_samples = horizon.num_samples
    starts = (0, *steps.positions)
    for start, size in zip(starts, steps.batch_sizes, strict=False):
        if size <= num_samples or start >= horizon.budget:
            continue
        rule = f"at most {num_samples} (the number of samples)"
        if size == steps.batch_sizes[0]:
            raise ValueError(f"batch_size must be {rule}, got {size}")
        raise ValueError(
            f"max_batch_size must be {rule}, got a batch size of {size} "
            f"at position {start}"
        )
