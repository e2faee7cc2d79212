"""Durations and milestones, exact: no position depends on a binary float."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from batchramp.names import suggest
from batchramp.schedules.interface import Horizon, Mark
from batchramp.schedules.parameters import MAX_WHOLE, exact_decimal
from batchramp.values import shown

_UNITS = ("epochs", "samples", "updates")

MAX_MILESTONES = 1000
"""The most milestones: fractions that are kept exact grow with each of them."""


@dataclass(frozen=True)
class Duration:
    """A length of training.

    Attributes:
        amount: How many of the unit, exactly.
        unit: `budget` (a fraction of it), `epochs`, `samples` or `updates`.
    """

    amount: Fraction
    unit: str

    def length(self, horizon: Horizon) -> Fraction:
        """Returns the exact length: in updates if so counted, else in samples."""
        scale = {"budget": horizon.budget, "epochs": horizon.num_samples}
        return self.amount * scale.get(self.unit, 1)

    def mark(self, horizon: Horizon) -> Mark:
        """Returns the first position, or update, at or past the exact length."""
        first = math.ceil(self.length(horizon))
        if self.unit == "updates":
            return Mark(update=first)
        return Mark(position=first)


def parse_duration(name: str, value: Any, *, zero: bool = False) -> Duration:
    """Reads `"30 epochs"`, `"1000 samples"`, `"500 updates"`, or a bare fraction.

    Args:
        name: The parameter, for errors.
        value: What was given. A bare number is a fraction of the budget.
        zero: Whether a duration of nothing is allowed.

    Raises:
        ValueError: If the number or unit is unknown, negative, zero where that is not
            allowed, or a bare number lies above 1.
    """
    words = value.split() if isinstance(value, str) else []
    if len(words) == 2:
        unit = words[1] if words[1].endswith("s") else words[1] + "s"
        if unit not in _UNITS:
            unknown = suggest("unit", words[1], _UNITS)
            raise ValueError(
                f"{name} must be in epochs, samples or updates, got {shown(value)}: "
                f"{unknown}"
            )
        duration = Duration(exact_decimal(name, words[0]), unit)
    else:
        duration = Duration(exact_decimal(name, value), "budget")
        if duration.amount > 1:
            raise ValueError(
                f"{name} must be a fraction of the budget, at most 1, or have a unit "
                f'such as "30 epochs", got {shown(value)}'
            )
    if duration.amount > MAX_WHOLE:
        raise ValueError(f"{name} must be at most 2**63, got {shown(value)}")
    if duration.amount < 0 or (duration.amount == 0 and not zero):
        rule = "at least 0" if zero else "above 0"
        raise ValueError(f"{name} must be {rule}, got {shown(value)}")
    return duration


def parse_position_duration(name: str, value: Any) -> Duration:
    """Reads a duration that follows position, as `parse_duration` does.

    Raises:
        ValueError: As `parse_duration`, or if the duration is counted in updates.
    """
    duration = parse_duration(name, value)
    if duration.unit == "updates":
        raise ValueError(
            f"{name} must be a fraction of the budget or in epochs or samples "
            f"(its steps follow position), got {shown(value)}"
        )
    return duration


def parse_milestones(values: Any) -> tuple[Duration, ...]:
    """Reads a list of milestones.

    Raises:
        ValueError: If `values` is no list, or a milestone is no duration, or there are
            more than `MAX_MILESTONES`.
    """
    if not isinstance(values, list | tuple):
        raise ValueError(
            'milestones must be a list such as [0.3, "120 epochs", "500 updates"], '
            f"got {shown(values)}"
        )
    if len(values) > MAX_MILESTONES:
        raise ValueError(
            f"milestones must be at most {MAX_MILESTONES}, got {len(values)}"
        )
    return tuple(parse_duration("milestones", value) for value in values)


def milestone_marks(
    milestones: tuple[Duration, ...], horizon: Horizon
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the milestones' positions and, apart, those counted in updates.

    Raises:
        ValueError: If milestones of one clock do not increase.
    """
    positions: list[int] = []
    updates: list[int] = []
    for in_updates, marks in ((False, positions), (True, updates)):
        last = Fraction(0)
        for milestone in milestones:
            if (milestone.unit == "updates") is not in_updates:
                continue
            length = milestone.length(horizon)
            if length <= last:
                clock = "updates" if in_updates else "samples"
                raise ValueError(
                    f"milestones must increase, got {float(length):g} {clock} after "
                    f"{float(last):g}"
                )
            last = length
            marks.append(math.ceil(length))
    return tuple(positions), tuple(updates)


def plain_duration(value: Any) -> Any:
    """Returns a duration as it was given, as a JSON value."""
    return value if isinstance(value, str) else float(value)
