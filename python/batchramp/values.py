"""Values that callers give: how an error shows them, and checks that all rooms share."""

from __future__ import annotations

import math
import operator
import reprlib
import unicodedata
from typing import Any

LONGEST = 160
"""The most characters that an error repeats of one value."""

LONGEST_TEXT = 200
"""The most characters of a name, label or title, which has a place in a table."""

_BITS = 128

# Bidirectional embeddings, overrides and isolates, and the separators that end a line.
_TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029"


class _Short(reprlib.Repr):
    """`repr`, cut off where it is long or deep, and never an error of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxstring = self.maxother = 100
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = 8

    def repr_int(self, value: int, _level: int) -> str:
        if value.bit_length() <= _BITS:
            return repr(value)
        # Not by its text, of which Python writes none of more than 4,300 digits.
        digits = int(value.bit_length() * math.log10(2)) + 1
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


def plain_text(name: str, value: Any, most: int = LONGEST_TEXT) -> str:
    """Return a text that can be shown wherever one is: on a terminal, in a table.

    Args:
        name: The argument, for errors.
        value: What was given.
        most: The most characters.

    Raises:
        ValueError: It is no string, is longer, or has a character that moves the
            cursor, rings, or turns the direction of writing.
    """
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a string, got {shown(value)}")
    if len(value) > most:
        raise ValueError(
            f"{name} must have at most {most} characters, got {len(value)}"
        )
    for character in value:
        if unicodedata.category(character) in ("Cc", "Cs") or character in _TURNING:
            raise ValueError(
                f"{name} must have no control characters, got U+{ord(character):04X} "
                f"in {shown(value)}"
            )
    return value


def number(name: str, value: Any) -> float:
    """Return a number of any kind as a float, NaN and infinities too.

    Args:
        name: The argument, for errors.
        value: What was given.

    Raises:
        ValueError: It is no number, or larger than a float can be.
    """
    if not isinstance(value, bool | str | bytes):
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            pass
    raise ValueError(f"{name} must be a number, got {shown(value)}")


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
