import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchramp.benchmark.compare import Comparison, compare

INF = math.inf


def rows_of(comparison, schedule="a"):
    return {row.quantity: row for row in comparison.rows if row.schedule == schedule}


@pytest.fixture
def side(run_of, trial):
    """A run of one schedule whose trials pass at the given looks; ids by `name`."""

    def build(name, looks, *, pace=0.5, label="a", workload="digits", **schedule):
        trials = [
            trial(look, id=f"{name}-{seed}", pace=pace * (1 + 0.01 * seed))
            for seed, look in enumerate(looks)
        ]
        return run_of({label: {"trials": trials, **schedule}}, workload=workload)

    return build


def test_the_same_trials_are_compared_exactly(side):
    comparison = compare(side("x", [2, 3, 4]), side("x", [2, 3, 4]))
    rows = rows_of(comparison)
    assert [rows[name].verdict for name in ("planned_updates", "updates")] == [
        "equal",
        "equal",
    ]
    assert rows["train_seconds"].ratio == 1
    assert rows["train_seconds"].verdict == "same"
    assert comparison.exit_code == 0


def test_the_same_trials_must_repeat_their_updates(side):
    comparison = compare(side("x", [2, 3, 4]), side("x", [2, 3, 3]))
    row = rows_of(comparison)["updates"]
    assert row.verdict == "changed"
    assert row.note == "1 of 3 seeds differ in the same trial"
    assert comparison.exit_code == 1


def test_seconds_of_the_same_trials_are_paired(side):
    # Passages vary threefold, and every pair is slower by exactly a quarter.
    comparison = compare(side("x", [2, 3, 6, 4]), side("x", [2, 3, 6, 4], pace=0.625))
    rows = rows_of(comparison)
    for name in ("train_seconds", "total_train_seconds"):
        assert rows[name].ratio == pytest.approx(1.25)
        assert rows[name].low == pytest.approx(1.25)
        assert rows[name].verdict == "slower"
    assert rows["updates"].verdict == "equal"


def test_a_pair_that_missed_together_has_no_seconds(side):
    comparison = compare(side("x", [2, 3, None]), side("x", [2, 3, None]))
    row = rows_of(comparison)["train_seconds"]
    assert (row.ratio, row.verdict) == (1, "same")
    assert (row.base_reached, row.base_trials) == (2, 3)


def test_other_trials_are_compared_by_interval(side):
    base = side("x", [2, 2, 2, 3, 3, 3])
    slow = rows_of(compare(base, side("y", [4, 5, 5, 5, 4, 5])))["updates"]
    assert slow.verdict == "slower"
    geometric = (4 * 4 * 5**4) ** (1 / 6) / math.sqrt(6)
    assert slow.ratio == pytest.approx(geometric)
    assert slow.base == pytest.approx(10 * math.sqrt(6))
    assert slow.level == 0.95
    fast = rows_of(compare(side("y", [4, 5, 5, 5, 4, 5]), base))["updates"]
    assert fast.verdict == "same"
    assert fast.ratio == pytest.approx(1 / geometric)


def test_a_wide_interval_is_undecided_and_says_what_would_show(side):
    comparison = compare(side("x", [1, 5, 3]), side("y", [4, 1, 3]))
    row = rows_of(comparison)["updates"]
    assert row.verdict == "undecided"
    assert row.low < 1 < row.high
    assert row.detectable == pytest.approx(1.1 * row.ratio / row.low)
    assert comparison.exit_code == 3


def test_a_wider_margin_lets_it_pass(side):
    base, new = side("x", [2, 3, 4]), side("x", [2, 3, 4], pace=0.625)
    assert compare(base, new, margin=0.2).exit_code == 1
    assert compare(base, new, margin=0.3).exit_code == 0


