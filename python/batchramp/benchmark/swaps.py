"""The swap test: two samples paired by seed, exact, with ties and misses.

Its null is that whatever changed changes nothing on any seed, so that the two values of
a seed could as well stand in each other's place. It holds its level whatever the seeds
have in common and whatever the values are distributed like.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from batchramp.benchmark.statistics import LEVEL, doubled_midranks

Alternative = Literal["two-sided", "greater", "less"]

EXACT_PAIRS = 16
"""Up to so many pairs every swap is counted; above, they are drawn."""

_DRAWS = 99_999
_SEED = 20_261_125
_NUDGE = 1e-9  # to either side of a ratio at which two values would tie


def swap_test(
    values: Sequence[float],
    others: Sequence[float],
    alternative: Alternative = "two-sided",
) -> float:
    """P-value of the rank sum under all swaps of the two values of a pair.

    Args:
        values: One number per pair, `inf` for a miss: misses tie, behind all else.
        others: The other number of each pair, in the same order.
        alternative: `greater`: `values` lie above `others`; `less`: below.

    Returns:
        The share of the 2^n swaps whose sum of pooled midranks is at least as far in
        the direction asked as the one observed. Above `EXACT_PAIRS` pairs it is
        estimated from draws by a generator of its own, the sample itself counted as
        one, so that the same samples always give the same p.

    Raises:
        ValueError: The lengths differ, there is no pair, or a value is NaN.
    """
    n = len(values)
    if n != len(others) or n == 0:
        raise ValueError(
            "a swap test needs a pair, and as many values as others, got "
            f"{n} and {len(others)}"
        )
    ranks = doubled_midranks([*values, *others])
    differences = ranks[:n] - ranks[n:]
    observed = int(differences.sum())
    if alternative == "less":
        observed, differences = -observed, -differences
    sums, counted = _swapped_sums(differences)
    if alternative == "two-sided":
        sums, observed = np.abs(sums), abs(observed)
    return (int((sums >= observed).sum()) + counted) / (sums.size + counted)


def swap_bounds(
    values: Sequence[float], others: Sequence[float], level: float = LEVEL
) -> tuple[float, float]:
    """The ratios of `values` to `others` that the swap test does not reject.

    Args:
        values: One number per pair, at least 0, `inf` for a miss.
        others: Likewise, in the same order.
        level: Probability that the interval covers a common ratio of all pairs.

    Returns:
        Lower and upper bound: 0 and `inf` where no ratio is rejected on that side, as
        with fewer pairs than can reject anything; `inf` twice, or 0 twice, where every
        ratio is, as where all of one side missed.
    """
    rejected = (1 - level) / 2 * (1 + 1e-12)
    # Between two of these ratios no rank changes, and from one to the next each p moves
    # one way.
    edges = {
        value / other
        for value in values
        for other in others
        if 0 < value < math.inf and 0 < other < math.inf
    }
    ratios = sorted(edges or {1.0})

    def refutes(ratio: float, alternative: Alternative) -> bool:
        scaled = [other * ratio for other in others]
        return swap_test(values, scaled, alternative) <= rejected

    if refutes(ratios[-1] * (1 + _NUDGE), "greater"):
        return math.inf, math.inf
    if refutes(ratios[0] * (1 - _NUDGE), "less"):
        return 0.0, 0.0
    above = _first(ratios, lambda ratio: refutes(ratio * (1 + _NUDGE), "less"))
    ratios.reverse()
    below = _first(ratios, lambda ratio: refutes(ratio * (1 - _NUDGE), "greater"))
    return (0.0 if below is None else below, math.inf if above is None else above)


def _first(ordered: list[float], holds: Callable[[float], bool]) -> float | None:
    """The first of `ordered` from which on `holds` is true."""
    low, high = 0, len(ordered)
    while low < high:
        middle = (low + high) // 2
        if holds(ordered[middle]):
            high = middle
        else:
            low = middle + 1
    return ordered[low] if low < len(ordered) else None


def _swapped_sums(differences: NDArray[np.int64]) -> tuple[NDArray[np.float64], int]:
    """Sums of the pairs' rank differences under swaps; 1 where the sample joins them."""
    if differences.size > EXACT_PAIRS:
        return _signs(differences.size) @ differences, 1
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate([sums + difference, sums - difference])
    return sums, 0


@lru_cache(maxsize=1)
def _signs(pairs: int) -> NDArray[np.float64]:
    drawn = np.random.default_rng(_SEED).integers(0, 2, (_DRAWS, pairs))
    return (2 * drawn - 1).astype(np.float64)
