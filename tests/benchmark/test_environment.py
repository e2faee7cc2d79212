import os
import shutil
import subprocess

import pytest
import torch

from batchramp.benchmark import environment
from batchramp.benchmark.environment import describe_environment

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def afresh():
    environment._commit.cache_clear()
    yield
    environment._commit.cache_clear()


@pytest.fixture
def git(tmp_path, monkeypatch):
    """A repository that is the current folder; returns what runs git there."""
    folder = tmp_path / "repository"
    folder.mkdir()
    monkeypatch.chdir(folder)
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")

    def run(*arguments):
        done = subprocess.run(
            ["git", *who, *arguments], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    run("init", "--quiet")
    (folder / "file").write_text("one\n")
    run("add", "file")
    run("commit", "--quiet", "-m", "one")
    return run


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """A `git` first on the PATH that writes a line for each call, then does it."""
    real, folder = shutil.which("git"), tmp_path / "bin"
    folder.mkdir()
    log = tmp_path / "calls"
    log.touch()
    (folder / "git").write_text(f'#!/bin/sh\necho x >> {log}\nexec {real} "$@"\n')
    (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return lambda: log.read_text().count("x")


def test_all_values_are_text_and_say_what_shares_the_machine():
    told = describe_environment(CPU, jobs=3)
    assert all(isinstance(value, str) for value in told.values())
    assert told["jobs"] == "3"
    assert describe_environment(CPU)["jobs"] == "1"
    assert told["threads"] == str(torch.get_num_threads())
    assert told["device"] == "cpu"
    whole, _, decimals = told["load"].partition(".")
    assert whole.isdigit()
    assert len(decimals) == 2


def test_a_load_that_cannot_be_read_is_unknown(monkeypatch):
    def refuse():
        raise OSError

    monkeypatch.setattr(os, "getloadavg", refuse)
    assert describe_environment(CPU)["load"] == "unknown"


def test_the_commit_is_told_once_and_the_index_stays(git, counted, tmp_path):
    index = tmp_path / "repository" / ".git" / "index"
    os.utime(tmp_path / "repository" / "file", (1, 1))  # git would note that it is same
    before = index.read_bytes(), index.stat().st_mtime_ns
    told = [describe_environment(CPU)["commit"] for _ in range(5)]
    assert counted() == 2  # once each: which commit, and whether anything differs
    assert (index.read_bytes(), index.stat().st_mtime_ns) == before
    assert told == [git("rev-parse", "--short=12", "HEAD")] * 5


def test_what_differs_from_the_commit_is_marked(git):
    with open("file", "a") as file:  # noqa: PTH123
        file.write("two\n")
    commit = git("rev-parse", "--short=12", "HEAD")
    assert describe_environment(CPU)["commit"] == f"{commit}+"


def test_no_repository_and_no_folder_are_unknown(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.chdir(gone)
    assert describe_environment(CPU)["commit"] == "unknown"
    gone.rmdir()
    assert describe_environment(CPU)["commit"] == "unknown"


def test_a_git_that_hangs_or_is_not_there_holds_up_nothing(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "git").write_text("#!/bin/sh\nsleep 60 &\nwait\n")
    (folder / "git").chmod(0o755)
    monkeypatch.setattr(environment, "GIT_SECONDS", 0.2)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    assert describe_environment(CPU)["commit"] == "unknown"
    environment._commit.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_environment(CPU)["commit"] == "unknown"
