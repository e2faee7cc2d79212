import json
import os
import platform
import subprocess
import sys
from contextlib import ExitStack

import pytest

from batchramp.benchmark.holder import hold

HOLDING = """
import sys
from pathlib import Path
from batchramp.benchmark.holder import hold
with hold(Path(sys.argv[1])):
    print("holds", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "holds\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_is_told_who_holds_it(other, tmp_path):
    told = rf"is held by process {other.pid} on {platform.node()}, since 20.*--out"
    with pytest.raises(ValueError, match=told), hold(tmp_path):
        pass
    other.communicate()
    with hold(tmp_path):
        pass


def test_a_dead_holder_is_no_holder(other, tmp_path):
    other.kill()
    other.wait()
    assert json.loads((tmp_path / ".holder.json").read_text())["process"] == other.pid
    with hold(tmp_path):
        holder = json.loads((tmp_path / ".holder.json").read_text())
        assert holder["process"] == os.getpid()
    assert not (tmp_path / ".holder.json").exists()


def test_what_a_dead_run_left_half_written_is_removed(tmp_path):
    (tmp_path / "trials").mkdir()
    left = [
        tmp_path / "suite.toml.7.partial",
        tmp_path / "trials" / "a.parquet.7.partial",
    ]
    kept = [tmp_path / "suite.toml", tmp_path / "trials" / "a.parquet"]
    for path in (*left, *kept):
        path.touch()
    with hold(tmp_path):
        assert not any(path.exists() for path in left)
        assert all(path.exists() for path in kept)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    told = "file/out cannot be written: Not a directory"
    with ExitStack() as stack, pytest.raises(OSError, match=told):
        stack.enter_context(hold(tmp_path / "file" / "out"))
