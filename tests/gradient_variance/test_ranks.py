"""Two real processes: every rank comes to the noise that its micro-batches have."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed

from batchramp.gradient_variance import NoiseScale

UPDATES, WORLD_SIZE, SIZE = 12, 2, 4

OVERFLOWED = {3: 0, 7: 1}
"""Updates in which one rank's gradient overflowed, and which rank's."""


def gradients(rank):
    generator = torch.Generator().manual_seed(rank)
    return 1 + torch.randn(UPDATES, 30, generator=generator, dtype=torch.float64)


def measure(rank, store):
    distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=WORLD_SIZE
    )
    noise = NoiseScale(num_samples=1000)
    for update, gradient in enumerate(gradients(rank)):
        if update in OVERFLOWED and rank == OVERFLOWED[update]:
            gradient[3] = float("inf")
        mean = gradient.clone()
        distributed.all_reduce(mean)
        mean /= WORLD_SIZE
        noise.update_ranks(SIZE, gradient.square().sum(), mean.square().sum())
    unequal, message = NoiseScale(None), ""
    unequal.update_ranks(SIZE + rank, 2.0, 1.0)
    try:
        unequal.trace()
    except ValueError as error:
        message = str(error)
    sys.stdout.write(json.dumps({"state": noise.state_dict(), "unequal": message}))
    sys.stdout.flush()
    distributed.barrier()
    # Not by way of the interpreter's end, which gloo's threads abort now and then.
    os._exit(0)


@pytest.mark.timeout(120)
def test_ranks_agree_with_their_micro_batches(tmp_path):
    command = [sys.executable, "-W", "ignore", str(Path(__file__))]
    workers = [
        subprocess.Popen(
            [*command, str(tmp_path / "store"), str(rank)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(WORLD_SIZE)
    ]
    outputs = [worker.communicate(timeout=100) for worker in workers]
    for worker, (_, errors) in zip(workers, outputs, strict=True):
        assert worker.returncode == 0, errors
    found = [json.loads(output) for output, _ in outputs]
    expected = NoiseScale(num_samples=1000)
    for update, parts in enumerate(torch.stack([gradients(0), gradients(1)], 1)):
        if update in OVERFLOWED:
            continue
        norms = parts.square().sum().item(), parts.mean(0).square().sum().item()
        expected.update_micro_batches(WORLD_SIZE, SIZE, *norms)
    assert found[0]["state"] == found[1]["state"]
    skipped = {"count": UPDATES, "skipped": len(OVERFLOWED)}
    state = expected.state_dict() | skipped
    assert found[0]["state"] == pytest.approx(state, rel=1e-12)
    for rank in range(WORLD_SIZE):
        assert "batch_size must be the same on every rank" in found[rank]["unequal"]


if __name__ == "__main__":
    measure(int(sys.argv[2]), sys.argv[1])
