"""Going on in a results folder: nothing finished is hidden, lost or told as another's."""

import os
import resource
import signal
import subprocess
import sys

import pytest

import batchramp
from batchramp.benchmark.monitor import Monitor
from batchramp.benchmark.results import read_results, read_suite
from batchramp.benchmark.runner import make_race
from batchramp.benchmark.suite import parse_suite
from batchramp.benchmark.trial_files import read_status, trial_file
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
"""
ENTRY = """\
[[panel.entry]]
label = "{label}"
schedule = "smith-increase"
set = {{ lr = 0.1, batch_size = 32, max_batch_size = 256 }}
"""
OWN = """\
from pathlib import Path
from batchramp.workloads import Workload, accuracy
from batchramp.workloads.digits import WORKLOAD, load
FAILS = False
def metric(outputs, targets):
    if FAILS: raise RuntimeError("out of ink")
    return accuracy(outputs, targets)
mine = Workload(name="mine", load=load, model=WORKLOAD.model, metric=metric)
"""


class Notes(Monitor):
    def __init__(self):
        self.notes, self.trials = [], None

    def note(self, message):
        self.notes.append(message)

    def begin(self, trials, work):
        self.trials = trials


@pytest.fixture
def race(tmp_path):
    """Runs a suite's text into one folder; returns what was told and the results."""

    def run(text, **arguments):
        (tmp_path / "tiny.toml").write_text(text)
        told = Notes()
        arguments = {"out": tmp_path / "out", **arguments}
        done = make_race(tmp_path / "tiny.toml", **arguments).run(told)
        return told, done.results

    return run


def test_fewer_seeds_hide_none(race, tmp_path):
    race(SUITE, seeds=4)
    told, results = race(SUITE, seeds=2)
    assert (told.trials, told.notes) == (0, ["2 more seeds lie here and count: 2, 3"])
    assert results.entries["seeds"].to_list() == [4]
    assert sorted(set(results.rows["seed"])) == [0, 1, 2, 3]
    assert read_results(tmp_path / "out").rows.equals(results.rows)


def test_other_seeds_add_to_those_that_are_there(race):
    race(SUITE)
    told, results = race(SUITE.replace("seeds = 2", "seeds = 2\nfirst_seed = 7"))
    assert told.trials == 2
    assert sorted(set(results.rows["seed"])) == [0, 1, 7, 8]


def test_entries_may_be_added_changed_and_taken_away(race):
    _, first = race(SUITE)
    told, more = race(SUITE + ENTRY.format(label="growing"))
    assert told.trials == 2
    assert first.metadata.keys() < more.metadata.keys()
    told, fewer = race(SUITE)
    assert told.trials == 0
    assert fewer.metadata.keys() == first.metadata.keys()
    assert fewer.others == 2
    told, changed = race(SUITE.replace("lr = 0.1", "lr = 0.2"))
    assert told.trials == 2
    assert changed.others == 4
    assert all(
        "their entries are no longer in the suite" in note for note in told.notes
    )


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("epochs = 1", "epochs = 2", "epochs is 1.0 there and 2.0 here"),
        ("cadence = 0.5", "cadence = 0.25", "cadence is 0.5 there and 0.25 here"),
        (
            "seeds = 2",
            "seeds = 2\nboundary = 'wrap'",
            "boundary is keep there and wrap",
        ),
        ("seeds = 2", "seeds = 2\nmicro_batch = 8", "micro_batch is None there and 8"),
        (
            "seeds = 2",
            "seeds = 2\nmeasures.gradient_norm = 1",
            "measures is .* gradient",
        ),
        (
            "[[panel]]",
            "[[panel]]\nweight_decay = 0.1",
            "weight_decay of a panel is 0.0",
        ),
        (
            "[[panel]]",
            "[[panel]]\nnesterov = true",
            "nesterov of a panel is False there",
        ),
    ],
)
def test_another_question_is_refused_by_the_key_that_differs(
    race, tmp_path, old, new, key
):
    _, first = race(SUITE)
    with pytest.raises(ValueError, match=f"another question: {key}.*--out"):
        race(SUITE.replace(old, new))
    assert read_results(tmp_path / "out").rows.equals(first.rows)


