"""A trial is known by what was asked: nothing else's rows are told as its own."""

import os
import subprocess
import sys
import threading
from textwrap import dedent

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import batchramp
from batchramp.benchmark.runner import make_race

SUITE = """\
name = "s"
workload = "w.py:{workload}"
epochs = 2
cadence = 0.5
seeds = {seeds}
threads = 1
[[panel]]
baseline = "a"
targets = ["metric >= 0.9"]
"""
ENTRY = """\
[[panel.entry]]
label = "{label}"
schedule = "{schedule}"
set = {set}
"""
WORKLOAD = """\
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from batchramp.workloads import Data, Split, Workload

def load(data_dir, seed):
    generator = torch.Generator().manual_seed(seed % 2**63)
    x = torch.randn(120, 2, generator=generator)
    y = (x.norm(dim=1) > 1.2).long()
    return Data(train=Split(x[:100], y[:100]), test=Split(x[100:], y[100:]))

def make(width):
    def model():
        return nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, 2))
    return model

w = Workload(name="rings", load=load, model=make(4))
"""
SCHEDULES = """\
from batchramp.schedules import Schedule, Settings

class Base(Schedule):
    name = "mine"
    rate = 0.5
    def parameters(self): return {}
    def init(self, horizon): return None
    def decide(self, progress, evidence, state):
        return Settings(16, self.rate, 0.0), state
    def events(self, horizon): return ()
    def restore(self, values): return values

class Fast(Base): pass
class Slow(Base):
    rate = 1e-6
class Rate(Base):
    def __init__(self, lr=0.5): self.rate = lr
ready = Rate(0.25)
"""


@pytest.fixture
def ask(tmp_path):
    """Runs a suite of these files, changed as said, and returns its results."""

    def run(
        entries=(("a", "constant", "{ lr = 0.5, batch_size = 16 }"),),
        *,
        extra="",
        workload="w",
        seeds=1,
        out="out",
        schedules=SCHEDULES,
        top="",
        **arguments,
    ):
        (tmp_path / "w.py").write_text(WORKLOAD + dedent(extra))
        (tmp_path / "p.py").write_text(schedules)
        text = SUITE.format(workload=workload, seeds=seeds)
        text = text.replace("threads = 1\n", f"threads = 1\n{top}")
        for label, schedule, values in entries:
            text += ENTRY.format(label=label, schedule=schedule, set=values)
        (tmp_path / "s.toml").write_text(text)
        return batchramp.run(tmp_path / "s.toml", out=tmp_path / out, **arguments)

    return run


def plain(results):
    rows = results.rows
    seconds = [name for name in rows.columns if name.endswith("_seconds")]
    return rows.drop(seconds, "trial").sort("schedule", "seed", "position")


def ends(results):
    return results.rows.sort("position").group_by("schedule").last().sort("schedule")


def statuses(results):
    return sorted(results.rows.unique("trial")["status"])


def errors(results):
    return [metadata["error"] for metadata in results.metadata.values()]


def test_two_classes_of_one_name_are_two_schedules(ask):
    results = ask([("a", "p.py:Fast", "{}"), ("b", "p.py:Slow", "{}")])
    assert ends(results)["lr"].to_list() == [0.5, 1e-6]
    assert len(results.metadata) == 2


def test_a_parameter_that_parameters_forgets_counts(ask):
    results = ask(
        [("a", "p.py:Rate", "{ lr = 0.5 }"), ("b", "p.py:Rate", "{ lr = 1e-6 }")]
    )
    assert ends(results)["lr"].to_list() == [0.5, 1e-6]
    assert len(results.metadata) == 2


def test_two_workloads_of_one_name_are_two_questions(ask, tmp_path):
    extra = "large = Workload(name='rings', load=load, model=make(64))\n"
    small = ask(extra=extra)
    with pytest.raises(ValueError, match=r"another question: .*is w there and large"):
        ask(extra=extra, workload="large")
    large = ask(extra=extra, workload="large", out="other")
    assert set(small.metadata).isdisjoint(large.metadata)
    losses = [plain(found)["full_train_loss"][0] for found in (small, large)]
    assert losses[0] != losses[1]


