import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from polars.testing import assert_frame_equal

import batchramp
from batchramp.benchmark.results import read_results, write_suite
from batchramp.benchmark.trial_files import trial_file
from batchramp.cli import main

SUITE = """\
name = "tiny"
workload = "digits"
epochs = 1
cadence = 0.5
seeds = 2
threads = 1
[[panel]]
baseline = "still"
targets = ["metric >= 0.5"]
[[panel.entry]]
label = "still"
schedule = "constant"
set = { lr = 0.1, batch_size = 64 }
[[panel.entry]]
label = "growing"
schedule = "smith-increase"
set = { lr = 0.1, batch_size = 32, max_batch_size = 256 }
"""

WAITING = '''
import os, time
from pathlib import Path
import torch
from torch import nn
from batchramp.workloads import Workload
from batchramp.workloads.digits import WORKLOAD as DIGITS
from batchramp.workloads.digits import load

HERE = Path(__file__).parent
trials = []

class Net(nn.Module):
    """In the middle of a process's second trial it waits for as long as it is held."""

    def __init__(self):
        super().__init__()
        self.layers, self.updates = DIGITS.model(), 0

    def forward(self, inputs):
        if self.training and torch.is_grad_enabled():
            self.updates += 1
            if self.updates == 8:  # more than what is tried before a trial
                trials.append(self)
                self.wait()
        return self.layers(inputs)

    def wait(self):
        if len(trials) == 3 and (HERE / "dry").exists():
            raise RuntimeError("out of ink")
        if len(trials) == 2 and (HERE / "hold").exists():
            (HERE / f"waits {os.getpid()}").touch()
            while (HERE / "hold").exists():
                time.sleep(0.02)

WORKLOAD = Workload(name="waiting", load=load, model=Net)
'''


def files(folder):
    """Of every trial's file, what tells whether it was written again."""
    trials = (folder / "trials").glob("*.parquet")
    return {path.name: path.stat().st_mtime_ns for path in trials}


def rows(folder):
    found = read_results(folder).rows
    return found.drop(name for name in found.columns if name.endswith("_seconds"))


@pytest.fixture
def race(tmp_path):
    """Runs a suite's text into one folder, and returns the results."""

    def run(text, **arguments):
        (tmp_path / "tiny.toml").write_text(text)
        return batchramp.run(tmp_path / "tiny.toml", out=tmp_path / "out", **arguments)

    return run


def test_run_again_nothing_is_trained_again(race, tmp_path):
    first = race(SUITE)
    kept = files(tmp_path / "out")
    assert len(kept) == 4
    assert race(SUITE).rows.equals(first.rows)
    assert files(tmp_path / "out") == kept


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"still"', '"calm"'),
        ('"metric >= 0.5"', '"metric >= 0.6", "train_loss <= 1"'),
        ('name = "tiny"', 'name = "other"'),
        ("[[panel]]", '[[panel]]\ntitle = "A question"'),
        ("epochs = 1", "epochs = 1.0"),
    ],
)
def test_what_only_tells_and_scores_needs_no_new_trial(race, tmp_path, old, new):
    race(SUITE)
    kept = files(tmp_path / "out")
    results = race(SUITE.replace(old, new))
    assert files(tmp_path / "out") == kept
    assert results.rows["trial"].n_unique() == 4
    if "calm" in new:
        assert set(results.rows["schedule"]) == {"calm", "growing"}
    if "train_loss" in new:
        assert len(results.entries["targets"][0]) == 2


def test_more_seeds_add_trials(race, tmp_path):
    race(SUITE)
    kept = files(tmp_path / "out")
    more = race(SUITE, seeds=3)
    found = files(tmp_path / "out")
    assert len(found) == 6
    assert {name: found[name] for name in kept} == kept
    assert more.rows.filter(seed=2)["trial"].n_unique() == 2


def test_an_edited_file_of_ones_own_makes_other_trials(race, tmp_path):
    suite = SUITE.replace("digits", "own.py:mine")
    own = (
        "from batchramp.workloads import Workload, cross_entropy\n"
        "from batchramp.workloads.digits import WORKLOAD, load\n"
        "def loss(outputs, targets): return 1 * cross_entropy(outputs, targets)\n"
        "mine = Workload(name='mine', load=load, model=WORKLOAD.model, loss=loss)\n"
    )
    (tmp_path / "own.py").write_text(own)
    before = race(suite)
    # Of the same length, and in the same second.
    (tmp_path / "own.py").write_text(own.replace("return 1", "return 2"))
    after = race(suite)
    assert len(files(tmp_path / "out")) == 8
    assert set(before.rows["trial"]).isdisjoint(after.rows["trial"])
    assert after.rows["trial"].n_unique() == 4
    losses = [
        found.rows.filter(position=1297)["full_train_loss"] for found in (before, after)
    ]
    assert (losses[1] > losses[0]).all()


