import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import batchramp
from batchramp.benchmark.compare import compare, read_side
from batchramp.benchmark.comparison import QUANTITIES, Comparison, Note
from batchramp.benchmark.comparison_rows import ONE_RUN
from batchramp.benchmark.statistics import holm
from batchramp.benchmark.suite import parse_suite

INF = math.inf
LOOKS = [2, 3, 4, 2, 3, 4, 4, 3]


def rows_of(comparison, schedule="a"):
    return {row.quantity: row for row in comparison.rows if row.schedule == schedule}


def texts(comparison, code):
    return [note.text for note in comparison.notes if note.code == code]


@pytest.fixture
def side(run_of, trial):
    """A run of schedule `a` whose trials pass at the given looks; ids by `name`."""

    def build(name, looks=LOOKS, *, pace=0.5, workload="digits", **schedule):
        paces = pace if isinstance(pace, list) else [pace] * len(looks)
        trials = [
            trial(look, id=f"{name}-{seed}", pace=paces[seed] * (1 + 0.01 * seed))
            for seed, look in enumerate(looks)
        ]
        outer = {
            key: schedule.pop(key)
            for key in ("identity", "environment", "targets")
            if key in schedule
        }
        return run_of({"a": {"trials": trials, **schedule}}, workload=workload, **outer)

    return build


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


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("workload", "cifar10", "workload is digits in base, cifar10 in new"),
        ("workload_asked", "net", "workload_asked is digits in base, net in new"),
        ("schedule", "other", "schedule is constant in base, other in new"),
        ("schedule_asked", "own", "schedule_asked is constant in base, own in new"),
        ("set", {"lr": 0.2}, "set.lr is 0.1 in base, 0.2 in new"),
        (
            "parameters",
            {"lr": 0.1, "batch_size": 20},
            "parameters.batch_size is 10 in base, 20 in new",
        ),
        ("data", "f" * 64, "data is digest of 0 in base, ffffffffffff in new"),
        ("epochs", "7", "epochs is 6 in base, 7 in new"),
        ("boundary", "wrap", "boundary is keep in base, wrap in new"),
        ("cadence", "1/2", "cadence is 1 in base, 1/2 in new"),
        ("weight_decay", 0.1, "weight_decay is 0.0 in base, 0.1 in new"),
        ("nesterov", True, "nesterov is false in base, true in new"),
        ("micro_batch", 8, "micro_batch is null in base, 8 in new"),
    ],
)
def test_another_question_is_not_compared(side, key, value, told):
    # Slower throughout, and with another plan: none of it may be told as a loss.
    slower = [look + 1 for look in LOOKS]
    new = side("y", slower, planned_updates=90, identity={key: value})
    comparison = compare(side("x"), new)
    assert comparison.exit_code == 3
    assert {row.verdict for row in comparison.rows} == {"undecided"}
    assert {row.pairs for row in comparison.rows} == {0}
    (note,) = texts(comparison, 3)
    assert note.startswith(told)


def test_a_seed_of_other_data_drops_its_pair(run_of, trial):
    trials = [trial(look) for look in LOOKS]
    base = run_of({"a": {"trials": trials}})
    trials[2] = trial(6, identity={"data": "another"})
    comparison = compare(base, run_of({"a": {"trials": trials}}))
    row = rows_of(comparison)["updates"]
    assert (row.verdict, row.pairs, row.seeds) == ("equal", 7, 8)
    assert texts(comparison, 3) == [
        "data is digest of 2 in base, another in new (seed 2)"
    ]
    assert comparison.exit_code == 3


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("torch", "2.14.0"),
        ("cpu_capability", "AVX512"),
        ("workload_sources", {"net": "a" * 64}),
        ("schedule_sources", {"": "a" * 64}),
        ("extra_sources", {"more.py": "a" * 64}),
        ("batchramp", "other"),
        ("optimizer", "another sgd"),
        ("torch_settings", {"tf32": True}),
        ("measures", {"full_train_loss": "1", "variance": "1"}),
        ("what_comes_later", 1),
    ],
)
def test_other_code_is_said_and_learning_compared(side, key, value):
    comparison = compare(side("x"), side("y", identity={key: value}))
    assert comparison.exit_code == 0
    (note,) = texts(comparison, 0)
    assert note.startswith(key)
    slower = side("y", [look + 1 for look in LOOKS], identity={key: value})
    assert compare(side("x"), slower).exit_code == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"identity": {"threads": 1}}, "threads"),
        ({"identity": {"device": "H100"}}, "device"),
        ({"environment": {"jobs": "2"}}, "jobs"),
        ({"environment": {"cpu": "another"}}, "cpu"),
        ({"environment": {"cores": "64", "cpu": "another"}}, "cpu, cores"),
    ],
)
def test_another_clock_leaves_learning_only(side, change, told):
    new = side("y", pace=5.0, **change)
    comparison = compare(side("x"), new)
    rows = rows_of(comparison)
    for name in ("train_seconds", "total_train_seconds"):
        assert (rows[name].verdict, rows[name].low) == ("undecided", None)
        assert rows[name].note == f"not compared: other {told}"
    assert rows["updates"].verdict == rows["metric"].verdict == "equal"
    assert comparison.exit_code == 3
    assert compare(side("x"), new, only=["updates", "metric"]).exit_code == 0


