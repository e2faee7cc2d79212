import math
import subprocess
import sys

import polars as pl
import pytest

from batchramp.benchmark import tables
from batchramp.benchmark.passages import AXES, passages

INF = math.inf
NAN = math.nan


def only(frame):
    assert frame.height == 1
    return frame.row(0, named=True)


def test_a_passage_is_the_first_of_two_consecutive_looks(run_of):
    lucky = {"metric": [0.1, 0.95, 0.2, 0.91, 0.9, 0.1, 0.1]}
    row = only(passages(run_of({"a": {"trials": [lucky]}})))
    assert row["reached"]
    assert (row["updates"], row["samples"], row["position"]) == (30, 300, 300)
    assert (row["epoch"], row["train_seconds"], row["total_seconds"]) == (3, 15, 21)
    assert row["previous_position"] == 200
    assert (row["single_updates"], row["single_train_seconds"]) == (10, 5)


def test_a_target_first_met_at_the_last_look_is_a_miss(run_of, trial):
    row = only(passages(run_of({"a": {"trials": [trial(6)]}})))
    assert not row["reached"]
    assert [row[axis] for axis in AXES] == [INF] * 6
    assert row["previous_position"] is None
    assert row["single_updates"] == 60


def test_looks_that_did_not_measure_the_column_do_not_interrupt(run_of):
    loss = [1.0, None, 0.5, None, 0.01, None, 0.01]
    results = run_of(
        {"a": {"trials": [{"metric": [0.1] * 7, "loss": loss}]}},
        targets=["full_train_loss <= 0.02"],
    )
    row = only(passages(results))
    assert (row["updates"], row["previous_position"]) == (40, 200)


def test_a_diverged_trial_misses_unless_it_got_there_before(run_of):
    diverged = {"status": "diverged"}
    results = run_of(
        {
            "a": {
                "trials": [
                    {"metric": [0.1, 0.95, 0.95, NAN], **diverged},
                    {"metric": [0.1, 0.1, 0.95, NAN], **diverged},
                    {"metric": [0.1, NAN, NAN], **diverged},
                    {"metric": [0.1, NAN], **diverged},
                ]
            }
        }
    )
    assert passages(results)["updates"].to_list() == [10, INF, INF, INF]


def test_nan_never_meets_a_target(run_of):
    results = run_of({"a": {"trials": [{"metric": [NAN] * 4}]}})
    assert not only(passages(results))["reached"]


def test_a_failed_trial_is_missing_and_not_a_miss(run_of, trial):
    results = run_of(
        {"a": {"trials": [trial(2), trial(4, status="failed"), trial(3)], "seeds": 5}}
    )
    row = only(tables.race_table(results))
    assert (row["trials"], row["reached"], row["missing"]) == (2, 2, 3)
    assert row["updates"] == 25


def test_what_was_not_measured_is_not_a_miss(run_of, trial):
    ends_only = trial(1, loss=[1.0, *[None] * 5, 0.01])
    results = run_of(
        {"a": {"trials": [ends_only] * 2}}, targets=["full_train_loss <= 0.02"]
    )
    row = only(tables.race_table(results))
    assert (row["trials"], row["updates"]) == (0, None)
    assert row["verdict_note"] == "not measured"


def test_the_race_by_hand(run_of, trial):
    results = run_of(
        {
            "base": {"trials": [trial(k) for k in (2, 2, 3, 3, 4, 4)]},
            "half": {
                "trials": [trial(k) for k in (2, 2, 3, 3, 4, 4)],
                "updates_per_look": 5,
                "tuning": "paper defaults",
            },
            "partly": {"trials": [trial(k) for k in (2, 3, 4, 5, None, None)]},
            "never": {"trials": [trial(None)] * 6},
        }
    )
    base, half, partly, never = tables.race_table(results).to_dicts()
    assert (base["reached"], base["trials"], base["is_baseline"]) == (6, 6, True)
    assert (base["updates"], base["updates_low"], base["updates_high"]) == (30, 20, 40)
    assert (base["train_seconds"], base["samples"], base["epoch"]) == (15, 300, 3)
    assert (base["level"], base["interval_kind"]) == (1 - 2 / 64, "order")
    assert base["speedup_updates"] is None
    assert base["p_updates"] is None

    assert half["updates"] == 15
    assert (half["speedup_updates"], half["speedup_seconds"]) == (2, 2)
    assert half["speedup_updates_low"] < 2 < half["speedup_updates_high"]
    assert half["speedup_level"] == 0.95
    assert half["tuning"] == "paper defaults"
    # 10, 10 and 15, 15 against 20, 20, 30, 30, 40, 40, and 20, 20, which tie with two.
    assert half["superiority_updates"] == (4 * 6 + 2 * (4 + 2 * 0.5)) / 36

    assert (partly["reached"], partly["updates"]) == (4, 45)
    assert partly["updates_high"] == INF
    assert partly["speedup_updates"] == pytest.approx(30 / 45)
    assert (never["reached"], never["updates"], never["updates_low"]) == (0, INF, INF)
    assert (never["speedup_updates"], never["speedup_updates_high"]) == (0, 0)
    # Complete separation, two-sided: 2 of C(12, 6) splits, first of Holm's three.
    assert never["p_updates"] == pytest.approx(3 * 2 / 924)


@pytest.mark.parametrize(
    ("first_change", "share", "note"),
    [
        (None, None, ""),
        (199, 1.0, ""),
        (200, 0.8, ""),  # at the change itself the trajectories are still the same
        (300, 0.6, "not yet different"),
        (10_000, 0.2, "not yet different"),  # a miss is past everything
    ],
)
def test_a_race_that_ends_before_the_first_change(
    run_of, trial, first_change, share, note
):
    results = run_of(
        {
            "base": {"trials": [trial(k) for k in (2, 3, 4, 5, None)]},
            "later": {"trials": [trial(4)] * 5, "first_change": first_change},
        }
    )
    base, later = tables.race_table(results).to_dicts()
    assert (later["after_first_change"], later["verdict_note"]) == (share, note)
    assert (base["after_first_change"], base["verdict_note"]) == (None, "")


