"""What a comparison says of each row, and by which code it ends."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchramp.benchmark.compare import compare
from batchramp.benchmark.comparison import QUANTITIES, Comparison, Note
from batchramp.benchmark.comparison_rows import ONE_RUN
from batchramp.benchmark.statistics import holm

INF = math.inf

LOOKS = [2, 3, 4, 2, 3, 4, 4, 3]


def rows_of(comparison, schedule="a"):
    return {row.quantity: row for row in comparison.rows if row.schedule == schedule}


def texts(comparison, code):
    return [note.text for note in comparison.notes if note.code == code]


def test_equal_learning_is_equal_whatever_the_ids(side):
    # An added comment gives every trial another id.
    changed = side("y", identity={"workload_sources": {"": "1" * 64}})
    comparison = compare(side("x"), changed)
    assert {row.verdict for row in comparison.rows} == {"equal"}
    assert [row.quantity for row in comparison.rows] == list(QUANTITIES)
    assert comparison.exit_code == 0
    row = rows_of(comparison)["updates"]
    assert (row.ratio, row.low, row.pairs, row.seeds) == (1, None, 8, 8)
    assert row.base == pytest.approx(10 * math.exp(np.log(LOOKS).mean()))
    assert texts(comparison, 0) == [
        "workload_sources.the file itself is absent in base, 111111111111 in new"
    ]


def test_a_run_that_is_a_fifth_slower_on_every_seed_is_seen(side):
    comparison = compare(side("x"), side("y", pace=0.6))
    rows = rows_of(comparison)
    for name in ("train_seconds", "total_train_seconds"):
        assert rows[name].ratio == pytest.approx(1.2)
        assert rows[name].low == pytest.approx(1.2)
        assert rows[name].verdict == "slower"
        assert rows[name].note == ONE_RUN
    assert rows["updates"].verdict == "equal"
    assert comparison.exit_code == 1
    assert compare(side("x"), side("y", pace=0.6), margin=0.2).exit_code == 0
    more = compare(side("x"), side("y", updates_per_look=12))
    assert rows_of(more)["updates"].verdict == "slower"
    assert rows_of(more)["samples"].verdict == "equal"


def test_updates_are_paired_by_seed_though_seeds_differ_widely(side):
    slower = [look + 1 for look in LOOKS]
    row = rows_of(compare(side("x"), side("y", slower)))["updates"]
    logarithms = np.log(slower) - np.log(LOOKS)
    assert row.verdict == "slower"
    assert row.ratio == pytest.approx(math.exp(logarithms.mean()))
    assert row.ratio == pytest.approx(row.new / row.base)
    sooner = rows_of(compare(side("y", slower), side("x")))["updates"]
    assert sooner.verdict == "same"
    assert sooner.ratio == pytest.approx(1 / row.ratio)


def test_a_wide_interval_is_undecided_and_says_what_would_show(side):
    comparison = compare(side("x", [1, 5, 3]), side("y", [4, 1, 3]))
    row = rows_of(comparison)["updates"]
    assert row.verdict == "undecided"
    assert row.low < 1 < row.high
    assert row.detectable > row.high
    assert comparison.exit_code == 3


def test_the_p_of_a_row_is_corrected_over_the_rows_looked_at(side):
    generator = np.random.default_rng(1)
    paces = (0.55 * np.exp(0.1 * generator.standard_normal(8))).tolist()
    base, new = side("x"), side("y", [look + 1 for look in LOOKS], pace=paces)
    comparison = compare(base, new)
    together = rows_of(comparison)
    names = [name for name, row in together.items() if row.p is not None]
    assert names == ["updates", "samples", "train_seconds", "total_train_seconds"]
    alone = [compare(base, new, only=[name]).rows[0].p for name in names]
    # The metric, which is equal, might not have been: it counts. The plan does not.
    assert (together["metric"].verdict, comparison.family) == ("equal", 5)
    expected = holm([*alone, 1.0])[:4]
    assert [together[name].p for name in names] == pytest.approx(expected)
    assert max(alone) < 0.6


def test_only_what_is_named_is_looked_at(side):
    base, new = side("x"), side("y", pace=2.0)
    assert compare(base, new).exit_code == 1
    learning = compare(base, new, only=["metric", " updates"])
    assert [row.quantity for row in learning.rows] == ["updates", "metric"]
    assert learning.exit_code == 0


@pytest.mark.parametrize(
    ("only", "told"),
    [(["update"], "'update': did you mean updates"), ([], "only must name a quantity")],
)
def test_quantities_are_known_by_name(side, only, told):
    with pytest.raises(ValueError, match=told):
        compare(side("x"), side("y"), only=only)


def test_planned_updates_are_compared_exactly(side):
    base = side("x", planned_updates=60)
    comparison = compare(base, side("x", planned_updates=61))
    row = rows_of(comparison)["planned_updates"]
    assert (row.base, row.new, row.verdict) == (60, 61, "changed")
    assert comparison.exit_code == 1
    adaptive = side("x", planned_updates=None)
    row = rows_of(compare(adaptive, adaptive))["planned_updates"]
    assert (row.base, row.verdict) == (None, "equal")
    assert rows_of(compare(base, adaptive))["planned_updates"].verdict == "changed"


def test_new_misses_are_slower(side):
    base = side("x")
    gone = compare(base, side("y", [None] * 8), only=["updates"])
    row = rows_of(gone)["updates"]
    assert (row.new, row.ratio, row.low, row.verdict) == (INF, INF, INF, "slower")
    assert (row.new_reached, row.new_trials, row.p) == (0, 8, 1 / 256)
    few = rows_of(compare(base, side("y", [*LOOKS[:7], None])))["updates"]
    assert few.verdict == "undecided"
    assert (few.new_reached, few.new_trials) == (7, 8)


def test_rows_that_eight_seeds_cannot_decide_say_how_many_could(run_of, trial):
    labels = "abcdefghijkl"
    base = run_of({label: {"trials": [trial(3)] * 8} for label in labels})
    new = run_of({label: {"trials": [trial(None)] * 8} for label in labels})
    comparison = compare(base, new, only=["updates"])
    assert {row.verdict for row in comparison.rows} == {"undecided"}
    for row in comparison.rows:
        assert row.note == "with misses, 12 rows need 9 pairs"
    assert comparison.exit_code == 3
    enough = run_of({label: {"trials": [trial(None)] * 9} for label in labels})
    more = run_of({label: {"trials": [trial(3)] * 9} for label in labels})
    assert compare(more, enough, only=["updates"]).exit_code == 1


def test_misses_of_the_base_alone_are_no_loss(side):
    row = rows_of(compare(side("x", [None] * 8), side("y")))["updates"]
    assert (row.ratio, row.high, row.verdict) == (0, 0, "same")


def test_a_pair_that_missed_together_has_no_seconds(side):
    looks = [2, 3, 4, None]
    row = rows_of(compare(side("x", looks), side("y", looks, pace=0.6)))
    assert row["updates"].verdict == "equal"
    assert row["train_seconds"].ratio == pytest.approx(1.2)
    assert (row["train_seconds"].pairs, row["train_seconds"].seeds) == (3, 4)
    assert row["train_seconds"].base_reached == 3


def test_targets_that_nobody_reached_decide_nothing(side):
    base, new = side("x", [None] * 8), side("y", [None] * 8)
    comparison = compare(base, new, only=["updates", "train_seconds"])
    row = rows_of(comparison)["updates"]
    assert (row.ratio, row.verdict) == (None, "not reached")
    assert row.note == "not reached on both sides"
    assert comparison.exit_code == 3
    assert texts(comparison, 3) == ["a: no row that was looked at decides"]
    # The metric at the end of the budget, equal on every seed, does decide.
    comparison = compare(base, new)
    assert comparison.exit_code == 0
    assert texts(comparison, 0) == ["a: metric >= 0.9 was reached on neither side"]


def test_a_metric_is_judged_the_way_its_targets_say(run_of):
    def build(values, target="metric >= 0.5"):
        trials = [{"metric": [0.6, 0.7, 0.7, value]} for value in values]
        return run_of({"a": {"trials": trials}}, targets=[target])

    base = [0.80, 0.81, 0.82, 0.83, 0.80, 0.81, 0.84, 0.82]
    worse = [value - 0.2 for value in base]
    for target, code in (("metric >= 0.5", 1), ("metric <= 0.9", 0)):
        comparison = compare(build(base, target), build(worse, target))
        row = rows_of(comparison)["metric"]
        assert row.difference == pytest.approx(-0.2)
        assert (row.low, row.high) == pytest.approx((-0.2, -0.2))
        assert row.verdict == ("worse" if code else "same")
        assert (comparison.exit_code, row.ratio) == (code, None)
    # No target on the metric: not judged, unless it is equal.
    loss = "train_loss <= 0.9"
    comparison = compare(build(base, loss), build(worse, loss))
    row = rows_of(comparison)["metric"]
    assert (row.verdict, row.p) == ("not judged", None)
    assert row.difference == pytest.approx(-0.2)
    assert row.note == "which way is better is not known without a target on the metric"
    assert comparison.exit_code == 3
    # Nor may it be better: nobody knows that it is.
    assert compare(build(worse, loss), build(base, loss)).exit_code == 3
    # Within the margin whichever way is better, it is the same.
    near = [value + 0.01 * (-1) ** k for k, value in enumerate(base)]
    comparison = compare(build(base, loss), build(near, loss), only=["metric"])
    assert (comparison.rows[0].verdict, comparison.exit_code) == ("same", 0)
    comparison = compare(build(base, loss), build(near, loss), margin=0.005)
    assert comparison.exit_code == 3
    equal = compare(build(base, loss), build(base, loss), only=["metric"])
    assert equal.exit_code == 0


def test_a_diverged_trial_has_no_metric_and_no_end(run_of, trial):
    base = run_of({"a": {"trials": [trial(look) for look in LOOKS]}})
    diverged = [trial(None, status="diverged") for _ in LOOKS]
    comparison = compare(base, run_of({"a": {"trials": diverged}}), only=["metric"])
    assert rows_of(comparison)["metric"].verdict == "worse"
    assert "a: seeds 0, 1, 2, 3, 4, 5, 6 and 7 diverged in new" in texts(comparison, 0)
    both = run_of({"a": {"trials": diverged}})
    told = rows_of(compare(both, both))
    assert told["total_train_seconds"].verdict == "not reached"
    # To diverge on every seed is what both did, and equal; to have no metric is not.
    assert (told["metric"].verdict, told["metric"].base) == ("equal", None)
    assert told["metric"].note == "diverged on both sides"
    assert compare(both, both).exit_code == 0
    trials = [{"metric": [0.1, 0.1, math.nan]} for _ in LOOKS]
    silent = run_of({"a": {"trials": trials}})
    row = rows_of(compare(silent, silent))["metric"]
    assert (row.verdict, row.note) == ("not reached", "no metric on either side")
    assert compare(silent, silent).exit_code == 3


def test_a_metric_that_one_side_lacks_is_compared_on_the_pairs_that_have_it(run_of):
    def build(values):
        trials = [
            {
                "metric": [0.1, 0.5, 0.5 if value is None else value],
                "status": "diverged" if value is None else "finished",
            }
            for value in values
        ]
        return run_of({"a": {"trials": trials}}, targets=["metric >= 0.4"])

    # The seeds that diverge are the bad ones: what is left must not look better.
    base = build([0.5, 0.6, 0.8, 0.8, 0.9, 0.9])
    broken = build([None, None, 0.8, 0.8, 0.9, 0.9])
    row = rows_of(compare(base, broken))["metric"]
    assert (row.base, row.new) == pytest.approx((0.85, 0.85))
    assert (row.pairs, row.seeds) == (4, 6)
    assert (row.base_reached, row.new_reached, row.new_trials) == (6, 4, 6)
    assert row.verdict == "undecided"
    assert "2 seeds with a metric in base only, tested as the worst" in row.note
    assert "6 pairs" not in row.note
    back = rows_of(compare(broken, base))["metric"]
    assert (back.base, back.new, back.pairs) == pytest.approx((0.85, 0.85, 4))
    assert "2 seeds with a metric in new only, tested as the best" in back.note
    # On both sides: equal on what is left, and the row says on how many.
    row = rows_of(compare(broken, broken))["metric"]
    assert (row.verdict, row.pairs, row.base) == ("equal", 4, pytest.approx(0.85))
    assert row.note == "2 seeds without a metric on both sides"


def test_pairs_and_values_are_of_the_same_trials(side):
    looks = [2, 3, 4, 2, None, None]
    row = rows_of(compare(side("x", looks), side("y", looks)))["updates"]
    assert (row.verdict, row.pairs, row.seeds) == ("equal", 4, 6)
    assert row.note == "2 seeds not reached on both sides"
    assert (row.base_reached, row.base_trials) == (4, 6)
    # Seeds that the other side lacks are in no value of this one.
    row = rows_of(compare(side("x"), side("y", LOOKS[:5])))["updates"]
    assert (row.pairs, row.base_reached, row.base_trials) == (5, 5, 5)
    assert row.base == pytest.approx(10 * math.exp(np.log(LOOKS[:5]).mean()))


@pytest.mark.parametrize("margin", [-0.1, INF, math.nan])
def test_a_margin_is_finite_and_not_negative(side, margin):
    with pytest.raises(ValueError, match=f"margin must be .* got {margin}"):
        compare(side("x"), side("x"), margin=margin)


@given(
    st.lists(
        st.sampled_from(
            [
                "same",
                "equal",
                "slower",
                "worse",
                "changed",
                "undecided",
                "not judged",
                "not reached",
            ]
        )
    ),
    st.lists(st.sampled_from([0, 1, 3])),
)
def test_the_worst_row_or_note_decides(verdicts, codes):
    rows = tuple(type("Row", (), {"verdict": verdict})() for verdict in verdicts)
    notes = tuple(Note(code=code, text="x") for code in codes)
    code = Comparison(
        margin=0.1, base_runs=1, new_runs=1, family=1, rows=rows, notes=notes
    ).exit_code
    if {"slower", "worse", "changed"} & set(verdicts) or 1 in codes:
        assert code == 1
    else:
        doubtful = {"undecided", "not judged"} & set(verdicts)
        assert code == (3 if doubtful or 3 in codes else 0)


def test_identical_code_with_noisy_seconds_seldom_fails(run_of, trial):
    generator = np.random.default_rng(11)

    def run():
        paces = 0.5 * np.exp(0.3 * generator.standard_normal((12, 8)))
        return run_of(
            {
                f"schedule {k}": {
                    "trials": [trial(1 + k % 2, looks=4, pace=pace) for pace in row]
                }
                for k, row in enumerate(paces)
            }
        )

    codes = {0.0: [], 0.1: []}
    for _ in range(40):
        base, new = run(), run()
        for margin, told in codes.items():
            told.append(compare(base, new, margin=margin).exit_code)
    # 40 draws at 2.5% give 6 or more once in 1,600 suites of draws.
    for told in codes.values():
        assert told.count(1) <= 5
        assert set(told) <= {0, 1, 3}