def test_an_edit_of_what_is_imported_makes_other_trials(ask, tmp_path):
    (tmp_path / "net.py").write_text("from sizes import WIDTH")
    (tmp_path / "sizes.py").write_text("WIDTH = 64")
    extra = """
        from net import WIDTH
        w = Workload(name="rings", load=load, model=make(WIDTH))
    """
    first = ask(extra=extra)
    assert ask(extra=extra).rows.equals(first.rows)
    (tmp_path / "sizes.py").write_text("WIDTH = 02".replace("02", " 2"))
    second = ask(extra=extra)
    assert set(first.metadata).isdisjoint(second.metadata)
    assert second.others == 1
    losses = [plain(found)["full_train_loss"][0] for found in (first, second)]
    assert losses[0] != losses[1]


def test_a_file_that_the_suite_names_counts(ask, tmp_path):
    (tmp_path / "width.txt").write_text("4")
    extra = """
        from pathlib import Path
        width = int(Path(__file__).with_name("width.txt").read_text())
        w = Workload(name="rings", load=load, model=make(width))
    """
    first = ask(extra=extra, top='sources = ["width.txt"]\n')
    (tmp_path / "width.txt").write_text("8")
    second = ask(extra=extra, top='sources = ["width.txt"]\n')
    assert set(first.metadata).isdisjoint(second.metadata)


def test_one_more_entry_gives_no_other_a_new_identity(ask):
    entries = [("a", "p.py:Fast", "{}")]
    first = ask(entries)
    (tmp,) = first.metadata
    more = ask([*entries, ("b", "constant", "{ lr = 0.1, batch_size = 8 }")])
    assert tmp in more.metadata
    assert len(more.metadata) == 2
    renamed = ask([("z", "p.py:Fast", "{}"), entries[0]])
    assert list(renamed.metadata) == [tmp]
    assert renamed.others == 1


DRAWS = {
    "dropout": "w = Workload(name='rings', load=load, model=lambda: "
    "nn.Sequential(nn.Linear(2, 32), nn.Dropout(0.5), nn.Linear(32, 2)))",
    "torch": "w = Workload(name='rings', load=load, model=make(4), loss=lambda o, t: "
    "cross_entropy(o + torch.rand(o.shape), t, reduction='none'))",
    "numpy": "import numpy as np\n"
    "w = Workload(name='rings', load=load, model=make(4), loss=lambda o, t: "
    "cross_entropy(o * float(np.random.rand()), t, reduction='none'))",
    "random": "import random\n"
    "w = Workload(name='rings', load=load, model=make(4), loss=lambda o, t: "
    "cross_entropy(o * random.random(), t, reduction='none'))",
    "load": "def torn(data_dir, seed):\n"
    "    x = torch.randn(120, 2)\n"
    "    y = (x.norm(dim=1) > 1.2).long()\n"
    "    return Data(train=Split(x[:100], y[:100]), test=Split(x[100:], y[100:]))\n"
    "w = Workload(name='rings', load=torn, model=make(4))",
}
TWO = (
    ("a", "constant", "{ lr = 0.5, batch_size = 16 }"),
    ("b", "constant", "{ lr = 0.5, batch_size = 32 }"),
)


