import subprocess
import sys
from itertools import groupby

import pytest
from polars.testing import assert_frame_equal

import batchramp
from batchramp.benchmark.monitor import Monitor
from batchramp.benchmark.passages import passages
from batchramp.benchmark.results import Results, read_results
from batchramp.benchmark.runner import make_race
from batchramp.benchmark.suite import parse_suite
from batchramp.benchmark.tables import budget_table, race_table

SUITE = """\
name = "tiny"
workload = "digits"
epochs = 2
cadence = 0.25
seeds = 2
threads = 1
[[panel]]
baseline = "cosine"
targets = ["metric >= 0.3", "metric >= 1.5"]
[[panel.entry]]
label = "cosine"
schedule = "constant-cosine"
set = { lr = 0.2, batch_size = 32 }
[[panel.entry]]
label = "growing"
schedule = "umeda-increasing-batch"
set = { lr = 0.2, batch_size = 16, max_batch_size = 64 }
[[panel.entry]]
label = "led"
schedule = "noise-scale"
set = { lr = 0.2, batch_size = 16, max_batch_size = 128 }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("race")


@pytest.fixture(scope="module")
def raced(folder):
    (folder / "tiny.toml").write_text(SUITE)
    return batchramp.run(folder / "tiny.toml", out=folder / "out")


def without_seconds(rows):
    seconds = [name for name in rows.columns if name.endswith("_seconds")]
    assert len(seconds) == 4
    return rows.drop(seconds)


def assert_same(one, other):
    rows, of_other = without_seconds(one.rows), without_seconds(other.rows)
    assert_frame_equal(rows, of_other, check_exact=True)
    assert_frame_equal(one.entries, other.entries)


def test_every_trial_of_the_suite_is_run(raced):
    assert isinstance(raced, Results)
    trials = raced.rows.select("schedule", "seed", "status").unique(maintain_order=True)
    assert sorted(trials.rows()) == [
        (label, seed, "finished")
        for label in ("cosine", "growing", "led")
        for seed in (0, 1)
    ]
    planned = raced.entries["planned_updates"].to_list()
    assert planned[0] == 2 * 41
    assert planned[2] is None
    changes = raced.entries["first_change"].to_list()
    assert changes[0] is None
    assert changes[1] > 0


def test_a_trial_has_its_looks_from_the_first_to_the_budget(raced):
    for trial in raced.rows.partition_by("trial", maintain_order=True):
        first, *_, last = trial.to_dicts()
        assert trial.height == 1 + 2 * 4
        assert trial["position"].is_sorted()
        for unknown in ("train_loss", "lr", "batch_size", "momentum"):
            assert first[unknown] is None
        assert first["position"] == first["updates"] == first["train_seconds"] == 0
        assert (last["position"], last["samples"], last["epoch"]) == (2594, 2594, 2.0)
        assert last["full_train_loss"] > 0
        assert last["gradient_norm"] > 0
        planned = raced.entries.filter(schedule=last["schedule"])["planned_updates"][0]
        assert planned in (None, last["updates"])


def test_a_trial_keeps_where_and_from_what_it_came(raced):
    for metadata in raced.metadata.values():
        assert metadata["status"] == "finished"
        assert metadata["error"] is None
        assert {
            "batchramp",
            "build_profile",
            "torch",
            "cpu",
            "device",
            "threads",
            "commit",
        } <= metadata["environment"].keys()
        assert metadata["environment"]["threads"] == "1"
        assert {"data", "torch", "device", "optimizer"} <= metadata["identity"].keys()


def test_the_folder_holds_what_it_needs_and_no_more(raced, folder):
    found = {path.name for path in (folder / "out").rglob("*") if path.is_file()}
    assert found == {
        ".lock",
        "suite.toml",
        *(f"{trial}.parquet" for trial in raced.metadata),
    }
    written = raced.suite["panel"][0]["entry"][1]
    assert written["parameters"]["growth"] == 2.0
    assert raced.suite["num_samples"] == 1297
    assert raced.suite["batchramp"] == batchramp.__version__


def test_run_again_it_is_the_same_but_for_the_seconds(raced, folder, tmp_path):
    again = batchramp.run(folder / "tiny.toml", out=tmp_path)
    assert_same(raced, again)


def test_jobs_change_no_row_and_leave_other_processes_alone(raced, folder, tmp_path):
    code = "import sys; sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as other:
        together = batchramp.run(folder / "tiny.toml", out=tmp_path, jobs=2)
        assert other.poll() is None
    assert other.returncode == 0
    assert_same(raced, together)


def test_trials_come_seed_by_seed_shuffled_within(tmp_path):
    suite = parse_suite(SUITE.replace("seeds = 2", "seeds = 12"))
    race = make_race(suite, out=tmp_path)
    _, trials = race.prepare()
    orders = [
        (seed, tuple(trial.label for trial in of_seed))
        for seed, of_seed in groupby(trials, lambda trial: trial.seed)
    ]
    assert [seed for seed, _ in orders] == list(range(12))
    assert all(sorted(order) == ["cosine", "growing", "led"] for _, order in orders)
    assert len({order for _, order in orders}) > 3
    assert [trial.id for trial in race.prepare()[1]] == [trial.id for trial in trials]


def test_equal_entries_are_trained_once_and_told_twice(tmp_path):
    text = SUITE.partition('[[panel.entry]]\nlabel = "led"')[0]
    entry = text[text.index("[[panel.entry]]") : text.rindex("[[panel.entry]]")]
    text += entry.replace('"cosine"', '"cosine again"')
    results = batchramp.run(parse_suite(text), out=tmp_path)
    assert len(list((tmp_path / "trials").iterdir())) == 4
    one, other = (
        results.rows.filter(schedule=label).drop("schedule")
        for label in ("cosine", "cosine again")
    )
    assert one.equals(other)


def test_every_seed_has_a_split_a_model_and_an_order_of_its_own(raced):
    first = raced.rows.filter(position=0)
    for of_seed in first.partition_by("seed"):
        assert of_seed["metric"].n_unique() == 1
    assert first["metric"].n_unique() == 2


def test_a_target_out_of_reach_is_not_reached(raced):
    found = passages(raced).filter(target="metric >= 1.5")
    assert found["reached"].to_list() == [False] * 6
    assert set(found["updates"]) == {float("inf")}
    table = race_table(raced).filter(target="metric >= 1.5")
    assert table["reached"].to_list() == [0, 0, 0]
    assert table["trials"].to_list() == [2, 2, 2]
    reached = race_table(raced).filter(target="metric >= 0.3")
    assert reached["reached"].to_list() == [2, 2, 2]


OWN = '''
import math
import torch
from batchramp.schedules import Mark, Schedule, Settings
from batchramp.workloads import Workload, cross_entropy
from batchramp.workloads.digits import WORKLOAD, load

def after_a_while(batches, then):
    """A loss that is the usual one for so many batches of a trial."""
    def model():
        done.clear()
        return WORKLOAD.model()
    def loss(outputs, targets):
        done.append(None)
        return then(outputs) if len(done) > batches else cross_entropy(outputs, targets)
    done = []
    return Workload(name="mine", load=load, model=model, loss=loss)

def broken(outputs):
    raise RuntimeError("a wire\\ncame off")

plain = Workload(name="mine", load=load, model=WORKLOAD.model)
diverging = after_a_while(30, lambda outputs: outputs[:, 0] * math.nan)
failing = after_a_while(30, broken)
unbuilt = Workload(name="mine", load=load, model=lambda: broken(None))

class Halving(Schedule):
    name = "halving"
    def __init__(self, batch_size=64): self.batch_size = batch_size
    def parameters(self): return {"batch_size": self.batch_size}
    def init(self, horizon): return -(-horizon.budget // 2)
    def decide(self, progress, evidence, state):
        late = progress.position >= state
        return Settings(self.batch_size // (2 if late else 1), 0.1, 0.5), state
    def events(self, horizon): return (Mark(position=-(-horizon.budget // 2)),)
    def restore(self, values): return values
'''


@pytest.fixture
def own(tmp_path):
    """Writes a suite of one's own workload and schedule, in a folder beside it."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "own.py").write_text(OWN)

    def write(workload, entries="set = { batch_size = 32 }\n"):
        path = tmp_path / "own.toml"
        text = SUITE.partition("[[panel.entry]]")[0].replace("digits", workload)
        entry = '[[panel.entry]]\nlabel = "cosine"\nschedule = "mine/own.py:Halving"\n'
        path.write_text(text + entry + entries)
        return path

    return write