def test_seconds_are_not_compared_where_one_trial_ran_elsewhere(run_of, trial):
    trials = [trial(look) for look in LOOKS]
    base = run_of({"a": {"trials": trials}})
    trials[3] = trial(2, environment={"jobs": "2"})
    row = rows_of(compare(base, run_of({"a": {"trials": trials}})))["train_seconds"]
    assert (row.verdict, row.note) == ("undecided", "not compared: other jobs")


def test_a_target_on_a_loss_that_was_measured_elsewhere_is_not_compared(run_of):
    losses = [1.0, 0.5, 0.1, 0.1, 0.1]
    trials = [{"metric": [0.95] * 5, "loss": losses} for _ in LOOKS]
    targets = ["full_train_loss <= 0.2"]
    base = run_of({"a": {"trials": trials}}, targets=targets)
    other = {"measures": {"full_train_loss": "2"}}
    new = run_of({"a": {"trials": trials}}, targets=targets, identity=other)
    comparison = compare(base, new)
    row = rows_of(comparison)["updates"]
    assert row.note == "no pair: full_train_loss was measured at other looks"
    assert (row.verdict, comparison.exit_code) == ("undecided", 3)
    assert rows_of(comparison)["metric"].verdict == "equal"
    same = compare(base, run_of({"a": {"trials": trials}}, targets=targets))
    assert rows_of(same)["updates"].verdict == "equal"


def test_a_crash_fails_the_gate_and_drops_its_pair(run_of, trial):
    trials = [trial(look) for look in LOOKS]
    base = run_of({"a": {"trials": trials}})
    trials[3] = {**trials[3], "status": "failed", "error": "KeyError: 'x' (w.py:2)"}
    trials[5] = {**trials[5], "status": "failed", "error": "KeyError: 'y' (w.py:2)"}
    comparison = compare(base, run_of({"a": {"trials": trials}}))
    assert comparison.exit_code == 1
    assert texts(comparison, 1) == [
        "a: 2 of 8 trials failed in new (seeds 3 and 5): KeyError: 'x' (w.py:2), "
        "and 1 other errors"
    ]
    row = rows_of(comparison)["updates"]
    assert (row.verdict, row.pairs, row.seeds) == ("equal", 6, 8)
    # In the base alone it is said, and only its pair is missing.
    back = compare(run_of({"a": {"trials": trials}}), base)
    assert back.exit_code == 0
    assert texts(back, 0)[0].startswith("a: 2 of 8 trials failed in base")


def test_a_crash_wins_over_what_cannot_be_told(run_of, trial):
    base = run_of({"a": {"trials": [trial(2)] * 8}, "b": {"trials": [trial(2)] * 8}})
    crashed = {"trials": [trial(2, status="failed", error="boom")] * 8}
    comparison = compare(base, run_of({"a": crashed}))
    assert comparison.exit_code == 1
    assert texts(comparison, 3)[0] == "b: not in new"
    assert rows_of(comparison)["updates"].note == "no pair"
    only_new = run_of({"a": {"trials": [trial(2)] * 8}, "c": crashed})
    assert compare(run_of({"a": {"trials": [trial(2)] * 8}}), only_new).exit_code == 1


