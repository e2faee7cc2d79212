"""Exponential averages of two noisy estimates, and how they vary."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Averages:
    """Averages weighted by decay^age, debiased, and the sums of weighted deviations.

    Attributes:
        count: Pairs of estimates behind them.
        trace: Average of the first estimates, of tr(Sigma).
        squared_norm: Average of the second, of |G|^2.
        trace_squares: Weighted sum of the squared deviations of the first.
        products: Of the products of both deviations.
        norm_squares: Of the squared deviations of the second.
    """

    count: int = 0
    trace: float = 0.0
    squared_norm: float = 0.0
    trace_squares: float = 0.0
    products: float = 0.0
    norm_squares: float = 0.0

    def with_observed(
        self, trace: float, squared_norm: float, decay: float
    ) -> Averages:
        """Returns what one more pair makes of them.

        Welford's update with weights (West, CACM 22, 1979).
        """
        share = 1 / total_weight(self.count + 1, decay)
        trace_before = trace - self.trace
        norm_before = squared_norm - self.squared_norm
        trace_mean = self.trace + share * trace_before
        norm_mean = self.squared_norm + share * norm_before
        norm_after = squared_norm - norm_mean
        return Averages(
            self.count + 1,
            trace_mean,
            norm_mean,
            decay * self.trace_squares + trace_before * (trace - trace_mean),
            decay * self.products + trace_before * norm_after,
            decay * self.norm_squares + norm_before * norm_after,
        )

    def finite(self) -> bool:
        """Returns whether both averages are, whatever their deviations."""
        return math.isfinite(self.trace) and math.isfinite(self.squared_norm)


def total_weight(count: int, decay: float) -> float:
    """Returns 1 + decay + ... + decay^(count - 1)."""
    return (1 - decay**count) / (1 - decay)


def effective_count(count: int, decay: float) -> float:
    """Returns the squared sum of the weights over the sum of their squares."""
    if not count:
        return 0.0
    return (1 + decay) * (1 - decay**count) / ((1 - decay) * (1 + decay**count))
