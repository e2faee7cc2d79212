"""What a parameter may be: each check returns the value in its one plain form."""

import math
import re
from decimal import Decimal
from fractions import Fraction
from numbers import Real
from typing import Any

from batchramp.names import suggest

# Exponents of three digits hold every float and keep a typing error from asking for
# an integer of a billion digits.
_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?")


def choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """Returns `value` if it is one of `choices`, and raises ValueError otherwise."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(suggest(name, str(value), choices))
    return value


def whole_number(name: str, value: Any, minimum: int = 1) -> int:
    """Returns `value` as an int, or raises ValueError if not whole or too small."""
    if not _is_real(value) or value % 1 != 0 or value < minimum:
        raise ValueError(
            f"{name} must be a whole number of at least {minimum}, got {value!r}"
        )
    return int(value)


def real_number(name: str, value: Any, rule: str) -> float:
    """Returns `value` as a finite float; `rule` is what an error says of it."""
    try:
        number = float(value) if _is_real(value) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} must be {rule}, got {value!r}")
    return number


def positive_number(name: str, value: Any) -> float:
    """Returns `value` as a finite float above zero, such as a learning rate."""
    rule = "a finite number above 0"
    number = real_number(name, value, rule)
    if number <= 0:
        raise ValueError(f"{name} must be {rule}, got {value!r}")
    return number


def number_above_one(name: str, value: Any) -> float:
    """Returns `value` as a finite float above one, such as a growth or a factor."""
    rule = "a finite number above 1"
    number = real_number(name, value, rule)
    if number <= 1:
        raise ValueError(f"{name} must be {rule}, got {value!r}")
    return number


def momentum_coefficient(value: Any) -> float:
    """Returns `value` as a momentum in [0, 1), or raises ValueError."""
    rule = "at least 0 and below 1"
    number = real_number("momentum", value, rule)
    if not 0 <= number < 1:
        raise ValueError(f"momentum must be {rule}, got {value!r}")
    return number


def maximum_batch_size(value: Any, batch_size: int) -> int:
    """Returns `value` as the size at which growth ends, at least `batch_size`."""
    maximum = whole_number("max_batch_size", value)
    if maximum < batch_size:
        raise ValueError(
            f"max_batch_size must be at least {batch_size} (batch_size), got {value!r}"
        )
    return maximum


def maximum_rate(value: Any, lr: float) -> float:
    """Returns `value` as the rate at which growth ends, at least `lr`."""
    maximum = positive_number("max_lr", value)
    if maximum < lr:
        raise ValueError(f"max_lr must be at least {lr} (lr), got {value!r}")
    return maximum


def exact_decimal(name: str, value: Any) -> Fraction:
    """Returns the exact value of a decimal as it is written.

    A float is read by its shortest decimal form, so 0.1 is one tenth and not the
    binary number beside it.

    Raises:
        ValueError: If `value` is no finite decimal number.
    """
    if isinstance(value, Fraction):
        return value
    if not isinstance(value, bool) and isinstance(value, Real | Decimal | str):
        text = str(value).strip()
        if _DECIMAL.fullmatch(text):
            return Fraction(text)
    raise ValueError(f"{name} must be a finite decimal number, got {value!r}")


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