def test_seeds_that_were_not_run_are_named(run_of, trial):
    trials = [trial(look) for look in LOOKS]
    base = run_of({"a": {"trials": trials}})
    fewer = compare(base, run_of({"a": {"trials": trials[:5]}}))
    assert fewer.exit_code == 3
    assert texts(fewer, 3) == ["a: seeds 5, 6 and 7 not in new"]
    assert rows_of(fewer)["updates"].pairs == 5
    unfinished = run_of({"a": {"trials": trials, "seeds": 12}})
    told = compare(base, unfinished)
    assert texts(told, 3) == ["a: 4 of 12 seeds not run in new"]
    # A base that was asked for fewer is whole.
    back = compare(run_of({"a": {"trials": trials[:5]}}), base)
    assert back.exit_code == 0
    assert texts(back, 0) == ["a: seeds 5, 6 and 7 not in base"]


def test_an_interrupted_base_decides_nothing(run_of, trial):
    trials = [trial(2) for _ in range(12)]
    whole = run_of({"a": {"trials": trials}})
    stopped = run_of({"a": {"trials": trials[:5], "seeds": 12}})
    comparison = compare(stopped, whole)
    assert comparison.exit_code == 3
    assert texts(comparison, 3) == ["a: seeds 5, 6, 7, 8, 9, 10 and 11 not in base"]
    part = compare(stopped, run_of({"a": {"trials": trials[:8]}}))
    assert texts(part, 3) == [
        "a: seeds 5, 6 and 7 not in base",
        "a: 7 of 12 seeds not run in base",
    ]
    # Neither side got to them, and nothing else differs.
    both = compare(stopped, stopped)
    assert both.exit_code == 3


def test_a_run_without_a_trial_has_no_pair(run_of, trial):
    base = run_of({"a": {"trials": [trial(look) for look in LOOKS]}})
    nothing = run_of({"a": {"trials": [], "seeds": 8}})
    comparison = compare(base, nothing)
    assert (comparison.exit_code, rows_of(comparison)["updates"].note) == (3, "no pair")


def test_a_schedule_that_is_gone_is_named(run_of, trial):
    entry = {"trials": [trial(look) for look in LOOKS]}
    both, one = run_of({"a": entry, "b": entry}), run_of({"a": entry})
    gone = compare(both, one)
    assert (gone.exit_code, texts(gone, 3)) == (3, ["b: not in new"])
    assert {row.schedule for row in gone.rows} == {"a"}
    added = compare(one, both)
    assert (added.exit_code, texts(added, 0)) == (0, ["b: not in base"])
    nothing = compare(one, run_of({"b": entry}))
    assert nothing.exit_code == 3
    assert texts(nothing, 3) == [
        "a: not in new",
        "there is no schedule that all runs have",
    ]


def test_a_target_that_is_gone_is_named(side):
    base = side("x", targets=["metric >= 0.9", "metric >= 0.5"])
    same = compare(base, side("y", targets=["metric >= 0.50", "metric >= 0.900"]))
    assert same.exit_code == 0
    assert len([row for row in same.rows if row.quantity == "updates"]) == 2
    easier = compare(base, side("y", targets=["metric >= 0.5", "metric >= 0.7"]))
    assert easier.exit_code == 3
    assert texts(easier, 3) == ["a: target metric >= 0.9 not in new"]
    assert texts(easier, 0) == ["a: target metric >= 0.7 not in base"]
    assert compare(base, side("y"), only=["metric"]).exit_code == 0
    other = compare(side("x"), side("y", targets=["metric >= 0.7"]), only=["updates"])
    assert "a: nothing to look at, as the sides share no target" in texts(other, 3)


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


def test_several_runs_a_side_make_the_run_the_unit(side):
    generator = np.random.default_rng(4)

    def runs(name, pace, count=3):
        return [
            side(f"{name}{k}", pace=pace * math.exp(0.02 * generator.standard_normal()))
            for k in range(count)
        ]

    slower = compare(runs("x", 0.5), runs("y", 0.8, 4))
    row = rows_of(slower)["train_seconds"]
    assert (row.verdict, row.note) == ("slower", "")
    assert row.low < 1.6 < row.high
    assert (slower.base_runs, slower.new_runs) == (3, 4)
    assert rows_of(slower)["updates"].verdict == "equal"
    assert compare(runs("x", 0.5), runs("y", 0.5)).exit_code == 0