class Told(Monitor):
    """Keeps what it is told."""

    def __init__(self):
        self.looks, self.ends, self.shares = [], [], []

    def begin(self, trials, work):
        self.trials, self.work = trials, work

    def look(self, label, seed, row):
        self.looks.append((label, seed, row.position))

    def end(self, outcome, work):
        self.ends.append((outcome.label, outcome.seed, outcome.status))
        self.shares.append(work)


def test_a_workload_and_a_schedule_of_ones_own(own, tmp_path):
    told = Told()
    make_race(own("mine/own.py:plain"), out=tmp_path / "out").run(told)
    results = read_results(tmp_path / "out")
    assert set(results.rows["workload"]) == {"mine"}
    assert results.entries["schedule_name"].to_list() == ["mine/own.py:Halving"]
    assert set(results.rows["batch_size"].drop_nulls()) == {32, 16}
    assert results.entries["first_change"].to_list() == [1297]
    # Targets are the suite's; trials tell how they go as they go.
    assert told.ends == [("cosine", 0, "finished"), ("cosine", 1, "finished")]
    assert told.looks == results.rows.select("schedule", "seed", "position").rows()
    assert told.trials == len(told.shares) == 2
    assert sum(told.shares) == pytest.approx(told.work)


def test_a_trial_that_diverges_is_a_result(own, tmp_path):
    results = batchramp.run(own("mine/own.py:diverging"), out=tmp_path / "out")
    assert set(results.rows["status"]) == {"diverged"}
    assert results.rows["trial"].n_unique() == 2
    last = results.rows.group_by("trial", maintain_order=True).last()
    assert (last["train_loss"].is_nan() | last["full_train_loss"].is_nan()).all()
    assert (last["position"] < 2594).all()
    missed = passages(results).filter(target="metric >= 1.5")
    assert missed["reached"].to_list() == [False, False]


