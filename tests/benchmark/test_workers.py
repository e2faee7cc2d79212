"""Processes of a run: only what dies is lost, and none outlives the run."""

import os
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest

from batchramp.benchmark.workers import Died, in_workers


@pytest.fixture(autouse=True)
def none_is_left():
    """Whatever a test does, it leaves no process behind."""
    before = {child.pid for child in psutil.Process().children()}
    yield
    assert {child.pid for child in psutil.Process().children()} <= before


@contextmanager
def begin(folder):
    sys.stdout.write("this is no answer\n")
    os.write(1, b"nor is this\n")
    yield partial(answer, folder)


def answer(folder, task):
    sys.stdout.write("nor this\n")
    kind, value = task
    if kind == "die once" and not (folder / f"died {value}").exists():
        (folder / f"died {value}").touch()
        os.kill(os.getpid(), 9)
    if kind == "exit":
        os._exit(3)
    if kind == "raise":
        raise KeyError(value)
    if kind == "read":
        return sys.stdin.read()
    if kind == "wait":
        (folder / f"waits {os.getpid()}").touch()
        while True:
            time.sleep(0.05)
    return value * 2, os.getpid()


@contextmanager
def refuse(_):
    raise RuntimeError("no licence")
    yield


def all_of(tasks, folder, number=2):
    return dict(in_workers(begin, folder, tasks, number))


def test_each_task_is_answered_once(tmp_path):
    found = all_of([("double", k) for k in range(9)], tmp_path)
    assert {index: value for index, (value, _) in found.items()} == {
        k: 2 * k for k in range(9)
    }
    assert os.getpid() not in {process for _, process in found.values()}


def test_a_killed_worker_costs_its_own_task_one_more_try(tmp_path):
    tasks = [("double", 1), ("die once", 2), ("double", 3), ("die once", 4)]
    found = all_of(tasks, tmp_path)
    assert {index: value for index, (value, _) in found.items()} == {
        0: 2,
        1: 4,
        2: 6,
        3: 8,
    }


def test_what_kills_every_worker_is_told_and_kills_no_other_task(tmp_path):
    found = all_of([("double", 1), ("exit", 0), ("double", 3)], tmp_path)
    assert found.pop(1) == Died("its process ended with exit code 3, 2 times")
    assert [found[index][0] for index in (0, 2)] == [2, 6]


def test_nothing_to_read_is_there_for_user_code(tmp_path):
    assert all_of([("read", 0)], tmp_path) == {0: ""}


def test_what_raises_is_raised_here(tmp_path):
    with pytest.raises(ValueError, match="could not go on: KeyError: 'ink'"):
        all_of([("raise", "ink")], tmp_path)
    with pytest.raises(ValueError, match="could not go on: RuntimeError: no licence"):
        list(in_workers(refuse, tmp_path, [1, 2], 2))


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_closing_ends_what_is_under_way(tmp_path):
    with closing(in_workers(begin, tmp_path, [("double", 1), ("wait", 0)], 1)) as found:
        assert next(found)[0] == 0
        wait_for(lambda: list(tmp_path.glob("waits *")))


@pytest.mark.parametrize("signal_number", [9, 15])
def test_workers_end_with_their_parent_whatever_they_do(tmp_path, signal_number):
    script = (
        "import sys\nfrom pathlib import Path\n"
        f"sys.path.append({str(Path(__file__).parent)!r})\n"
        "from test_workers import begin\n"
        "from batchramp.benchmark.workers import in_workers\n"
        "list(in_workers(begin, Path(sys.argv[1]), [('wait', 0)] * 2, 2))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, tmp_path])
    wait_for(lambda: len(list(tmp_path.glob("waits *"))) == 2)
    workers = psutil.Process(parent.pid).children()
    assert len(workers) == 2
    parent.send_signal(signal_number)
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert alive == []