def test_the_runs_of_a_side_must_repeat_their_learning(side):
    other = [3, *LOOKS[1:]]
    base = [side("x"), side("y", other), side("z")]
    comparison = compare(base, [side(name) for name in "uvw"])
    row = rows_of(comparison)["updates"]
    assert row.verdict == "undecided"
    assert row.note == "the runs of base differ on 1 of 8 seeds"
    assert comparison.exit_code == 3
    asked = [side("x"), side("y", identity={"cadence": "2"}), side("z")]
    told = compare(asked, [side(name) for name in "uvw"])
    assert texts(told, 3) == ["cadence is 1 in base, 2 in base 2"]
    newer = [side(name, identity={"torch": "2.16.0"}) for name in "uvw"]
    told = compare([side(name) for name in "xyz"], newer)
    assert texts(told, 0) == ["torch is 2.15.0 in base, 2.16.0 in new, new 2 and new 3"]


def test_a_target_reached_in_some_runs_has_no_mean_of_seconds(side):
    partly = [side("u"), side("v"), side("w", [*LOOKS[:7], None])]
    row = rows_of(compare([side(name) for name in "xyz"], partly))["train_seconds"]
    assert row.verdict == "undecided"
    assert row.note == "1 of 8 seeds: reached in some runs only"
    assert (row.base_reached, row.base_trials) == (24, 24)
    assert (row.new_reached, row.new_trials) == (23, 24)


def test_a_trial_that_diverged_in_some_runs_has_no_mean_of_seconds(run_of, trial):
    def build(name, diverged=()):
        trials = [
            trial(
                look,
                id=f"{name}-{seed}",
                status="diverged" if seed in diverged else "finished",
            )
            for seed, look in enumerate(LOOKS)
        ]
        return run_of({"a": {"trials": trials}})

    base = [build(name) for name in "xyz"]
    comparison = compare(base, [build("u"), build("v"), build("w", [2])])
    row = rows_of(comparison)["total_train_seconds"]
    assert row.note == "1 of 8 seeds: diverged in some runs only"
    assert row.verdict == "undecided"
    gone = [build(name, range(8)) for name in "uvw"]
    row = rows_of(compare(gone, [build(name, range(8)) for name in "rst"]))
    assert row["total_train_seconds"].note == "diverged on both sides"


def copied(results):
    """The results, as a copy of their folder would be read."""
    return replace(results, rows=results.rows.clone())


def test_a_copy_of_a_run_is_no_run_of_its_own(side):
    runs = [side(name) for name in "uvwxyz"]
    told = r"runs must be measured by themselves, got base 2 and base 3 with 8 of 8"
    with pytest.raises(ValueError, match=told):
        compare([runs[0], runs[1], copied(runs[1])], runs[3:])
    with pytest.raises(ValueError, match="got base and new 3 with 8 of 8 trials equal"):
        compare(runs[:3], [*runs[3:5], copied(runs[0])])
    with pytest.raises(ValueError, match="got base and base 2"):
        compare([runs[0]] * 3, runs[3:])
    # A folder that was copied half way, and went on by itself.
    shared, own = runs[1].rows, runs[0].rows
    parts = [shared.filter(pl.col("seed") < 2), own.filter(pl.col("seed") >= 2)]
    mixed = replace(
        runs[0],
        rows=pl.concat(parts),
        metadata={**runs[0].metadata, **runs[1].metadata},
    )
    with pytest.raises(ValueError, match="got base and base 2 with 2 of 8 trials"):
        compare([mixed, *runs[1:3]], runs[3:])
    assert compare(runs[0], copied(runs[0])).exit_code == 0
    assert compare(runs[:3], runs[3:]).exit_code == 0


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


def test_of_several_runs_a_row_is_of_all_and_names_what_one_lost(side):
    base = [side(name) for name in "xyz"]
    new = [side("u"), side("v", LOOKS[:5]), side("w")]
    row = rows_of(compare(base, new))["updates"]
    assert (row.verdict, row.pairs, row.seeds) == ("equal", 5, 8)
    assert (row.base_trials, row.new_trials) == (15, 15)
    assert row.note == "new 2 has 5 of 8 seeds"
    # Runs that differ: the column is their mean, not the first one's.
    other = [side("u", [2] * 8), side("v", [4] * 8), side("w", [4] * 8)]
    row = rows_of(compare(base, other))["updates"]
    assert row.new == pytest.approx((20 * 40 * 40) ** (1 / 3))
    assert row.note == "the runs of new differ on 8 of 8 seeds"


