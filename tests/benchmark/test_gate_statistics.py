import math

import numpy as np
import pytest
from scipy import stats

from batchramp.benchmark.gate_statistics import (
    GATE_LEVEL,
    metric_finding,
    pairs_to_decide,
    ratio_finding,
    runs_finding,
)
from batchramp.benchmark.swaps import swap_bounds, swap_test

INF = math.inf
BASE = [10.0, 12.0, 9.0, 14.0, 11.0, 10.0, 13.0, 12.0]
NEW = [12.0, 13.0, 12.0, 15.0, 14.0, 13.0, 15.0, 13.0]


def test_pairs_are_judged_by_the_t_of_their_log_ratios():
    logarithms = np.log(NEW) - np.log(BASE)
    found = ratio_finding(BASE, NEW, 0.1)
    one_sided = stats.ttest_1samp(logarithms, math.log(1.1), alternative="greater")
    interval = stats.ttest_1samp(logarithms, 0).confidence_interval(0.95)
    assert (found.method, found.pairs) == ("pairs", 8)
    assert found.p == pytest.approx(one_sided.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(np.exp(interval)))
    assert found.estimate == pytest.approx(found.new / found.base)
    assert found.estimate == pytest.approx(math.exp(logarithms.mean()))
    assert not found.within
    assert ratio_finding(BASE, NEW, 1.0).within


def test_a_slowdown_without_spread_leaves_no_doubt():
    found = ratio_finding(BASE, [1.2 * value for value in BASE], 0.1)
    assert found.p == 0
    assert (found.low, found.high) == pytest.approx((1.2, 1.2))
    gain = ratio_finding(BASE, [value / 1.2 for value in BASE], 0.1)
    assert (gain.p, gain.within) == (1, True)


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.25, 0.3])
def test_exactly_the_margin_is_within_it(margin):
    at_margin = ratio_finding(BASE, [(1 + margin) * value for value in BASE], margin)
    assert (at_margin.p, at_margin.within) == (1, True)
    # A pair that missed on one side: the other five tie with the margin.
    base, new = [*BASE[:5], INF], [*((1 + margin) * v for v in BASE[:5]), 1.0]
    assert ratio_finding(base, new, margin).p == 1


def test_two_pairs_decide_nothing():
    found = ratio_finding([10.0, 12.0], [20.0, 24.0], 0.1)
    assert (found.p, found.within, found.low, found.high) == (1, False, None, None)
    assert found.estimate == pytest.approx(2)
    assert found.detectable(1) is None


def test_a_miss_brings_the_swap_test():
    missed = [*NEW[:7], INF]
    found = ratio_finding(BASE, missed, 0.1)
    raised = [float(f"{1.1 * value:.12g}") for value in BASE]
    assert (found.method, found.pairs) == ("swaps", 8)
    assert found.p == swap_test(missed, raised, "greater")
    assert (found.low, found.high) == swap_bounds(missed, BASE)
    assert (found.base, found.new) == (11.5, 13.5)
    assert found.estimate == 13.5 / 11.5


def test_a_pair_that_missed_twice_says_nothing():
    twice = ratio_finding([*BASE, INF], [*NEW, INF], 0.1)
    assert twice == ratio_finding(BASE, NEW, 0.1)


def test_all_of_one_side_missing_is_without_bound():
    gone = ratio_finding(BASE, [INF] * 8, 0.1)
    assert (gone.estimate, gone.low, gone.high) == (INF, INF, INF)
    assert (gone.p, gone.within) == (1 / 256, False)
    won = ratio_finding([INF] * 8, BASE, 0.1)
    assert (won.estimate, won.low, won.high) == (0, 0, 0)
    assert (won.p, won.within) == (1, True)


def test_a_start_that_meets_the_target_has_no_logarithm():
    found = ratio_finding([0.0] * 6, [10.0] * 6, 0.1)
    assert (found.method, found.p, found.estimate) == ("swaps", 1 / 64, INF)


def test_runs_are_judged_by_welch_on_their_means():
    generator = np.random.default_rng(1)
    base = np.exp(generator.normal(0, 0.1, (3, 8))).tolist()
    new = np.exp(generator.normal(0.4, 0.1, (4, 8))).tolist()
    before, after = (np.log(side).mean(axis=1) for side in (base, new))
    found = runs_finding(base, new, 0.1)
    expected = stats.ttest_ind(
        after - math.log(1.1), before, equal_var=False, alternative="greater"
    )
    interval = stats.ttest_ind(after, before, equal_var=False).confidence_interval()
    assert (found.method, found.pairs) == ("runs", 8)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(np.exp(interval)))
    assert found.estimate == pytest.approx(math.exp(after.mean() - before.mean()))


def test_runs_that_do_not_vary_leave_no_doubt():
    base, new = [[1.0, 2.0]] * 3, [[1.2, 2.4]] * 3
    assert runs_finding(base, new, 0.1).p == 0
    assert runs_finding(base, new, 0.25).within


