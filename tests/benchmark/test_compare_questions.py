"""What two runs must have in common to be compared, and what is missing or other."""

import pytest

from batchramp.benchmark.compare import compare

LOOKS = [2, 3, 4, 2, 3, 4, 4, 3]


def rows_of(comparison, schedule="a"):
    return {row.quantity: row for row in comparison.rows if row.schedule == schedule}


def texts(comparison, code):
    return [note.text for note in comparison.notes if note.code == code]


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


def test_trials_of_one_identity_that_do_not_repeat_are_named(run_of, trial):
    trials = [trial(look) for look in LOOKS]
    base = run_of({"a": {"trials": trials}})
    trials[2] = {**trials[2], "metric": [0.1, 0.1, 0.1, 0.95, 0.95, 0.95, 0.94]}
    comparison = compare(base, run_of({"a": {"trials": trials}}), only=["metric"])
    assert texts(comparison, 0) == ["a: seed 2: another metric from the same identity"]
    other = run_of({"a": {"trials": trials}}, identity={"torch": "2.14.0"})
    (note,) = texts(compare(base, other), 0)
    assert note.startswith("torch")
