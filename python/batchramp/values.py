"""Values that callers give: whole numbers, and how an error shows what it refuses."""

from __future__ import annotations

import math
import operator
import reprlib
from typing import Any

LONGEST = 160
"""The most characters that an error repeats of one value."""

_DIGITS = 40


class _Short(reprlib.Repr):
    """`repr`, cut off where it is long or deep, and never an error of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxstring = self.maxother = 100
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = 8

    def repr_int(self, value: int, _level: int) -> str:
        # Python writes none of more than 4,300 digits.
        digits = int(value.bit_length() * math.log10(2)) + 1
        if digits <= _DIGITS:
            return repr(value)
        return f"{'-' if value < 0 else ''}a whole number of some {digits} digits"

    def repr_instance(self, value: Any, level: int) -> str:
        return " ".join(super().repr_instance(value, level).split())


def shown(value: object) -> str:
    """Return a value as an error shows it: its `repr` on one line, cut off if long."""
    try:
        text = _Short().repr(value)
    except Exception:  # a user's object may do anything when it is looked at
        text = f"<{type(value).__name__}>"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def whole(
    name: str, value: Any, least: int | None = None, most: int | None = None
) -> int:
    """Return a whole number, NumPy's and torch's too, as an int.

    Args:
        name: The argument, for errors.
        value: What was given.
        least: The least that it may be.
        most: The most.

    Raises:
        ValueError: It is a float, a bool or anything else, or out of its range.
    """
    # NumPy's and torch's truth values are no numbers either, though torch's has an index.
    truth = isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool")
    try:
        number = None if truth else operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        number = None
    if number is None:
        raise ValueError(f"{name} must be a whole number, got {shown(value)}")
    if least is not None and number < least:
        raise ValueError(f"{name} must be at least {least}, got {shown(number)}")
    if most is not None and number > most:
        raise ValueError(f"{name} must be at most {most}, got {shown(number)}")
    return number
