import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchramp.benchmark import statistics

INF = math.inf
counts = st.integers(1, 50).map(float) | st.just(INF)


def error(level, repetitions):
    """Four standard errors of a share: what a calibration may fall short by."""
    return 4 * math.sqrt(level * (1 - level) / repetitions)


@pytest.mark.parametrize(
    ("n", "low", "high", "level", "kind"),
    [
        (1, 1, 1, 0.0, "range"),
        (2, 1, 2, 0.5, "range"),
        (5, 1, 5, 0.9375, "range"),
        (6, 1, 6, 1 - 2 / 64, "order"),
        (8, 1, 8, 1 - 2 / 256, "order"),
        (9, 2, 8, 1 - 20 / 512, "order"),
        (12, 3, 10, 1 - 2 * 79 / 4096, "order"),
    ],
)
def test_median_interval_by_hand(n, low, high, level, kind):
    found = statistics.median_interval([float(k) for k in range(n, 0, -1)])
    assert (found.low, found.high, found.kind, found.n) == (low, high, kind, n)
    assert found.level == pytest.approx(level, abs=1e-12)
    assert found.estimate == (n + 1) / 2


def test_a_miss_is_a_value_of_the_median():
    found = statistics.median_interval([3, INF, 1, 2, 5, 4])
    assert (found.estimate, found.low, found.high) == (3.5, 1, INF)
    assert statistics.median([1, 2, INF, INF]) == INF
    assert statistics.median_interval([INF] * 6).low == INF


def test_nothing_has_no_median():
    assert statistics.median([]) is None
    empty = statistics.median_interval([])
    assert (empty.estimate, empty.low, empty.level, empty.n) == (None, None, None, 0)


@given(st.lists(counts, min_size=1, max_size=40))
def test_median_interval_holds_its_median_and_keeps_the_level(values):
    found = statistics.median_interval(values)
    assert found.low <= found.estimate <= found.high
    assert (found.kind == "order") == (len(values) >= 6)
    assert (found.level >= 0.95) == (len(values) >= 6)


def test_mean_interval_by_hand():
    found = statistics.mean_interval([1.0, 2.0, 3.0])
    half = 4.302652729911275 / math.sqrt(3)  # t(2) at 97.5%, deviation 1
    assert found.estimate == 2
    assert found.low == pytest.approx(2 - half)
    assert found.high == pytest.approx(2 + half)
    alone = statistics.mean_interval([7.0])
    assert (alone.estimate, alone.low, alone.level) == (7, None, None)


def test_mean_difference_by_hand():
    found = statistics.mean_difference([2.0, 4.0], [1.0, 3.0])
    # Both variances 2, so Welch's degrees are 2 and the error sqrt(2/2 + 2/2).
    half = 4.302652729911275 * math.sqrt(2)
    assert found.estimate == 1
    assert (found.low, found.high) == pytest.approx((1 - half, 1 + half))
    assert statistics.mean_difference([1.0], [2.0, 3.0]).low is None
    assert statistics.mean_difference([], [2.0]).estimate is None


def test_ratio_of_medians_knows_misses():
    reached, missed = [10.0, 11, 12, 13, 14], [INF] * 5
    gone = statistics.ratio_of_medians(missed, reached)
    assert (gone.estimate, gone.low, gone.high) == (INF, INF, INF)
    won = statistics.ratio_of_medians(reached, missed)
    assert (won.estimate, won.low, won.high) == (0, 0, 0)
    neither = statistics.ratio_of_medians(missed, missed)
    assert (neither.estimate, neither.low, neither.high) == (None, None, None)
    assert "neither" in neither.note
    some = statistics.ratio_of_medians(reached, [10.0, 11, 12, INF, INF])
    assert some.estimate == 1
    assert some.low == 0
    assert 1 <= some.high < INF


def test_an_undefined_draw_widens_the_interval_both_ways():
    partly = [10.0, 11, 12, INF, INF]
    found = statistics.ratio_of_medians(partly, partly)
    assert (found.estimate, found.low, found.high) == (1, 0, INF)


def test_ratio_of_medians_repeats_and_ignores_order():
    values, others = [5.0, 7, 6, 9, 8, 4], [3.0, 2, 5, 4, 6]
    once = statistics.ratio_of_medians(values, others)
    assert once == statistics.ratio_of_medians(values[::-1], sorted(others))
    assert once.estimate == 6.5 / 4


def test_few_trials_have_no_bootstrap():
    found = statistics.ratio_of_medians([1.0, 2, 3, 4], [1.0, 2, 3, 4, 5, 6])
    assert (found.low, found.high, found.level) == (None, None, None)
    assert found.note == "no 95% interval at n = 4"
    assert statistics.ratio_of_medians([], [1.0]).estimate is None
    assert statistics.ratio_of_medians([0.0] * 5, [0.0] * 5).estimate is None


def test_ratio_of_means_by_hand():
    found = statistics.ratio_of_means([2.0, 8.0], [1.0, 4.0])
    # Both log variances 2 log(2)^2, so 2 degrees and the error sqrt(2) log 2.
    half = 4.302652729911275 * math.sqrt(2) * math.log(2)
    assert found.estimate == pytest.approx(2)
    assert found.low == pytest.approx(2 * math.exp(-half))
    assert found.high == pytest.approx(2 * math.exp(half))


