"""What the trainers' tests share: real processes that end, and quiet libraries."""

import json
import multiprocessing
import runpy
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

    def launch(function, *arguments, world_size=2, seconds=100):
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
        finally:
            for process in processes:
                process.kill()
        assert all(answer.exists() for answer in answers), "a rank did not end in time"
        said = [json.loads(answer.read_text()) for answer in answers]
        for one in said:
            assert "error" not in one, one["error"]
        return [one["answer"] for one in said]

    return launch
