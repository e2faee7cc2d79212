"""What the trainers' tests share: real processes that end, and quiet libraries."""

import itertools
import json
import multiprocessing
import runpy
import signal
import socket
import time
from pathlib import Path

import pytest

PRELOADED = [
    "torch._dynamo",
    "accelerate.data_loader",
    "lightning.pytorch",
    "transformers.trainer",
]


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """No download, no telemetry."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def in_processes(tmp_path_factory):
    """Runs a function of a test's file in one process per rank, as torchrun would.

    The processes are forked from a server that has imported torch once, which spares
    each of them the seconds that takes.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)

    def launch(function, *arguments, world_size=2, seconds=100, trained=None):
        """Returns the ranks' answers, or None if they killed themselves.

        `trained` has the arguments of a rank's `Trained` (`kills.py`), which the function
        then takes first.
        """
        folder = tmp_path_factory.mktemp(function.__name__)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        answers = [folder / f"{rank}.json" for rank in range(world_size)]
        processes = []
        for rank, answer in enumerate(answers):
            environment = {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(world_size),
                "LOCAL_WORLD_SIZE": str(world_size),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": "1",
                "CUDA_VISIBLE_DEVICES": "",
            }
            job = {
                "file": function.__code__.co_filename,
                "function": function.__name__,
                "arguments": arguments,
                "answer": str(answer),
                "environment": environment,
                "trained": None if trained is None else trained[rank],
            }
            script = str(Path(__file__).with_name("as_rank.py"))
            processes.append(
                context.Process(
                    target=runpy.run_path, args=(script, {"JOB": job}, "__main__")
                )
            )
        until = time.monotonic() + seconds
        try:
            for process in processes:
                process.start()
            for process in processes:
                process.join(max(0.0, until - time.monotonic()))
            ended = [process.exitcode for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert None not in ended, "a rank did not end in time"
        if ended == [-signal.SIGKILL] * world_size:
            return None
        said = [json.loads(answer.read_text()) for answer in answers]
        for one in said:
            assert "error" not in one, one["error"]
        return [one["answer"] for one in said]

    return launch


@pytest.fixture
def killed(in_processes, tmp_path):
    """Kills a training at an update, lets it go on, and compares what was trained.

    `train(trained, folder, *arguments)` trains the passes of `trained.plan`, drawn by
    `trained.new_sampler()`, from the last checkpoint in the folder on, if there is one. It
    calls `trained(update, samples)` for each update, counted from the training's first.
    Each is killed in a process of its own; one process goes on in this one, several go
    on in others.

    Give it the update `at` which it dies. It returns the one with which it went on.
    """
    new = runpy.run_path(str(Path(__file__).with_name("kills.py")))["Trained"]

    def run(train, *arguments, at, world_size=1):
        folder = tmp_path / "checkpoints"
        folder.mkdir()

        def launch(name, **keywords):
            trained = [
                {"path": str(tmp_path / f"{name}-{rank}.jsonl")} | keywords
                for rank in range(world_size)
            ]
            if keywords or world_size > 1:
                passed = (str(folder), *arguments)
                in_processes(train, *passed, world_size=world_size, trained=trained)
            else:
                train(new(**trained[0]), str(folder), *arguments)
            return [new(**one).lines() for one in trained]

        before, after = launch("before", dies_at=at), launch("after")
        first = after[0][0][0]
        for rank in range(world_size):
            sampler = new("").new_sampler(rank=rank, world_size=world_size)
            drawn = (list(sampler) for _ in range(4))
            whole = list(map(list, enumerate(itertools.chain(*drawn))))
            # What came after the checkpoint was lost, and is trained anew.
            assert before[rank] == whole[: at + 1]
            assert after[rank] == whole[first:]
        return first

    return run