def test_the_method_fits_the_sample():
    assert statistics.ratio([1.0, 2.0], [3.0, 4.0]).method == "means"
    assert statistics.ratio([1.0, INF], [3.0, 4.0]).method == "medians"
    # Coarse looks: equal counts are no proof that nothing varies.
    constant = statistics.ratio([5.0, 5.0], [4.0, 4.0])
    assert (constant.method, constant.estimate, constant.low) == ("medians", 1.25, None)


def test_rank_test_by_hand():
    # 6 splits of 4 ranks: sums 3, 4, 5, 5, 6, 7; as far from 5 as 3 are 3 and 7.
    assert statistics.rank_test([1.0, 2.0], [3.0, 4.0]) == (pytest.approx(2 / 6), 1.0)
    # The smallest p-value of 5 against 5.
    lowest = statistics.rank_test([1.0, 2, 3, 4, 5], [6.0, 7, 8, 9, 10])
    assert lowest == (pytest.approx(2 / 252), 1.0)


def test_a_value_that_is_no_number_has_no_rank():
    with pytest.raises(ValueError, match="must not be NaN"):
        statistics.rank_test([1.0, math.nan], [2.0])


def test_a_geometric_mean_is_of_finite_values_above_0():
    with pytest.raises(ValueError, match="finite values above 0, got inf"):
        statistics.ratio_of_means([INF], [1.0])


def test_misses_tie_behind_everything():
    assert statistics.rank_test([INF, INF], [INF, INF]) == (1.0, 0.5)
    _, superiority = statistics.rank_test([1.0, INF], [9.0, INF])
    # 1 beats both; the miss loses to 9 and ties with the other miss.
    assert superiority == (1 + 1 + 0 + 0.5) / 4
    with pytest.raises(ValueError, match="each side, got 0 and 1"):
        statistics.rank_test([], [1.0])


@given(
    st.lists(counts, min_size=1, max_size=4), st.lists(counts, min_size=1, max_size=4)
)
def test_rank_test_equals_the_enumeration_of_all_splits(values, others):
    pooled = [*values, *others]
    ranks = [
        sum(other < value for other in pooled)
        + (sum(other == value for other in pooled) + 1) / 2
        for value in pooled
    ]
    mean = len(values) * (len(pooled) + 1) / 2
    distances = [abs(sum(split) - mean) for split in combinations(ranks, len(values))]
    observed = abs(sum(ranks[: len(values)]) - mean)
    share = np.mean([distance >= observed - 1e-9 for distance in distances])
    wins = [(a < b) + (a == b) / 2 for a in values for b in others]
    p_value, superiority = statistics.rank_test(values, others)
    assert p_value == pytest.approx(share)
    assert superiority == pytest.approx(np.mean(wins))


def test_holm_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.6, 0.7]) == [1.0, 1.0]
    assert statistics.holm([]) == []


def test_detectable_ratio_by_hand():
    values = [1.0, math.e**2]  # logarithms 0 and 2: deviation sqrt(2), 2 degrees
    expected = math.exp((4.302652729911275 + 1.0606601717798212) * math.sqrt(2))
    assert statistics.detectable_ratio(values) == pytest.approx(expected)
    assert statistics.detectable_ratio([1.0, INF]) is None
    assert statistics.detectable_ratio([1.0]) is None


def skewed(generator, n):
    return np.exp(0.4 * generator.standard_normal(n))


def two_humped(generator, n):
    return skewed(generator, n) * np.where(generator.random(n) < 0.4, 3.0, 1.0)


def missing(generator, n):
    return np.where(generator.random(n) < 0.3, INF, skewed(generator, n))


@pytest.mark.parametrize("n", [2, 5, 6, 8, 9, 20])
def test_median_interval_covers_its_level(n):
    generator = np.random.default_rng(n)
    repetitions = 4000
    samples = np.exp(generator.standard_normal((repetitions, n)))  # median 1
    found = [statistics.median_interval(sample.tolist()) for sample in samples]
    covered = np.mean([interval.low <= 1 <= interval.high for interval in found])
    level = found[0].level
    assert covered >= level - error(level, repetitions)


@pytest.mark.parametrize("draw", [skewed, two_humped, missing])
@pytest.mark.parametrize(("n", "m"), [(5, 5), (8, 8), (5, 12)])
def test_ratio_of_medians_covers_its_level(draw, n, m):
    generator = np.random.default_rng([n, m])
    repetitions = 300
    covered = []
    for _ in range(repetitions):
        found = statistics.ratio_of_medians(
            draw(generator, n).tolist(), draw(generator, m).tolist()
        )
        # No interval where neither median is reached: nothing is claimed then.
        covered.append(found.low is None or found.low <= 1 <= found.high)
    assert np.mean(covered) >= 0.95 - error(0.95, repetitions)


@pytest.mark.parametrize("n", [2, 4, 8])
def test_log_t_intervals_cover_their_level(n):
    generator = np.random.default_rng(n)
    repetitions = 1500
    covered = []
    for _ in range(repetitions):
        values = skewed(generator, n).tolist()
        others = skewed(generator, n).tolist()
        found = statistics.ratio_of_means(values, others)
        covered.append(found.low <= 1 <= found.high)
    assert np.mean(covered) >= 0.95 - error(0.95, repetitions)


@pytest.mark.parametrize("draw", [skewed, missing])
def test_rank_test_rejects_no_more_often_than_its_level(draw):
    generator = np.random.default_rng(3)
    repetitions = 1500
    rejected = np.mean(
        [
            statistics.rank_test(draw(generator, 6), draw(generator, 8))[0] <= 0.05
            for _ in range(repetitions)
        ]
    )
    assert rejected <= 0.05 + error(0.05, repetitions)