def test_panels_and_own_baselines_stay_apart(run_of, trial):
    results = run_of(
        {
            "a": {"trials": [trial(2)] * 5},
            "b": {"trials": [trial(4)] * 5, "baseline": "b", "panel": 1},
            "c": {
                "trials": [trial(2)] * 5,
                "baseline": "b",
                "panel": 1,
                "targets": ["metric >= 0.9", "metric>=0.99", "metric >= 0.9"],
            },
        }
    )
    table = tables.race_table(results)
    assert table["schedule"].to_list() == ["a", "b", "c", "c"]
    assert table["target"].to_list()[2:] == ["metric >= 0.9", "metric >= 0.99"]
    assert table["speedup_updates"].to_list() == [None, None, 2.0, None]


def test_the_budget_by_hand(run_of):
    def ends(metric, loss, norm, **others):
        return {
            "metric": [0.1, 0.5, metric],
            "loss": [2.0, None, loss],
            "norm": [2.0, norm, None],
            **others,
        }

    results = run_of(
        {
            "base": {
                "trials": [ends(0.8, 0.1, 0.4), ends(0.9, 0.3, 0.2)],
                "planned_updates": None,
            },
            "other": {
                "trials": [
                    ends(0.9, 0.1, 0.5),
                    ends(0.7, 0.3, 0.3),
                    ends(NAN, NAN, 0.1, status="diverged"),
                    ends(0.99, 0.01, 0.1, status="failed"),
                ],
                "seeds": 6,
            },
        }
    )
    base, other = tables.budget_table(results).to_dicts()
    assert (base["planned_updates"], other["planned_updates"]) == (None, 60)
    assert base["metric"] == pytest.approx(0.85)
    assert base["metric_difference"] is None
    statuses = [other[name] for name in ("finished", "diverged", "failed", "missing")]
    assert statuses == [2, 1, 1, 3]
    assert (other["metric_trials"], other["metric"]) == (2, pytest.approx(0.8))
    assert other["metric_deviation"] == pytest.approx(math.sqrt(0.02))
    assert other["metric_low"] == pytest.approx(0.8 - 12.706204736432095 * 0.1)
    assert other["metric_difference"] == pytest.approx(-0.05)
    assert (other["full_train_loss"], other["full_train_loss_high"]) == (0.3, INF)
    norms = [other[f"gradient_norm{end}"] for end in ("", "_low", "_high")]
    assert norms == [0.5, 0.3, INF]
    assert (other["updates"], other["samples"], other["epoch"]) == (20, 200, 2)
    assert (other["train_seconds"], other["total_seconds"]) == (10, 14)
    assert (other["evaluation_seconds"], other["compile_seconds"]) == (2, 3)


def test_what_was_never_measured_stays_empty(run_of, trial):
    row = only(tables.budget_table(run_of({"a": {"trials": [trial(2)]}})))
    assert (row["full_train_loss"], row["gradient_norm"]) == (None, None)


def test_a_schedule_without_trials_keeps_its_rows(run_of, trial):
    results = run_of({"a": {"trials": [trial(2)] * 5}, "b": {"trials": [], "seeds": 5}})
    row = tables.race_table(results).row(1, named=True)
    assert (row["trials"], row["missing"], row["updates"]) == (0, 5, None)
    assert row["verdict_note"] == ""
    assert tables.budget_table(results).row(1, named=True)["missing"] == 5


def test_without_targets_there_is_no_race(run_of, trial):
    results = run_of({"a": {"trials": [trial(2)]}}, targets=[])
    assert passages(results).is_empty()
    assert tables.race_table(results).is_empty()
    assert tables.control_table(results).is_empty()
    assert tables.budget_table(results).height == 1


def test_the_control_halves_the_seeds_by_turns(run_of, trial):
    results = run_of(
        {
            "base": {"trials": [trial(k) for k in (4, 2, 4, 2, 5)]},
            "other": {"trials": [trial(2)] * 5},
        }
    )
    control = tables.control_table(results)
    assert control["quantity"].to_list() == ["updates", "train_seconds"]
    row = control.row(0, named=True)
    assert (row["baseline"], row["first"], row["second"]) == ("base", 3, 2)
    assert row["ratio"] == pytest.approx((40 * 40 * 50) ** (1 / 3) / 20)
    assert row["method"] == "means"
    assert row["low"] < row["ratio"] < row["high"]
    assert row["detectable_ratio"] > 1


def test_order_of_rows_and_trials_does_not_matter(run_of, trial):
    results = run_of(
        {
            "base": {"trials": [trial(k) for k in (4, 2, 4, 2, 5)]},
            "other": {"trials": [trial(k) for k in (3, 2, None, 2, 5)]},
        }
    )
    shuffled = type(results)(
        rows=results.rows.sample(fraction=1, shuffle=True, seed=1),
        entries=results.entries,
        suite=results.suite,
        metadata=results.metadata,
    )
    for table in (passages, tables.race_table, tables.budget_table):
        assert table(results).equals(table(shuffled))
    assert isinstance(passages(results), pl.DataFrame)


def test_tables_need_no_torch():
    code = (
        "import sys; import batchramp.benchmark.report, batchramp.benchmark.render, "
        "batchramp.benchmark.compare; "
        "print([m for m in ('torch', 'scipy', 'matplotlib', 'jinja2') "
        "if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
