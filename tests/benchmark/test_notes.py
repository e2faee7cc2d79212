import math
from dataclasses import replace

import pytest

from batchramp.benchmark.notes import MOST_NOTED, run_notes


def test_a_plain_run_has_none(run_of, trial):
    trials = [trial(2), trial(None), trial(None, status="diverged")]
    assert run_notes(run_of({"a": {"trials": trials}})) == ()
    assert run_notes(run_of({"a": {"trials": [], "seeds": 0}})) == ()


def test_missing_trials_are_counted(run_of, trial):
    failed = trial(None, status="failed", error="x")
    results = run_of(
        {
            "a": {"trials": [trial(2), failed, failed], "seeds": 4},
            "b": {"trials": [trial(2)], "seeds": 4},
        }
    )
    assert run_notes(results) == (
        "of 8 trials 2 failed and 4 not run: missing from the tables, and not counted",
    )


@pytest.mark.parametrize(
    ("others", "begin"), [(1, "1 trial file in"), (6, "6 trial files in")]
)
def test_trials_of_no_current_entry_are_counted(run_of, trial, others, begin):
    results = replace(run_of({"a": {"trials": [trial(2)]}}), others=others)
    (note,) = run_notes(results)
    assert note.startswith(begin)
    assert "no current entry" in note


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("jobs", "numbers of jobs"),
        ("cpu", "processors"),
        ("cores", "numbers of cores"),
        ("device", "devices"),
        ("threads", "threads"),
        ("platform", "systems"),
    ],
)
def test_a_median_of_different_clocks_is_named(run_of, trial, key, name):
    here, there = {key: "16"}, {key: "32"}
    results = run_of(
        {
            "a": {"trials": [trial(2, environment=here)] * 3},
            "b": {"trials": [trial(2, environment=here), trial(3, environment=there)]},
        }
    )
    assert (
        f"seconds are of different {name} (16 in 4 trials and 32 in 1 trial): "
        "the medians of 'b' mix them"
    ) in run_notes(results)


def test_schedules_of_different_clocks_are_named(run_of, trial):
    other = {"cpu": "another"}
    results = run_of(
        {
            "a": {"trials": [trial(2)] * 2},
            "b": {"trials": [trial(2)] * 2, "environment": other},
            "c": {"trials": [trial(2)] * 2, "panel": 1, "environment": other},
        }
    )
    (note,) = run_notes(results)
    assert note.startswith("panel 1: seconds are of different processors (")
    assert note.endswith("no median mixes them, but they differ between schedules")


def test_a_failed_trial_mixes_no_clocks(run_of, trial):
    other = {"cpu": "another", "jobs": "2", "load": "99"}
    elsewhere = trial(None, status="failed", environment=other)
    results = run_of({"a": {"trials": [trial(2), trial(2), elsewhere]}})
    assert run_notes(results) == run_notes(
        run_of({"a": {"trials": [trial(2), trial(2), trial(None, status="failed")]}})
    )


def test_several_jobs_are_said(run_of, trial):
    results = run_of({"a": {"trials": [trial(2)] * 4}}, environment={"jobs": "2"})
    (note,) = run_notes(results)
    assert note.startswith("4 trials ran 2 at a time: they disturb each other's clocks")


def test_a_busy_machine_is_said(run_of, trial):
    busy = trial(2, environment={"load": "3.20"})
    unknown = trial(2, environment={"load": "unknown"})
    results = run_of({"a": {"trials": [trial(2), busy, unknown]}})
    assert run_notes(results) == (
        "1 trial began on a busy machine (a load of up to 3.2 on 2 cores): its seconds "
        "may hold waiting",
    )


def test_a_metric_that_is_no_number_is_said(run_of, trial):
    lost = {"metric": [0.1, math.nan, math.nan, 0.95]}
    gone = {"metric": [0.1, 0.2, math.nan], "status": "diverged"}
    results = run_of({"a": {"trials": [lost, lost, trial(2)]}, "b": {"trials": [gone]}})
    (note,) = run_notes(results)
    assert note.startswith(
        "the metric was not a number for 'a' at 4 looks of 2 trials: such a look"
    )


def test_what_trials_noted_is_said_once(run_of, trial):
    results = run_of({"a": {"trials": [trial(2)] * 3}})
    for trial_id in ("a-0", "a-2"):
        results.metadata[trial_id]["notes"] = ["sharpness failed: no memory"]
    assert run_notes(results) == ("sharpness failed: no memory (2 trials)",)
    results.metadata["a-1"]["notes"] = [f"note {number}" for number in range(6)]
    told = run_notes(results)
    assert len(told) == MOST_NOTED + 1
    assert told[-1] == "3 more of what trials noted: in their metadata"
