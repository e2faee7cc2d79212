"""The interval of a ratio of two noisy averages that cannot be negative."""

import math
from typing import NamedTuple


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
    top, bottom = max(numerator, 0.0), max(denominator, 0.0)
    critical = float(stdtrit(freedom, (1 + level) / 2)) ** 2
    # Not rejected where square * r^2 - 2 * half * r + constant <= 0.
    square = bottom**2 - critical * covariance.denominator
    half = top * bottom - critical * covariance.both
    constant = top**2 - critical * covariance.numerator
    root = math.sqrt(max(half**2 - square * constant, 0.0))
    if square > 0:  # between the roots, of which top / bottom is one at zero noise
        return max((half - root) / square, 0.0), max((half + root) / square, 0.0)
    if constant <= 0:
        return 0.0, math.inf
    # Beyond the positive root, written so that nothing cancels or is divided by zero.
    return (constant / (half + root) if half + root > 0 else math.inf), math.inf
