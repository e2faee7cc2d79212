"""What the gate makes of one row's values: an estimate, its interval and a one-sided p.

Values are costs, smaller is better, paired by seed, with `inf` for a miss. The p is that
of the new run being worse by no more than the margin; `within` says that the upper end
of the interval is not beyond it either. Both err at most at `GATE_LEVEL`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from batchramp.benchmark.statistics import (
    LEVEL,
    median,
    t_quantile,
    t_upper_tail,
    welch_error,
)
from batchramp.benchmark.swaps import swap_bounds, swap_test

GATE_LEVEL = 0.025
"""Chance, over all rows looked at, of calling any worse that is within the margin."""

MIN_PAIRS = 3
"""Below so many pairs no t interval is given: two agree too easily, looks being coarse."""

MIN_RUNS = 3
"""Runs a side from which the run can be the unit."""

_POWER = 0.8
_ROUNDING = 1e-12

Method = Literal["pairs", "swaps", "runs"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One row, judged by itself."""

    method: Method
    """`pairs`: paired t, of logarithms or of differences; `swaps`: swap test, where one
    of a pair missed; `runs`: Welch's t of the runs' mean logarithms."""
    base: float | None
    """Centre of the base side: geometric mean, mean (of a metric) or median (swaps)."""
    new: float | None
    """Centre of the new side, likewise."""
    estimate: float | None
    """New over base; of a metric new less base; None where undefined."""
    low: float | None
    """Bounds of the estimate at 95%; None where there is no interval, or, of a metric,
    where one missed."""
    high: float | None
    p: float
    """One-sided p-value of being worse by at most the margin; 1 if it cannot be told."""
    within: bool
    """Whether being worse by more than the margin is ruled out."""
    pairs: int
    """Pairs, or seeds, that the centres are of: a metric's leave out those below."""
    better: bool = False
    """Whether the whole interval is better than the base by more than the margin."""
    base_only: int = 0
    """Further pairs of a metric that have one in the base only: tested as worst."""
    new_only: int = 0
    """Further pairs that have one in the new side only: tested as best."""
    error: float | None = None
    """Standard error of a t interval, in its own scale."""
    degrees: float = math.inf
    """Its degrees of freedom."""
    allowed: float = 0.0
    """Where the margin lies, in that scale."""
    is_ratio: bool = True
    """Whether that scale is of log ratios, or of differences."""

    @property
    def tested(self) -> int:
        """Pairs, or seeds, that the p is of."""
        return self.pairs + self.base_only + self.new_only

    def detectable(self, family: int) -> float | None:
        """What would be found worse with 80% power by the first step of Holm.

        Args:
            family: Rows that are corrected over.

        Returns:
            A ratio, or for a metric's difference its size; None without a t interval.
        """
        if not self.error:
            return None
        from scipy.special import nctdtrinc

        critical = t_quantile(1 - GATE_LEVEL / family, self.degrees)
        shift = float(nctdtrinc(self.degrees, 1 - _POWER, critical)) * self.error
        found = self.allowed + shift
        return math.exp(found) if self.is_ratio else found


def ratio_finding(
    base: Sequence[float], new: Sequence[float], margin: float
) -> Finding:
    """Judge the ratio of new to base, by seed.

    Args:
        base: One number per pair, at least 0, `inf` for a miss.
        new: Likewise, in the same order.
        margin: Ratio less 1 that passes.

    Returns:
        By the paired t of log ratios; by the swap test where one of a pair missed or is
        0. A pair that missed twice says nothing of a ratio, and is left out.
    """
    both = [pair for pair in zip(base, new, strict=True) if min(pair) < math.inf]
    base, new = [pair[0] for pair in both], [pair[1] for pair in both]
    if not all(0 < value < math.inf for value in (*base, *new)):
        return _swapped(base, new, margin)
    before, after = np.log(np.asarray(base)), np.log(np.asarray(new))
    found = _paired(after - before, math.log1p(margin))
    return _in_ratios(found, "pairs", before, after, len(both))


def runs_finding(
    base: Sequence[Sequence[float]], new: Sequence[Sequence[float]], margin: float
) -> Finding:
    """Judge the ratio of new to base with the run as the unit.

    Args:
        base: Per run of the base, finite numbers above 0, by seed; the same seeds in
            each run. At least `MIN_RUNS` runs.
        new: Likewise.
        margin: Ratio less 1 that passes.
    """
    before, after = (
        np.asarray([np.log(np.asarray(run)).mean() for run in side])
        for side in (base, new)
    )
    spread = welch_error(after, before)
    assert spread is not None, "fewer than two runs a side"
    shift = float(after.mean() - before.mean())
    found = _TTest.of(shift, *spread, math.log1p(margin))
    return _in_ratios(found, "runs", before, after, len(base[0]))


