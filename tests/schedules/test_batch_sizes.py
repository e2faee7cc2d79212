import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchramp.schedules import Horizon, make, plan
from batchramp.schedules.batch_sizes import affine_sizes, geometric_sizes


def interval_sizes(**parameters):
    laid = plan("umeda-increasing-batch", **parameters)
    return [laid.settings_at(k * 1_500_000).batch_size for k in range(10)]


@pytest.mark.parametrize(
    ("growth", "sizes"),
    [
        (3, [8, 9, 10, 14, 25, 59, 160, 463, 1371, 4096]),
        (4, [8, 9, 9, 9, 12, 24, 72, 264, 1030, 4096]),
    ],
)
def test_affine_rows_of_the_papers_code(growth, sizes):
    assert interval_sizes(growth=growth, form="affine") == sizes


def test_geometric_rows():
    assert interval_sizes() == [8 * 2**k for k in range(10)]
    assert interval_sizes(growth=3) == [min(8 * 3**k, 4096) for k in range(10)]
    assert interval_sizes(growth=1.5)[:4] == [8, 12, 18, 27]
    # The exact 8 * 1.1^2 is 9.68, and 1.1 no binary number.
    assert interval_sizes(growth=1.1)[:4] == [8, 9, 10, 11]


@given(
    st.integers(1, 100),
    st.integers(0, 5000),
    st.decimals("1.01", 5, places=2),
    st.integers(1, 40),
)
def test_sizes_against_their_formulas(first, more, growth, count):
    exact, largest = Fraction(str(growth)), first + more
    geometric = geometric_sizes(first, largest, exact, count)
    assert geometric == tuple(
        min(largest, math.ceil(first * exact**k)) for k in range(count)
    )
    affine = affine_sizes(first, largest, exact, count)
    if count > 1:
        slope = (largest - first) / (exact ** (count - 1) - 1)
        assert affine == tuple(
            math.ceil(slope * exact**k + first - slope) for k in range(count)
        )
        assert affine[-1] == largest
    assert affine[0] == first


def test_intervals_are_bounded():
    with pytest.raises(ValueError, match="interval must be at least one sample"):
        make("umeda-warmup", interval=0.001).init(Horizon.of(10_000, "0.01"))
    with pytest.raises(ValueError, match=r"at most 10000 intervals.*got 100000"):
        plan("umeda-warmup", num_samples=10_000, epochs=10, interval="1 samples")


def test_one_interval_never_grows():
    for name in ("umeda-increasing-batch", "umeda-increasing-both"):
        for form in ("geometric", "affine"):
            laid = plan(name, num_samples=64, epochs=2, interval=1, form=form)
            assert [(s.batch_size, s.lr) for s in laid.stages] == [(8, 0.1)]
