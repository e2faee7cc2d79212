"""Edges of a run: other targets, every trial diverged, a run beside itself."""

import math

import pytest

import batchramp
from batchramp.benchmark.compare import compare
from batchramp.benchmark.single_race import race_once
from batchramp.benchmark.suite import parse_suite
from batchramp.benchmark.tables import budget_table, race_table

SUITE = """
name = "edges"
workload = "digits"
epochs = 2
cadence = 0.25
seeds = 2
threads = 1

[[panel]]
baseline = "cosine"
targets = ["metric >= 0.8", "full_train_loss <= 0.5"]

[[panel.entry]]
label = "cosine"
schedule = "constant-cosine"
set = { lr = 0.5, batch_size = 32 }

[[panel.entry]]
label = "blown"
schedule = "constant"
set = { lr = 1e38, batch_size = 32 }

[[panel.entry]]
label = "adaptive"
schedule = "noise-scale"
set = { lr = 0.1, batch_size = 8, max_batch_size = 512 }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("edges")


@pytest.fixture(scope="module")
def results(folder):
    return batchramp.run(parse_suite(SUITE), out=folder)


def test_other_targets_need_no_new_run(results, folder):
    before = {file: file.stat().st_mtime_ns for file in folder.glob("trials/*")}
    fewer = SUITE.replace(', "full_train_loss <= 0.5"', "")
    others = SUITE.replace("0.5", "0.4").replace("lr = 0.4", "lr = 0.5")
    for text in (fewer, others):
        again = batchramp.run(parse_suite(text), out=folder)
        assert again.rows.equals(results.rows)
    after = {file: file.stat().st_mtime_ns for file in folder.glob("trials/*")}
    assert before == after


def test_a_run_beside_itself_passes_the_gate(results):
    found = compare(results, results)
    assert found.exit_code == 0, [row for row in found.rows if row.verdict != "equal"]
    verdicts = {row.verdict for row in found.rows if row.schedule == "blown"}
    assert verdicts <= {"equal", "not reached"}


def test_a_schedule_that_always_diverges_is_infinite_everywhere(results):
    (row,) = budget_table(results).filter(schedule="blown").to_dicts()
    assert (row["finished"], row["diverged"]) == (0, 2)
    assert row["full_train_loss"] == row["gradient_norm"] == math.inf
    races = race_table(results).filter(schedule="blown")
    assert races["updates"].to_list() == [math.inf, math.inf]
    assert races["reached"].to_list() == [0, 0]


def test_an_adaptive_schedule_differs_from_its_first_change_on(results):
    races = race_table(results).filter(schedule="adaptive")
    assert races["after_first_change"].null_count() == 0


def test_one_schedule_that_diverges_is_a_miss_of_every_seed(tmp_path):
    summary = race_once(
        "digits",
        "constant",
        target="metric >= 0.9",
        epochs=1,
        seeds=2,
        set={"lr": 1e38, "batch_size": 16},
        out=tmp_path,
        folder=tmp_path,
        threads=1,
    )
    assert summary.misses == 2
    assert summary.updates == (math.inf, math.inf)
    # None trained the whole budget, so there is nothing that a miss could count.
    assert summary.spent_updates == summary.spent_seconds == (math.inf, math.inf)


def test_batch_norm_is_refused_by_name(tmp_path):
    (tmp_path / "own.py").write_text(
        "from dataclasses import replace\n"
        "from torch import nn\n"
        "from batchramp.workloads import find_workload\n"
        "def model():\n"
        "    return nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 10))\n"
        "normed = replace(find_workload('digits'), name='normed', model=model)\n"
    )
    suite = tmp_path / "suite.toml"
    suite.write_text(SUITE.replace('"digits"', '"own.py:normed"'))
    results = batchramp.run(suite, out=tmp_path / "out", seeds=1)
    for metadata in results.metadata.values():
        assert metadata["status"] == "failed"
        assert "must have no batch norm" in metadata["error"]
        assert "BatchNorm1d at 0" in metadata["error"]