def metric_finding(
    base: Sequence[float],
    new: Sequence[float],
    margin: float,
    *,
    higher_is_better: bool,
) -> Finding:
    """Judge the difference of a metric, by seed; the margin is a share of the base's.

    Args:
        base: One number per pair, `inf` for a trial that has none.
        new: Likewise, in the same order.
        margin: Loss that passes, as a share of the base's absolute value.
        higher_is_better: Which way is a loss.

    Returns:
        By the paired t; by the swap test where one of a pair has none. Its centres are
        of the pairs that have both, so that no side looks better for its survivors.
    """
    sign = -1.0 if higher_is_better else 1.0
    before, after = np.asarray(base), np.asarray(new)
    both = np.isfinite(before) | np.isfinite(after)
    before, after = before[both], after[both]
    if np.isfinite(before).all() and np.isfinite(after).all():
        loss = sign * (after - before) - margin * np.abs(before)
        found = _paired(loss, 0.0)
        shown = _paired(after - before, 0.0)
        gain = _paired(sign * (before - after) - margin * np.abs(before), 0.0)
        return Finding(
            method="pairs",
            base=_mean(before),
            new=_mean(after),
            estimate=_mean(after - before),
            low=shown.low,
            high=shown.high,
            p=found.p,
            within=found.within,
            better=gain.low is not None and gain.low > _ROUNDING,
            pairs=before.size,
            error=found.error,
            degrees=found.degrees,
            allowed=margin * (_mean(np.abs(before)) or 0.0),
            is_ratio=False,
        )
    in_base, in_new = np.isfinite(before), np.isfinite(after)
    shared = in_base & in_new
    costs = [sign * value if math.isfinite(value) else math.inf for value in after]
    bar = [
        sign * value + margin * abs(value) if math.isfinite(value) else math.inf
        for value in before
    ]
    ours, theirs = _rounded(costs), _rounded(bar)
    return Finding(
        method="swaps",
        base=_mean(before[shared]),
        new=_mean(after[shared]),
        estimate=None,
        low=None,
        high=None,
        p=swap_test(ours, theirs, "greater"),
        within=swap_test(ours, theirs, "less") <= GATE_LEVEL,
        pairs=int(shared.sum()),
        base_only=int((in_base & ~in_new).sum()),
        new_only=int((in_new & ~in_base).sum()),
        is_ratio=False,
    )


def pairs_to_decide(family: int) -> int:
    """The least number of pairs from which the swap test can find one of `family` rows.

    Its smallest one-sided p is 1 / 2^n.
    """
    return math.floor(math.log2(family / GATE_LEVEL)) + 1


@dataclass(frozen=True, slots=True)
class _TTest:
    p: float
    low: float | None
    high: float | None
    within: bool
    error: float | None
    degrees: float
    allowed: float

    @staticmethod
    def of(shift: float, error: float, degrees: float, allowed: float) -> _TTest:
        """Of a mean with its error; values that do not vary leave no doubt."""
        excess = shift - allowed
        if abs(excess) < _ROUNDING:
            excess = 0.0
        if error < _ROUNDING:
            error, half, p = 0.0, 0.0, 0.0 if excess > 0 else 1.0
        else:
            half = t_quantile((1 + LEVEL) / 2, degrees) * error
            p = t_upper_tail(excess / error, degrees)
        within = excess + half <= 0
        return _TTest(p, shift - half, shift + half, within, error, degrees, allowed)


def _paired(differences: NDArray[np.float64], allowed: float) -> _TTest:
    n = differences.size
    if n < MIN_PAIRS:
        return _TTest(1.0, None, None, False, None, math.inf, allowed)
    error = float(differences.std(ddof=1)) / math.sqrt(n)
    return _TTest.of(float(differences.mean()), error, n - 1, allowed)


def _in_ratios(
    found: _TTest,
    method: Method,
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    pairs: int,
) -> Finding:
    base, new = _mean(before), _mean(after)
    return Finding(
        method=method,
        base=_exp(base),
        new=_exp(new),
        estimate=None if base is None or new is None else _exp(new - base),
        low=_exp(found.low),
        high=_exp(found.high),
        p=found.p,
        within=found.within,
        better=found.high is not None and found.high < -found.allowed - _ROUNDING,
        pairs=pairs,
        error=found.error,
        degrees=found.degrees,
        allowed=found.allowed,
    )


def _swapped(base: Sequence[float], new: Sequence[float], margin: float) -> Finding:
    before, after = median(base), median(new)
    assert before is not None, "no pair"
    assert after is not None, "no pair"
    low, high = swap_bounds(new, base)
    p = swap_test(_rounded(new), _rounded(np.asarray(base) * (1 + margin)), "greater")
    undefined = before == after and (before == 0 or math.isinf(before))
    unbounded = (low, high) == (0.0, math.inf)
    estimate = None if undefined else math.inf if before == 0 else after / before
    return Finding(
        method="swaps",
        base=before,
        new=after,
        estimate=estimate,
        low=None if unbounded else low,
        high=None if unbounded else high,
        p=p,
        within=high <= (1 + margin) * (1 + _ROUNDING),
        better=high < (1 - _ROUNDING) / (1 + margin),
        pairs=len(base),
    )


def _rounded(values: Sequence[float] | NDArray[np.float64]) -> list[float]:
    """To 12 digits: a value at the margin ties with it, whatever the last bit says."""
    return [float(f"{value:.12g}") for value in values]


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if values.size else None


def _exp(value: float | None) -> float | None:
    return None if value is None else math.exp(value)
