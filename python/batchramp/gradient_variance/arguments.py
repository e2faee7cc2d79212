"""What the constructors here check alike."""

from typing import Any

import numpy as np


def whole(name: str, value: Any, least: int = 1) -> int:
    """Returns a whole number, NumPy's too, as an int.

    Raises:
        ValueError: If it is anything else, or below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)
