"""Batch sizes that grow by equal intervals of position, in exact fractions."""

import math
from fractions import Fraction
from functools import lru_cache

from batchramp.schedules.durations import Duration
from batchramp.schedules.interface import Horizon
from batchramp.values import shown

FORMS = ("geometric", "affine")
"""Forms that the parameter `form` may name."""

MAX_INTERVALS = 10_000
"""The most intervals, which bounds the length of tables."""

MAX_BITS = 2**18
"""The most bits of an exact power of a growth: seconds for a table of such powers."""


def interval_starts(
    interval: Duration, horizon: Horizon
) -> tuple[Fraction, tuple[int, ...]]:
    """Returns the interval's exact length in samples, and where each one starts.

    The k-th of K = ceil(budget / interval) starts at the first position at or past
    k * interval, so that k = floor(position / interval).

    Raises:
        ValueError: If the interval is shorter than a sample or there are too many.
    """
    length = interval.length(horizon)
    if length < 1:
        raise ValueError(
            f"interval must be at least one sample, got {float(length):g} samples"
        )
    count = math.ceil(horizon.budget / length)
    if count > MAX_INTERVALS:
        raise ValueError(
            f"interval must cut the budget into at most {MAX_INTERVALS} intervals, "
            f"got {shown(count)}"
        )
    return length, tuple(math.ceil(k * length) for k in range(count))


@lru_cache(maxsize=16)
def geometric_sizes(
    batch_size: int, max_batch_size: int, growth: Fraction, count: int
) -> tuple[int, ...]:
    """Returns min(max_batch_size, ceil(batch_size growth^k)), k from 0 to count - 1."""
    sizes = []
    numerator, denominator = batch_size, 1
    for _ in range(count):
        sizes.append(min(max_batch_size, -(-numerator // denominator)))
        # Past the maximum the power is not needed, and would only grow.
        if sizes[-1] < max_batch_size:
            numerator *= growth.numerator
            denominator *= growth.denominator
    return tuple(sizes)


@lru_cache(maxsize=16)
def affine_sizes(
    batch_size: int, max_batch_size: int, growth: Fraction, count: int
) -> tuple[int, ...]:
    """Returns ceil(batch_size - a + a growth^k), k from 0 to count - 1.

    Here a = (max_batch_size - batch_size) / (growth^(count - 1) - 1), so that the last
    size is `max_batch_size`: the capped form of arXiv 2409.08770's code, which starts
    far more slowly than its growth says.

    Raises:
        ValueError: If the powers of so exact a growth would have too many digits.
    """
    if count == 1:
        return (batch_size,)
    most = MAX_BITS // max(map(int.bit_length, growth.as_integer_ratio()))
    if count > most:
        raise ValueError(
            f"interval must cut the budget into at most {most} intervals for an affine "
            f"form of growth {float(growth)}, whose powers are exact, got {count}"
        )
    # With growth = p / q, everything times q^(count - 1) is whole, which spares the
    # search for common divisors: minutes for many intervals.
    p, q = growth.numerator, growth.denominator
    first, last = q ** (count - 1), p ** (count - 1)
    sizes = []
    power = first
    for _ in range(count):
        scaled = (max_batch_size - batch_size) * (power - first)
        sizes.append(batch_size - (-scaled // (last - first)))
        power = power * p // q
    return tuple(sizes)