@pytest.mark.parametrize("draws", DRAWS)
def test_whatever_draws_at_random_repeats(ask, tmp_path, draws):
    first = ask(TWO, extra=DRAWS[draws], seeds=2)
    again = ask(TWO, extra=DRAWS[draws], seeds=2, out="again")
    assert_frame_equal(plain(first), plain(again), check_exact=True)
    # One trial is lost and made again, in another place of the order.
    lost = min((tmp_path / "out" / "trials").iterdir())
    lost.unlink()
    redone = ask(TWO, extra=DRAWS[draws], seeds=2)
    assert_frame_equal(plain(first), plain(redone), check_exact=True)
    # Other measures and looks do not move training.
    measured = ask(
        TWO,
        extra=DRAWS[draws],
        seeds=2,
        out="measured",
        measure=["gradient_norm", "sharpness"],
    )
    same = ["schedule", "seed", "position", "train_loss", "full_train_loss", "metric"]
    if draws in ("dropout", "load"):  # else a look's own loss is random
        assert_frame_equal(
            plain(first).select(same), plain(measured).select(same), check_exact=True
        )


@pytest.mark.slow
def test_workers_import_late(ask, tmp_path):
    (tmp_path / "late.py").write_text("from torch.nn.functional import cross_entropy")
    extra = """
        def loss(outputs, targets):
            from late import cross_entropy
            return cross_entropy(outputs, targets, reduction="none")
        w = Workload(name="rings", load=load, model=make(4), loss=loss)
    """
    assert statuses(ask(extra=extra, jobs=2)) == ["finished"]


@pytest.mark.slow
def test_jobs_change_no_row_of_what_draws_at_random(ask):
    first = ask(TWO, extra=DRAWS["dropout"], seeds=2)
    beside = ask(TWO, extra=DRAWS["dropout"], seeds=2, out="beside", jobs=2)
    assert_frame_equal(plain(first), plain(beside), check_exact=True)
    assert first.metadata.keys() == beside.metadata.keys()
    jobs = {m["environment"]["jobs"] for m in beside.metadata.values()}
    assert jobs == {"2"}


UNSEEDED = """
import numpy as np
def torn(data_dir, seed):
    x = torch.from_numpy(np.random.default_rng().normal(size=(120, 2))).float()
    y = (x.norm(dim=1) > 1.2).long()
    return Data(train=Split(x[:100], y[:100]), test=Split(x[100:], y[100:]))
w = Workload(name="rings", load=torn, model=make(4))
"""


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_data_without_a_seed_are_found_out(ask, jobs):
    results = ask(extra=UNSEEDED, seeds=2, jobs=jobs)
    assert statuses(results) == ["failed", "failed"]
    for error in errors(results):
        assert "load of workload 'rings' must give the same data" in error


def test_a_model_that_is_not_new_is_found_out(ask):
    extra = "net = make(4)()\nw = Workload(name='rings', load=load, model=lambda: net)"
    results = ask(TWO, extra=extra)
    assert statuses(results) == ["failed", "failed"]
    assert all("model of workload 'rings'" in error for error in errors(results))


def test_a_schedule_that_counts_is_found_out(ask):
    schedules = SCHEDULES + dedent(
        """
        class Counting(Base):
            calls = 0
            def decide(self, progress, evidence, state):
                self.calls += 1
                return Settings(16, 0.5 / self.calls, 0.0), state
        """
    )
    results = ask([("a", "p.py:Counting", "{}")], schedules=schedules, seeds=2)
    assert statuses(results) == ["failed", "failed"]
    assert all("decide of schedule" in error for error in errors(results))


def test_a_schedule_itself_is_new_in_each_trial(ask, tmp_path):
    entry = ("a", "p.py:ready", "{}")
    ask([entry])
    resolved, trials = make_race(tmp_path / "s.toml").prepare()
    made = [resolved.trial(trials[0]).schedule for _ in range(2)]
    assert made[0] is not made[1]
    assert made[0].rate == made[1].rate == 0.25


def test_threads_are_those_that_are_recorded(ask):
    with pytest.raises(ValueError, match=r"threads must be 1, .* write threads = 2"):
        ask(extra="torch.set_num_threads(2)")