def test_a_failed_trial_is_tried_again_and_no_other(race, tmp_path, capsys):
    (tmp_path / "own.py").write_text(WAITING)
    (tmp_path / "dry").touch()
    (tmp_path / "tiny.toml").write_text(SUITE.replace("digits", "own.py:WORKLOAD"))
    out = tmp_path / "out"
    command = ["run", str(tmp_path / "tiny.toml"), "--out", str(out)]
    assert main(command) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[0].endswith("failed: RuntimeError: out of ink (own.py:30, in wait)")
    assert told[-1].startswith("batchramp: 1 trial failed")
    results = read_results(out)
    statuses = results.rows.unique("trial")["status"].to_list()
    assert sorted(statuses) == ["failed", "finished", "finished", "finished"]
    (failed,) = set(results.rows.filter(status="failed")["trial"])
    assert results.metadata[failed]["error"].startswith("RuntimeError: out of ink")
    assert results.rows.filter(trial=failed).height == 1
    kept = files(out)
    (tmp_path / "dry").unlink()
    assert main(command) == 0
    assert read_results(out).rows.filter(trial=failed).height == 3
    assert set(read_results(out).rows["status"]) == {"finished"}
    found = files(out)
    again = {name for name in kept if found[name] != kept[name]}
    assert again == {f"{failed}.parquet"}


@pytest.mark.parametrize("where", ["its end", "its middle"])
def test_a_damaged_trial_is_named_by_report_and_redone_by_run(race, tmp_path, where):
    first = race(SUITE)
    kept = files(tmp_path / "out")
    path = trial_file(tmp_path / "out", first.rows["trial"][0])
    content = path.read_bytes()
    path.write_bytes(
        content[:2000]
        if where == "its end"
        else content[:4] + bytes(400) + content[404:]
    )
    with pytest.raises(ValueError, match=f"{path.name} is damaged: run the suite"):
        read_results(tmp_path / "out")
    again = race(SUITE)
    assert_frame_equal(
        *(
            found.rows.drop(name for name in found.rows.columns if "seconds" in name)
            for found in (first, again)
        )
    )
    found = files(tmp_path / "out")
    assert {name for name in kept if found[name] != kept[name]} == {path.name}


def test_results_of_another_format_are_refused(race, tmp_path):
    race(SUITE)
    suite = read_results(tmp_path / "out").suite
    write_suite(tmp_path / "out", suite | {"format": 99})
    kept = files(tmp_path / "out")
    with pytest.raises(ValueError, match="must be of results format 3, got 99"):
        race(SUITE)
    assert files(tmp_path / "out") == kept


@pytest.fixture
def waiting(tmp_path):
    """A run as a process, in the middle of its second trial (of each of its jobs)."""
    started = []
    (tmp_path / "own.py").write_text(WAITING)
    (tmp_path / "hold").touch()
    suite = tmp_path / "waiting.toml"
    suite.write_text(
        SUITE.replace("digits", "own.py:WORKLOAD").replace("seeds = 2", "seeds = 3")
    )
    arguments = ["run", str(suite), "--out", str(tmp_path / "out")]

    def start(jobs=1):
        command = [
            sys.executable,
            "-c",
            "import sys, batchramp.cli; sys.exit(batchramp.cli.main())",
        ]
        process = subprocess.Popen(
            [*command, *arguments, "--jobs", str(jobs)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        wait_for(lambda: len(list(tmp_path.glob("waits *"))) == jobs, process)
        ended = tmp_path / "out" / "trials"
        wait_for(lambda: len(list(ended.glob("*.parquet"))) == jobs, process)
        return process

    yield start, arguments
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        process.stderr.close()


def all_ended(processes):
    for process in processes:
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                return False
        except psutil.NoSuchProcess:
            pass
    return True


def wait_for(condition, process=None):
    deadline = time.monotonic() + 120
    while not condition():
        assert process is None or process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_killed_in_the_middle_it_goes_on_to_the_same_table(waiting, tmp_path):
    start, arguments = waiting
    process = start()
    process.kill()
    assert process.wait() == -signal.SIGKILL
    kept = files(tmp_path / "out")
    assert len(kept) == 1
    (tmp_path / "hold").unlink()
    assert main(arguments) == 0
    found = files(tmp_path / "out")
    assert len(found) == 6
    assert {name: found[name] for name in kept} == kept
    assert main([*arguments[:-1], str(tmp_path / "whole")]) == 0
    assert_frame_equal(
        rows(tmp_path / "out"), rows(tmp_path / "whole"), check_exact=True
    )


@pytest.mark.parametrize("jobs", [1, 2])
def test_interrupted_it_ends_with_one_line_and_keeps_what_is_finished(
    waiting, tmp_path, jobs
):
    start, _ = waiting
    process = start(jobs)
    workers = psutil.Process(process.pid).children()
    kept = files(tmp_path / "out")
    assert len(kept) == jobs
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines()[-1] == (
        "batchramp: interrupted; what is finished is kept, the same command goes on "
        "from there"
    )
    assert "Traceback" not in err
    assert files(tmp_path / "out") == kept
    assert read_results(tmp_path / "out").rows["trial"].n_unique() == jobs
    wait_for(lambda: all_ended(workers))


def test_workers_end_with_the_run_that_was_killed(waiting):
    start, _ = waiting
    process = start(2)
    workers = psutil.Process(process.pid).children()
    process.kill()
    process.wait()
    wait_for(lambda: all_ended(workers))
