"""The interval of a ratio of two noisy averages that cannot be negative."""

import math
from typing import NamedTuple

# Beyond it a t test rejects no ratio that is worth telling.
_LARGEST_DEVIATION = 1e60

# Python raises where a power of something larger is no double.
_LARGEST_ROOT = 1e150

_HARMLESS_EXPONENT = 100

# Such a power of two and its inverse are doubles.
_LARGEST_EXPONENT = 1000


class Covariance(NamedTuple):
    """How two estimates vary, and together."""

    numerator: float
    both: float
    denominator: float


def ratio_interval(
    numerator: float,
    denominator: float,
    covariance: Covariance,
    freedom: float,
    level: float,
) -> tuple[float, float]:
    """Returns an interval of E[numerator] / E[denominator], neither of them negative.

    The ratios r that a t test of E[numerator - r * denominator] = 0 does not reject
    (Fieller, "Some problems in interval estimation", 1954), and all between them. Estimates
    below 0 count as 0, the least that they can stand for, which only widens it.
    A denominator that may be 0 makes the upper end infinite, which an interval by the
    delta method would hide.

    Args:
        numerator: Its unbiased estimate.
        denominator: Its unbiased estimate.
        covariance: Of the two estimates (not of single observations).
        freedom: Degrees of freedom of `covariance`.
        level: Such as 0.95.
    """
    # Here, for it takes longer to import than all of this package.
    from scipy.special import stdtrit

    if not all(map(math.isfinite, (numerator, denominator, *covariance))):
        return math.nan, math.nan
    # By powers of two, which change no digit: the squares of what is large are finite.
    above = _exponent(numerator, covariance.numerator)
    below = _exponent(denominator, covariance.denominator)
    one_above, one_below = 2.0**-above, 2.0**-below
    top, bottom = max(numerator * one_above, 0.0), max(denominator * one_below, 0.0)
    deviation = float(stdtrit(freedom, (1 + level) / 2))
    if not deviation < _LARGEST_DEVIATION:
        return 0.0, math.inf
    critical = deviation**2
    # Not rejected where square * r^2 - 2 * half * r + constant <= 0.
    square = bottom**2 - critical * (covariance.denominator * one_below * one_below)
    half = top * bottom - critical * (covariance.both * one_above * one_below)
    constant = top**2 - critical * (covariance.numerator * one_above * one_above)
    # Covariances that cannot be, as of a state that was changed, may be of any size.
    halves = half**2 if abs(half) < _LARGEST_ROOT else half * half
    root = math.sqrt(max(halves - square * constant, 0.0))
    if square > 0:  # between the roots, of which top / bottom is one at zero noise
        least, most = max((half - root) / square, 0.0), max((half + root) / square, 0.0)
    elif constant <= 0:
        least, most = 0.0, math.inf
    else:  # beyond the positive root, so that nothing cancels or is divided by zero
        least = constant / (half + root) if half + root > 0 else math.inf
        most = math.inf
    return _times_power(least, above - below), _times_power(most, above - below)


def _exponent(estimate: float, variance: float) -> int:
    """Of a power of two near the larger of an estimate and its standard deviation.

    It is 0 where the fourth power of neither leaves the doubles.
    """
    _, exponent = math.frexp(max(abs(estimate), math.sqrt(max(variance, 0.0))))
    if abs(exponent) < _HARMLESS_EXPONENT:
        return 0
    return max(min(exponent, _LARGEST_EXPONENT), -_LARGEST_EXPONENT)


def _times_power(ratio: float, exponent: int) -> float:
    try:
        return math.ldexp(ratio, exponent)
    except OverflowError:
        return math.inf