def test_a_trial_that_fails_keeps_its_rows_and_its_error(own, tmp_path):
    told = Told()
    make_race(own("mine/own.py:failing"), out=tmp_path / "out").run(told)
    assert told.ends == [("cosine", 0, "failed"), ("cosine", 1, "failed")]
    results = read_results(tmp_path / "out")
    assert set(results.rows["status"]) == {"failed"}
    assert results.rows["position"].max() > 0
    for metadata in results.metadata.values():
        place = "(own.py:20, in broken)"
        assert metadata["error"] == f"RuntimeError: a wire came off {place}"
        assert metadata["traceback"].endswith("RuntimeError: a wire\ncame off\n")
        assert "in broken" in metadata["traceback"]
    assert passages(results).is_empty()


def test_a_trial_that_fails_before_its_first_look_is_counted(own, tmp_path):
    results = batchramp.run(own("mine/own.py:unbuilt"), out=tmp_path / "out")
    assert results.rows["status"].to_list() == ["failed", "failed"]
    assert results.rows["position"].is_null().all()
    budget = budget_table(results)
    assert budget["failed"].to_list() == [2]


def test_what_cannot_be_asked_of_a_run(tmp_path):
    suite = parse_suite(SUITE)
    for arguments, told in [
        ({"jobs": 0}, "jobs must be at least 1, got 0"),
        ({"seeds": 0}, "seeds must be .* at least 1, got 0"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"data": tmp_path / "none"}, "none must exist"),
        ({"suite": "quik"}, "did you mean quick"),
    ]:
        with pytest.raises(ValueError, match=told):
            batchramp.run(**{"suite": suite, "out": tmp_path, **arguments})
    assert list(tmp_path.iterdir()) == []