def test_settings_of_a_file_count_and_end_with_the_run(ask):
    import torch

    first = ask()
    double = ask(extra="torch.set_default_dtype(torch.float64)\n" * 1, out="double")
    assert torch.get_default_dtype() is torch.float32
    (a,), (b,) = first.metadata.values(), double.metadata.values()
    assert a["identity"]["torch_settings"] != b["identity"]["torch_settings"]


def test_settings_that_load_changes_are_refused(ask):
    extra = """
        def strange(data_dir, seed):
            torch.set_float32_matmul_precision("medium")
            return load(data_dir, seed)
        w = Workload(name="rings", load=strange, model=make(4))
    """
    with pytest.raises(ValueError, match="load of workload 'rings' must not change"):
        ask(extra=extra)


def test_runs_in_two_threads_do_not_meet(ask, tmp_path):
    expected = plain(ask(TWO, seeds=3))
    found = {}

    def again(out):
        found[out] = plain(batchramp.run(tmp_path / "s.toml", out=tmp_path / out))

    threads = [threading.Thread(target=again, args=(f"t{k}",)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rows in found.values():
        assert_frame_equal(rows, expected, check_exact=True)
    assert len(found) == 2


def test_a_run_inside_a_run_is_refused(ask, tmp_path):
    extra = f"""
        import batchramp
        def loss(o, t):
            batchramp.run("quick", out={str(tmp_path / "inner")!r})
        w = Workload(name="rings", load=load, model=make(4), loss=loss)
    """
    results = ask(extra=extra)
    assert all("a run must not begin another" in error for error in errors(results))
    assert not (tmp_path / "inner").exists()


def test_jobs_never_change_the_threads_of_a_folder(ask, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    ask(seeds=1)
    suite = tmp_path / "s.toml"
    suite.write_text(suite.read_text().replace("threads = 1\n", ""))
    out = tmp_path / "free"
    race = make_race(suite, out=out, jobs=2)
    alone = race.prepare()[1][0].identity["threads"]
    assert alone == 1
    first = batchramp.run(suite, out=out)
    kept = first.suite["threads"]
    assert kept == min(2, len(os.sched_getaffinity(0)))
    (trial,) = make_race(suite, out=out, jobs=2).prepare()[1]
    assert trial.id in first.metadata
    assert trial.identity["threads"] == kept


def test_a_workers_dataloader_finds_the_files(ask):
    extra = """
        from torch.utils.data import DataLoader
        class Items:
            def __len__(self): return 8
            def __getitem__(self, i): return float(i)
        def slow(data_dir, seed):
            loader = DataLoader(Items(), num_workers=1, multiprocessing_context="spawn")
            assert len(list(loader)) == 8
            return load(data_dir, seed)
        w = Workload(name="rings", load=slow, model=make(4))
    """
    assert statuses(ask(extra=extra)) == ["finished"]


def test_the_command_imports_neighbours_too(ask, tmp_path):
    ask()
    (tmp_path / "net.py").write_text("WIDTH = 8")
    with (tmp_path / "w.py").open("a") as file:
        file.write("from net import WIDTH\n")
        file.write("w = Workload(name='rings', load=load, model=make(WIDTH))\n")
    code = "import sys; from batchramp.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "run", tmp_path / "s.toml", "--out", "x"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path.parent,
    )
    assert done.returncode == 0, done.stderr


def test_identities_differ_in_nothing_but_what_was_asked(ask, tmp_path):
    """Other folders, labels and file names are the same question."""
    first = ask()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (moved / "v.py").write_bytes((tmp_path / "w.py").read_bytes())
    text = (tmp_path / "s.toml").read_text().replace("w.py", "v.py")
    (moved / "t.toml").write_text(text.replace('"a"', '"b"').replace('"s"', '"t"'))
    again = batchramp.run(moved / "t.toml", out=tmp_path / "moved")
    assert again.metadata.keys() == first.metadata.keys()
    assert plain(again).drop("schedule").equals(plain(first).drop("schedule"))
    assert isinstance(again.rows, pl.DataFrame)
