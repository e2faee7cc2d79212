import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from batchramp.benchmark import swaps
from batchramp.benchmark.swaps import swap_bounds, swap_test

INF = math.inf
counts = st.integers(1, 12).map(float) | st.just(INF)
pairs = st.lists(st.tuples(counts, counts), min_size=1, max_size=7)
ALTERNATIVES = ("two-sided", "greater", "less")


def midranks(pooled):
    return [
        sum(other < value for other in pooled)
        + (sum(other == value for other in pooled) + 1) / 2
        for value in pooled
    ]


def share_of_swaps(values, others, alternative):
    """The p-value by its definition, swap by swap."""
    n = len(values)
    ranks = midranks([*values, *others])
    both = list(zip(ranks[:n], ranks[n:], strict=True))
    sums = [
        sum(pair[side] for pair, side in zip(both, sides, strict=True))
        for sides in product((0, 1), repeat=n)
    ]
    observed, mean = sums[0], sum(ranks) / 2
    far = {
        "greater": lambda total: total >= observed,
        "less": lambda total: total <= observed,
        "two-sided": lambda total: abs(total - mean) >= abs(observed - mean),
    }[alternative]
    return sum(map(far, sums)) / 2**n


def test_the_swap_test_by_hand():
    # Ranks 1, 3 against 2, 4: sums 4, 5, 5, 6 under the four swaps.
    assert swap_test([1.0, 3.0], [2.0, 4.0]) == 0.5
    assert swap_test([1.0, 3.0], [2.0, 4.0], "less") == 0.25
    assert swap_test([1.0, 3.0], [2.0, 4.0], "greater") == 1
    # Eight clear pairs: 1 swap of 256, and both ends.
    low, high = [float(k) for k in range(8)], [k + 0.5 for k in range(8)]
    assert swap_test(low, high, "less") == 1 / 256
    assert swap_test(low, high) == 2 / 256


def test_misses_tie_behind_everything():
    assert swap_test([INF, INF], [INF, INF]) == 1
    # One adverse miss is the largest of six ranks, against two small wins.
    assert swap_test([1.0, 2.0, INF], [3.0, 4.0, 5.0], "greater") == (
        share_of_swaps([1.0, 2.0, INF], [3.0, 4.0, 5.0], "greater")
    )
    assert swap_test([INF] * 6, [float(k) for k in range(6)], "greater") == 1 / 64


@given(pairs, st.sampled_from(ALTERNATIVES))
def test_it_is_the_share_of_all_swaps(drawn, alternative):
    values, others = map(list, zip(*drawn, strict=True))
    found = swap_test(values, others, alternative)
    assert found == pytest.approx(share_of_swaps(values, others, alternative))


@pytest.mark.parametrize("alternative", ALTERNATIVES)
def test_scipy_agrees_on_finite_untied_data(alternative):
    generator = np.random.default_rng(1)
    for n in (4, 7, 9):
        values, others = generator.normal(0.5, 1, n), generator.normal(size=n)

        def rank_sum(first, second):
            return stats.rankdata(np.concatenate([first, second]))[: len(first)].sum()

        expected = stats.permutation_test(
            (values, others),
            rank_sum,
            permutation_type="samples",
            n_resamples=np.inf,
            alternative=alternative,
        ).pvalue
        found = swap_test(values.tolist(), others.tolist(), alternative)
        assert found == pytest.approx(expected)


def test_scipy_agrees_where_all_pairs_point_one_way():
    # There signed ranks and rank sums leave the same single swap.
    generator = np.random.default_rng(2)
    others = generator.exponential(size=8)
    values = others + generator.exponential(size=8)
    for alternative in ALTERNATIVES:
        expected = stats.wilcoxon(values, others, alternative=alternative).pvalue
        found = swap_test(values.tolist(), others.tolist(), alternative)
        assert found == pytest.approx(expected)


def test_above_sixteen_pairs_swaps_are_drawn_and_repeat(monkeypatch):
    generator = np.random.default_rng(3)
    values, others = generator.normal(0.4, 1, (2, 18)).tolist()
    others = [value - 0.4 for value in others]
    drawn = swap_test(values, others)
    assert drawn == swap_test(values, others)
    assert drawn >= 1 / 100_000
    monkeypatch.setattr(swaps, "EXACT_PAIRS", 18)
    exact = swap_test(values, others)
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact / 100_000))
    assert drawn != exact


@pytest.mark.parametrize(
    ("values", "others", "told"),
    [
        ([], [], "got 0 and 0"),
        ([1.0], [1.0, 2.0], "got 1 and 2"),
        ([math.nan], [1.0], "NaN"),
    ],
)
def test_what_has_no_p_value_is_refused(values, others, told):
    with pytest.raises(ValueError, match=told):
        swap_test(values, others)


def races(generator, n, misses):
    """Two schedules whose seeds have most of their spread in common."""
    shared = generator.standard_normal(n)
    sides = math.sqrt(0.8) * shared + math.sqrt(0.2) * generator.standard_normal((2, n))
    passed = np.ceil(np.exp(0.4 * sides) * 20)  # as looks tell it
    return np.where(generator.random((2, n)) < misses, INF, passed)


@pytest.mark.parametrize("misses", [0.0, 0.3])
@pytest.mark.parametrize("n", [6, 8])
def test_it_holds_its_level(n, misses):
    generator = np.random.default_rng([n, int(10 * misses)])
    repetitions = 1500
    found = [
        swap_test(values.tolist(), others.tolist())
        for values, others in (races(generator, n, misses) for _ in range(repetitions))
    ]
    error = 4 * math.sqrt(0.05 * 0.95 / repetitions)
    assert np.mean(np.asarray(found) <= 0.05) <= 0.05 + error


def test_bounds_hold_what_the_test_does_not_reject():
    values = [3.0, 5.0, 4.0, 8.0, 6.0, 7.0, INF]
    others = [2.0, 4.0, 4.5, 5.0, 3.0, 6.0, 9.0]
    low, high = swap_bounds(values, others)
    assert 0 < low < high
    for ratio in np.geomspace(0.2, 20, 400):
        scaled = [other * ratio for other in others]
        accepted = swap_test(values, scaled) > 0.05
        assert accepted == (low < ratio < high), ratio


def test_bounds_of_few_pairs_are_open():
    assert swap_bounds([2.0] * 5, [1.0] * 5) == (0, INF)
    assert swap_bounds([2.0] * 6, [1.0] * 6) == (2, 2)


def test_bounds_of_a_side_that_missed_altogether():
    assert swap_bounds([INF] * 6, [1.0] * 6) == (INF, INF)
    assert swap_bounds([1.0] * 6, [INF] * 6) == (0, 0)
    assert swap_bounds([INF] * 5, [1.0] * 5) == (0, INF)
    assert swap_bounds([INF] * 6 + [1.0], [1.0] * 6 + [1.0]) == (INF, INF)


@pytest.mark.parametrize("misses", [0.0, 0.1])
def test_bounds_cover_their_level(misses):
    generator = np.random.default_rng(5)
    repetitions = 400
    covered = []
    for _ in range(repetitions):
        values, others = races(generator, 8, misses)
        low, high = swap_bounds((1.3 * values).tolist(), others.tolist())
        covered.append(low <= 1.3 * (1 + 1e-9) and high * (1 + 1e-9) >= 1.3)
    assert np.mean(covered) >= 0.95 - 4 * math.sqrt(0.05 * 0.95 / repetitions)