@pytest.mark.parametrize("higher", [True, False])
def test_a_metric_is_judged_by_its_difference(higher):
    base = np.asarray([0.95, 0.96, 0.94, 0.95, 0.97, 0.96])
    new = base - np.asarray([0.03, 0.02, 0.04, 0.03, 0.03, 0.02])
    found = metric_finding(base.tolist(), new.tolist(), 0.01, higher_is_better=higher)
    loss = (base - new if higher else new - base) - 0.01 * base
    expected = stats.ttest_1samp(loss, 0, alternative="greater")
    interval = stats.ttest_1samp(new - base, 0).confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.within == (not higher)
    assert found.estimate == pytest.approx((new - base).mean())
    assert (found.low, found.high) == pytest.approx(tuple(interval))


def test_a_metric_that_is_gone_is_worse_than_any():
    base, new = [0.9, 0.91, 0.92, 0.93, 0.94, 0.95], [INF] * 6
    for higher in (True, False):
        lost = metric_finding(base, new, 0.1, higher_is_better=higher)
        assert (lost.method, lost.p, lost.within) == ("swaps", 1 / 64, False)
        assert (lost.base, lost.new, lost.pairs, lost.base_only) == (None, None, 0, 6)
        found = metric_finding(new, base, 0.1, higher_is_better=higher)
        assert (found.p, found.within) == (1, True)


def test_a_metric_is_centred_on_the_pairs_that_have_it():
    base, new = [0.5, 0.6, 0.8, 0.9, INF], [INF, INF, 0.7, 0.8, 0.9]
    found = metric_finding(base, new, 0.1, higher_is_better=True)
    assert (found.base, found.new) == pytest.approx((0.85, 0.75))
    assert (found.pairs, found.base_only, found.new_only) == (2, 2, 1)
    assert found.tested == 5


@pytest.mark.parametrize("factor", [0.5, 1 / 1.1, 0.95, 1.0, 2.0])
def test_better_is_an_interval_beyond_the_margin(factor):
    raised = [factor * value for value in BASE]
    assert ratio_finding(BASE, raised, 0.1).better == (factor == 0.5)
    missed = ratio_finding([*BASE, INF], [*raised, 5.0], 0.1)
    assert (missed.method, missed.better) == ("swaps", factor == 0.5)
    assert runs_finding([BASE] * 3, [raised] * 3, 0.1).better == (factor == 0.5)
    costs = metric_finding(BASE, raised, 0.1, higher_is_better=False)
    assert costs.better == (factor < 0.9 + 1e-9)
    gains = metric_finding(BASE, raised, 0.1, higher_is_better=True)
    assert gains.better == (factor == 2.0)


@pytest.mark.parametrize("family", [1, 24])
def test_what_is_detectable_is_found_with_eighty_percent_power(family):
    found = ratio_finding(BASE, NEW, 0.1)
    shift = math.log(found.detectable(family) / 1.1) / found.error
    critical = stats.t.ppf(1 - GATE_LEVEL / family, 7)
    assert stats.nct.sf(critical, 7, shift) == pytest.approx(0.8, abs=1e-4)
    metric = metric_finding(
        [0.9, 0.8, 0.95], [0.8, 0.75, 0.9], 0.1, higher_is_better=True
    )
    shift = (metric.detectable(family) - metric.allowed) / metric.error
    critical = stats.t.ppf(1 - GATE_LEVEL / family, 2)
    assert stats.nct.sf(critical, 2, shift) == pytest.approx(0.8, abs=1e-4)


@pytest.mark.parametrize("family", [1, 2, 12, 40])
def test_pairs_that_the_swap_test_needs(family):
    n = pairs_to_decide(family)
    assert family / 2**n < GATE_LEVEL <= family / 2 ** (n - 1)


@pytest.mark.parametrize(("n", "misses"), [(3, 0.0), (8, 0.0), (8, 0.1), (12, 0.3)])
def test_a_row_at_the_margin_is_seldom_called_worse(n, misses):
    generator = np.random.default_rng([n, int(10 * misses)])
    repetitions = 1200
    worse, uncovered = [], []
    for _ in range(repetitions):
        shared = generator.standard_normal(n)
        sides = shared + 0.5 * generator.standard_normal((2, n))
        base, new = np.exp(0.3 * sides) * [[1.0], [1.1]]
        base[generator.random(n) < misses] = INF
        new[generator.random(n) < misses] = INF
        found = ratio_finding(base.tolist(), new.tolist(), 0.1)
        worse.append(found.p < GATE_LEVEL)
        bounded = found.low is not None and found.high is not None
        uncovered.append(bounded and not found.low <= 1.1 <= found.high)
    for share, level in ((np.mean(worse), 0.025), (np.mean(uncovered), 0.05)):
        assert share <= level + 4 * math.sqrt(level * (1 - level) / repetitions)


def test_with_three_runs_a_side_drift_is_in_the_interval():
    generator = np.random.default_rng(9)
    repetitions = 1000
    found = []
    for _ in range(repetitions):
        drift = np.exp(0.1 * generator.standard_normal((6, 1)))
        seconds = drift * np.exp(0.05 * generator.standard_normal((6, 8)))
        runs = seconds.tolist()
        found.append(runs_finding(runs[:3], runs[3:], 0.0).p < GATE_LEVEL)
    level = 0.025
    error = 4 * math.sqrt(level * (1 - level) / repetitions)
    assert np.mean(found) <= level + error