def test_another_workload_is_refused(race, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    race(SUITE)
    with pytest.raises(ValueError, match="workload is digits there and mine here"):
        race(SUITE.replace("digits", "own.py:mine"))


def test_another_identity_is_told_and_what_was_finished_stays_readable(race, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    suite = SUITE.replace("digits", "own.py:mine")
    _, first = race(suite)
    (tmp_path / "own.py").write_text(OWN + "FAILS = True\n")
    told, failed = race(suite)
    assert told.notes == [
        "2 finished trials of another identity lie here: "
        "the workload's source (the file itself)"
    ]
    assert set(failed.rows["status"]) == {"failed"}
    # Nothing of the new identity has finished: the folder still tells of the old one.
    assert read_results(tmp_path / "out").rows.equals(first.rows)
    (tmp_path / "own.py").write_text(OWN + "FAILS = 0\n")
    _, again = race(suite, seeds=1)
    kept = read_results(tmp_path / "out")
    assert kept.metadata.keys() == again.metadata.keys()
    assert kept.others == 4  # two finished, two failed


def test_other_threads_are_another_identity_and_named(race):
    race(SUITE)
    told, results = race(SUITE.replace("threads = 1", "threads = 2"), seeds=1)
    assert told.notes == [
        "2 finished trials of another identity lie here: threads 1 there, 2 here"
    ]
    assert results.others == 2


def test_a_folder_keeps_its_threads(race, tmp_path, monkeypatch):
    free = SUITE.replace("threads = 1\n", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    _, first = race(free)
    assert first.suite["threads"] == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    told, again = race(free)
    assert (told.trials, again.suite["threads"]) == (0, 1)


@pytest.mark.parametrize("damage", ["", "not = [toml", "format = 3\nname = 'x'\n"])
def test_a_damaged_suite_is_written_anew(race, tmp_path, damage):
    _, first = race(SUITE)
    path = tmp_path / "out" / "suite.toml"
    path.write_text(damage)
    with pytest.raises(ValueError, match="its trials are kept, and it is written anew"):
        read_results(tmp_path / "out")
    told, again = race(SUITE)
    assert told.trials == 0
    assert again.rows.equals(first.rows)
    assert read_results(tmp_path / "out").rows.equals(first.rows)


@pytest.mark.parametrize("damage", ["damaged", "missing"])
def test_without_its_suite_a_folder_still_knows_seeds_and_threads(
    race, tmp_path, monkeypatch, damage
):
    free = SUITE.replace("threads = 1\n", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    _, first = race(free, seeds=3)
    path = tmp_path / "out" / "suite.toml"
    if damage == "missing":
        path.unlink()
    else:
        path.write_text(path.read_text() + "x")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    told, again = race(free, seeds=1)
    assert (told.trials, told.notes) == (0, ["2 more seeds lie here and count: 1, 2"])
    assert again.metadata.keys() == first.metadata.keys()
    assert again.suite["threads"] == 1


SCHEDULES = """\
from batchramp.schedules import make
def mine(lr): return make("constant", lr=lr, batch_size=64)
"""


def test_one_entry_of_another_identity_hides_none_of_its_trials(race, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "p.py").write_text(SCHEDULES)
    own = ENTRY.format(label="own").partition("schedule")[0]
    own += 'schedule = "p.py:mine"\nset = { lr = 0.1 }\n'
    suite = SUITE.replace("digits", "own.py:mine") + own
    _, first = race(suite)
    (tmp_path / "p.py").write_text(SCHEDULES + "# a comment\n")

    class Stop(Notes):
        def begin(self, trials, work):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_race(tmp_path / "tiny.toml", out=tmp_path / "out").run(Stop())
    order = ["schedule", "seed", "position"]
    kept = read_results(tmp_path / "out").rows.sort(order)
    assert kept.equals(first.rows.sort(order))
    told, second = race(suite, seeds=1)
    assert told.trials == 1
    kept = read_results(tmp_path / "out")
    assert kept.metadata.keys() == second.metadata.keys()
    # Once the new identity has a trial, none of the old one's is told beside it.
    ids = {label: set(of["trial"]) for (label,), of in kept.rows.group_by("schedule")}
    before = {
        label: set(of["trial"]) for (label,), of in first.rows.group_by("schedule")
    }
    assert ids["still"] == before["still"]
    assert len(ids["own"]) == 1
    assert ids["own"].isdisjoint(before["own"])


def test_results_lie_where_they_were_asked_whatever_user_code_does(
    tmp_path, monkeypatch
):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "own.py").write_text(
        "import os\nos.chdir(os.path.dirname(os.path.abspath(__file__)))\n" + OWN
    )
    suite = SUITE.replace("digits", "own.py:mine")
    (tmp_path / "sub" / "s.toml").write_text(suite)
    monkeypatch.chdir(tmp_path)
    results = batchramp.run("sub/s.toml", out="o", seeds=1)
    assert read_results(tmp_path / "o").rows.equals(results.rows)
    assert not (tmp_path / "sub" / "o").exists()


def test_what_is_no_folder_or_file_is_named(race, tmp_path):
    _, first = race(SUITE)
    path = trial_file(tmp_path / "out", next(iter(first.metadata)))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="cannot be read: it is no file"):
        read_results(tmp_path / "out")
    with pytest.raises(ValueError, match="out must name a folder, got ''"):
        race(SUITE, out="")
    (tmp_path / "held" / ".holder.json").mkdir(parents=True)
    with pytest.raises(OSError, match=r"holder.json cannot be written: Is a directory"):
        race(SUITE, out=tmp_path / "held")


def test_a_dry_run_says_what_a_run_would(race, tmp_path, capsys):
    race(SUITE)
    (tmp_path / "tiny.toml").write_text(SUITE.replace("threads = 1", "threads = 2"))
    out = str(tmp_path / "out")
    assert main(["run", str(tmp_path / "tiny.toml"), "--out", out, "--dry-run"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "2 trials to run" in told
    assert "Take care: 2 finished trials of another identity lie here: threads" in told


def test_what_cannot_be_read_stops_the_run_and_is_not_replaced(race, tmp_path, capsys):
    _, first = race(SUITE)
    path = trial_file(tmp_path / "out", next(iter(first.metadata)))
    path.rename(tmp_path / "kept")
    path.mkdir()
    arguments = ["run", str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"batchramp: {path} cannot be read: Is a directory")
    assert path.is_dir()


def test_a_swapped_or_foreign_file_is_redone(race, tmp_path):
    _, first = race(SUITE)
    one, other = (trial_file(tmp_path / "out", name) for name in first.metadata)
    other.write_bytes(one.read_bytes())
    assert read_status(tmp_path / "out", other.stem) is None
    told, again = race(SUITE)
    assert told.trials == 1
    metric = [found.rows.sort("seed", "position")["metric"] for found in (first, again)]
    assert metric[0].equals(metric[1])


@pytest.mark.parametrize("name", ["lr=[1]", "a*b?", "{x}", "%s", "a b", "-x"])
def test_every_folder_is_taken_as_it_is_written(tmp_path, name):
    suite = parse_suite(SUITE)
    results = batchramp.run(suite, out=tmp_path / name, seeds=1)
    again = batchramp.run(suite, out=tmp_path / name, seeds=1)
    assert again.rows.equals(results.rows)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_tilde_is_the_home_directory_once(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(SUITE)
    batchramp.run("~/tiny.toml", out="~/x", seeds=1)
    assert read_suite(tmp_path / "x")["name"] == "tiny"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.toml", "x"]


def limit_files():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_no_room_is_one_line_and_leaves_nothing_half_written(race, tmp_path, jobs):
    """A limit on the size of files stands for a full disk."""
    race(SUITE)
    out = tmp_path / "full"
    code = "import sys; from batchramp.cli import main; sys.exit(main(sys.argv[1:]))"
    suite = SUITE.replace("cadence = 0.5", "cadence = 0.001")  # a file of some 50 kB
    (tmp_path / "tiny.toml").write_text(suite)
    command = ["run", tmp_path / "tiny.toml", "--out", out, "--jobs", jobs]
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit_files,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    (told,) = done.stderr.splitlines()
    assert ".parquet cannot be written: File too large" in told
    assert not list((out / "trials").iterdir())
    assert read_results(out).rows.is_empty()
