"""What a parameter may be: each check returns the value in its one plain form."""

import math
import re
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from numbers import Real
from typing import Any

from batchramp.names import suggest
from batchramp.values import shown

MAX_WHOLE = 2**63
"""The largest whole number: the stream of samples has no further position."""

LONGEST_DECIMAL = 100
"""The most characters of a decimal: more than any number that was ever measured."""

# Exponents of three digits hold every float and keep a typing error from asking for
# an integer of a billion digits.
_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?")

# What the longest such decimal comes to as a fraction.
_MAX_BITS = 4096


def choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """Returns `value` if it is one of `choices`, and raises ValueError otherwise."""
    if not isinstance(value, str):
        raise ValueError(
            f"{name} must be one of {', '.join(choices)}, got {shown(value)}"
        )
    if value not in choices:
        raise ValueError(suggest(name, value, choices))
    return value


def whole_number(name: str, value: Any, minimum: int = 1) -> int:
    """Returns `value` as an int, or raises ValueError if not whole or out of range."""
    number = None
    if _is_real(value):
        with suppress(ValueError, OverflowError):  # of NaN and of infinities
            number = int(value)
    if number is None or number != value or number < minimum:
        raise ValueError(
            f"{name} must be a whole number of at least {minimum}, got {shown(value)}"
        )
    if number > MAX_WHOLE:
        raise ValueError(f"{name} must be at most 2**63, got {shown(value)}")
    return number


def real_number(name: str, value: Any, rule: str) -> float:
    """Returns `value` as a finite float; `rule` is what an error says of it."""
    try:
        number = float(value) if _is_real(value) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} must be {rule}, got {shown(value)}")
    return number


def positive_number(name: str, value: Any) -> float:
    """Returns `value` as a finite float above zero, such as a learning rate."""
    rule = "a finite number above 0"
    number = real_number(name, value, rule)
    if number <= 0:
        raise ValueError(f"{name} must be {rule}, got {shown(value)}")
    return number


def number_above_one(name: str, value: Any) -> float:
    """Returns `value` as a finite float above one, such as a growth or a factor."""
    rule = "a finite number above 1"
    number = real_number(name, value, rule)
    if number <= 1:
        raise ValueError(f"{name} must be {rule}, got {shown(value)}")
    return number


def momentum_coefficient(value: Any) -> float:
    """Returns `value` as a momentum in [0, 1), or raises ValueError."""
    rule = "at least 0 and below 1"
    number = real_number("momentum", value, rule)
    if not 0 <= number < 1:
        raise ValueError(f"momentum must be {rule}, got {shown(value)}")
    return number


def maximum_batch_size(value: Any, batch_size: int) -> int:
    """Returns `value` as the size at which growth ends, at least `batch_size`."""
    maximum = whole_number("max_batch_size", value)
    if maximum < batch_size:
        raise ValueError(
            f"max_batch_size must be at least {batch_size} (batch_size), "
            f"got {shown(value)}"
        )
    return maximum


def maximum_rate(value: Any, lr: float) -> float:
    """Returns `value` as the rate at which growth ends, at least `lr`."""
    maximum = positive_number("max_lr", value)
    if maximum < lr:
        raise ValueError(f"max_lr must be at least {lr} (lr), got {shown(value)}")
    return maximum


def exact_decimal(name: str, value: Any) -> Fraction:
    """Returns the exact value of a decimal as it is written.

    A float is read by its shortest decimal form, so 0.1 is one tenth and not the
    binary number beside it.

    Raises:
        ValueError: If `value` is no finite decimal number, or has more digits than
            `LONGEST_DECIMAL`.
    """
    if isinstance(value, Fraction):
        if max(map(int.bit_length, value.as_integer_ratio())) <= _MAX_BITS:
            return value
        raise ValueError(_too_long(name, value))
    if not isinstance(value, bool) and isinstance(value, Real | Decimal | str):
        try:
            text = str(value).strip()
        except ValueError as error:  # an integer of more digits than Python writes
            raise ValueError(_too_long(name, value)) from error
        if _DECIMAL.fullmatch(text):
            if len(text) > LONGEST_DECIMAL:
                raise ValueError(_too_long(name, value))
            return Fraction(text)
    raise ValueError(f"{name} must be a finite decimal number, got {shown(value)}")


def _too_long(name: str, value: Any) -> str:
    return f"{name} must have at most {LONGEST_DECIMAL} digits, got {shown(value)}"


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