def test_trials_of_one_identity_that_do_not_repeat_are_named(run_of, trial):
    trials = [trial(look) for look in LOOKS]
    base = run_of({"a": {"trials": trials}})
    trials[2] = {**trials[2], "metric": [0.1, 0.1, 0.1, 0.95, 0.95, 0.95, 0.94]}
    comparison = compare(base, run_of({"a": {"trials": trials}}), only=["metric"])
    assert texts(comparison, 0) == ["a: seed 2: another metric from the same identity"]
    other = run_of({"a": {"trials": trials}}, identity={"torch": "2.14.0"})
    (note,) = texts(compare(base, other), 0)
    assert note.startswith("torch")


def test_one_run_a_side_or_at_least_three(side):
    runs = [side(name) for name in "uvwxyz"]
    for base, new in ((runs[:2], runs[2:4]), (runs[:3], runs[3]), ([], runs[0])):
        with pytest.raises(ValueError, match="one run a side, or at least 3 on each"):
            compare(base, new)


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


SUITE = """
name = "gate"
workload = "digits"
epochs = 1
cadence = 0.25
seeds = 3
threads = 1

[[panel]]
baseline = "a"
targets = ["metric >= 0.5"]

[[panel.entry]]
label = "a"
schedule = "constant-cosine"
set = { lr = 0.5, batch_size = 32 }
"""


def test_real_runs_repeat_their_learning(tmp_path):
    folders = [tmp_path / "base", tmp_path / "x, y"]
    base, new = (batchramp.run(parse_suite(SUITE), out=folder) for folder in folders)
    comparison = compare(base, new, only=["planned_updates", "updates", "metric"])
    assert comparison.exit_code == 0
    assert {row.verdict for row in comparison.rows} == {"equal"}
    assert {row.pairs for row in comparison.rows} == {3}
    assert [note.code for note in comparison.notes if note.code] == []
    other = parse_suite(SUITE.replace("lr = 0.5", "lr = 0.4"))
    changed = compare(base, batchramp.run(other, out=tmp_path / "other"))
    assert changed.exit_code == 3
    assert "set.lr is 0.5 in base, 0.4 in new" in texts(changed, 3)
    # A folder's name may hold a comma; where there is none of that name, several do.
    assert [read.rows.height for read in read_side(str(folders[1]))] == [
        new.rows.height
    ]
    several = read_side(f"{folders[0]},{tmp_path / 'other'}")
    assert [read.rows.height for read in several] == [base.rows.height] * 2
    with pytest.raises(
        ValueError, match=r"runs of a side must differ, got .*base twice"
    ):
        read_side(f"{folders[0]},{folders[0]}/")
    with pytest.raises(ValueError, match="folders with commas between, got"):
        read_side(f"{folders[0]},")


WORKLOAD = """
from torch import Generator, nn, randn
from batchramp.workloads import Data, Split, Workload

def load(data_dir, seed):
    inputs = randn(300, 2, generator=Generator().manual_seed(seed % 2**63))
    targets = (inputs.norm(dim=1) > 1.2).long()
    return Data(Split(inputs[:200], targets[:200]), Split(inputs[200:], targets[200:]))

def model():
    return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))

own = Workload(name="own", load=load, model=model, targets=("metric >= 0.7",))
"""


def test_an_added_comment_changes_every_id_and_no_update(tmp_path):
    (tmp_path / "suite.toml").write_text(SUITE.replace('"digits"', '"own.py:own"'))
    sides = []
    for name, comment in (("base", ""), ("new", "# a comment\n")):
        (tmp_path / "own.py").write_text(comment + WORKLOAD)
        sides.append(batchramp.run(tmp_path / "suite.toml", out=tmp_path / name))
    assert not set(sides[0].metadata) & set(sides[1].metadata)
    comparison = compare(*sides, only=["updates", "samples", "metric"])
    assert {row.verdict for row in comparison.rows} == {"equal"}
    assert comparison.exit_code == 0
    assert any(
        "workload_sources.the file itself" in text for text in texts(comparison, 0)
    )
