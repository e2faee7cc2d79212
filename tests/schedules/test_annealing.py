from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchramp.schedules import plan
from batchramp.schedules.annealing import Annealed, anneal

SMITH = {
    "smith-decay": [(128, 0.1), (128, 0.02), (128, 0.004), (128, 0.0008)],
    "smith-increase": [(128, 0.1), (640, 0.1), (3200, 0.1), (5120, 0.032)],
    "smith-hybrid": [(128, 0.1), (640, 0.1), (640, 0.02), (640, 0.004)],
    "smith-initial-lr": [(640, 0.5), (3200, 0.5), (5120, 0.16), (5120, 0.032)],
    "smith-momentum": [(3200, 0.5), (5120, 0.16), (5120, 0.032), (5120, 0.0064)],
}


@pytest.mark.parametrize(("name", "rows"), SMITH.items())
def test_the_rows_of_smith(name, rows):
    stages = plan(name).stages
    assert [stage.start for stage in stages] == [0, 3_000_000, 6_000_000, 8_000_000]
    assert [stage.batch_size for stage in stages] == [size for size, _ in rows]
    assert [stage.lr for stage in stages] == pytest.approx([lr for _, lr in rows])
    assert {stage.momentum for stage in stages} == {
        0.98 if name == "smith-momentum" else 0.9
    }


@pytest.mark.parametrize("name", SMITH)
def test_every_row_has_the_same_noise_scale(name):
    for event, stage in enumerate(plan(name).stages):
        scale = stage.lr * 50_000 / (stage.batch_size * (1 - stage.momentum))
        assert scale == pytest.approx(390.625 / 5**event, rel=1e-12)


def test_hybrid_leaves_the_batch_alone_after_the_first_event_whatever_the_cap():
    stages = plan("smith-hybrid", max_batch_size=50_000).stages
    assert [stage.batch_size for stage in stages] == [128, 640, 640, 640]
    stages = plan("smith-hybrid", max_batch_size=256).stages
    assert [stage.batch_size for stage in stages] == [128, 256, 256, 256]
    assert stages[1].lr == pytest.approx(0.1 * 2 / 5)


@given(
    st.integers(1, 10_000),
    st.integers(0, 10_000),
    st.decimals("1.01", 20, places=2),
    st.sampled_from([0, 1, 0.5, 2 / 3, 2]),
)
def test_an_event_divides_rate_over_batch_exactly(size, more, factor, share):
    exact, largest = Fraction(str(factor)), size + more
    after = anneal(Annealed(size, Fraction(1)), exact, share, largest)
    assert after.rate_scale / after.batch_size == Fraction(1, size) / exact
    wanted = float(size) * float(exact) ** share
    assert abs(after.batch_size - min(wanted, largest)) <= 0.5 + 1e-9 * wanted


def test_events_of_both_clocks_count_in_the_order_in_which_they_come():
    laid = plan(
        "smith-hybrid",
        num_samples=10_000,
        epochs=10,
        milestones=["5 epochs", "100 updates", "420 updates"],
    )
    # 100 updates of 128, then of 640, 16 in each pass: epoch 5 comes before 420.
    assert [stage.batch_size for stage in laid.stages] == [128, 640, 640]
    assert laid.stages[0].updates == 100
    assert [stage.lr for stage in laid.stages] == pytest.approx([0.1, 0.1, 0.02])