def test_planned_updates_are_compared_exactly(side):
    base = side("x", [2, 3, 4], planned_updates=60)
    comparison = compare(base, side("x", [2, 3, 4], planned_updates=61))
    row = rows_of(comparison)["planned_updates"]
    assert (row.base, row.new, row.verdict) == (60, 61, "changed")
    assert comparison.exit_code == 1
    adaptive = side("x", [2, 3, 4], planned_updates=None)
    row = rows_of(compare(adaptive, adaptive))["planned_updates"]
    assert (row.base, row.verdict) == (None, "equal")
    assert rows_of(compare(base, adaptive))["planned_updates"].verdict == "changed"


def test_new_misses_are_slower(side):
    base = side("x", [2, 2, 3, 3, 4, 4])
    gone = rows_of(compare(base, side("y", [None] * 6)))["updates"]
    assert (gone.new, gone.ratio, gone.low, gone.verdict) == (INF, INF, INF, "slower")
    few = rows_of(compare(base, side("y", [2, 2, 3, 3, 4, None])))["updates"]
    assert few.verdict == "undecided"
    assert (few.new_reached, few.new_trials) == (5, 6)


def test_misses_of_the_base_alone_are_no_loss(side):
    base, new = side("x", [None] * 6), side("y", [2, 2, 3, 3, 4, 4])
    row = rows_of(compare(base, new))["updates"]
    assert (row.ratio, row.high, row.verdict) == (0, 0, "same")


def test_where_nobody_got_there_is_nothing_to_compare(side):
    comparison = compare(side("x", [None] * 6), side("y", [None] * 6))
    row = rows_of(comparison)["updates"]
    assert (row.ratio, row.verdict) == (None, "not reached")
    assert row.note == "not reached in either run"
    assert comparison.exit_code == 0


def test_what_only_one_run_has_is_listed(run_of, trial):
    def build(label, targets, name):
        trials = [trial(k, id=f"{name}{label}{k}") for k in (2, 3, 4)]
        both = [trial(k, id=f"{name}{k}") for k in (2, 3, 4)]
        return run_of(
            {"both": {"trials": both}, label: {"trials": trials}}, targets=targets
        )

    base = build("old", ["metric >= 0.9", "metric >= 0.90", "metric >= 0.5"], "b")
    new = build("fresh", ["metric >= 0.900"], "n")
    comparison = compare(base, new)
    assert {row.schedule for row in comparison.rows} == {"both"}
    assert {row.target for row in comparison.rows} == {None, "metric >= 0.90"}
    assert "old: only in base" in comparison.notes
    assert "fresh: only in new" in comparison.notes
    assert "both: target metric >= 0.5 only in base" in comparison.notes


def test_failed_and_diverged_trials_are_named(run_of, trial):
    base = run_of({"a": {"trials": [trial(2), trial(3, status="failed")], "seeds": 3}})
    comparison = compare(base, base)
    assert comparison.notes[0] == "a, base, 3 seeds: 1 failed, 1 not run"
    nothing = run_of({"a": {"trials": [], "seeds": 3}})
    row = rows_of(compare(base, nothing))["updates"]
    assert (row.verdict, row.note) == ("undecided", "no trial of new counts")


def test_refusals_name_what_differs(side):
    base = side("x", [2])
    with pytest.raises(ValueError, match=r"both runs have, got a and b"):
        compare(base, side("x", [2], label="b"))
    with pytest.raises(ValueError, match="one workload, got 'digits' and 'cifar10'"):
        compare(base, side("x", [2], workload="cifar10"))


@pytest.mark.parametrize("margin", [-0.1, INF, math.nan])
def test_a_margin_is_finite_and_not_negative(side, margin):
    with pytest.raises(ValueError, match=f"margin must be .* got {margin}"):
        compare(side("x", [2]), side("x", [2]), margin=margin)


@given(st.lists(st.sampled_from(["same", "equal", "slower", "changed", "undecided"])))
def test_the_worst_row_decides(verdicts):
    rows = tuple(type("Row", (), {"verdict": verdict})() for verdict in verdicts)
    code = Comparison(margin=0.1, rows=rows, notes=()).exit_code
    if "slower" in verdicts or "changed" in verdicts:
        assert code == 1
    else:
        assert code == (3 if "undecided" in verdicts else 0)
