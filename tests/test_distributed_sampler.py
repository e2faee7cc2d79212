"""Two real processes: each rank its share, and weights that make DDP's mean exact."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

from batchramp.sampler import VariableBatchSampler

SAMPLES, WORLD_SIZE = 41, 2


def ramp(position):
    return 3 + position // 10


def make_data():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(SAMPLES, 5, generator=generator, dtype=torch.float64)
    labels = torch.randn(SAMPLES, 1, generator=generator, dtype=torch.float64)
    return TensorDataset(torch.arange(SAMPLES), inputs, labels)


def make_model():
    model = nn.Linear(5, 1, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.linspace(-1, 1, 5))
        model.bias.fill_(0.5)
    return model


def gradients(model, sampler, weigh):
    """The gradient of each batch of a pass, and the samples behind it."""
    found = []
    loader = DataLoader(make_data(), batch_sampler=sampler)
    for update, (indices, inputs, labels) in enumerate(loader):
        model.zero_grad()
        loss = nn.functional.mse_loss(model(inputs), labels)
        (loss * weigh(update)).backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        found.append((indices.tolist(), gradient.tolist()))
    return found


def train(rank, store):
    distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=WORLD_SIZE
    )
    sampler = VariableBatchSampler(
        SAMPLES, schedule=ramp, boundary="drop", rank=rank, world_size=WORLD_SIZE
    )
    found = gradients(DistributedDataParallel(make_model()), sampler, sampler.weight)
    sys.stdout.write(json.dumps({"found": found, "state": sampler.state_dict()}))
    sys.stdout.flush()
    distributed.barrier()
    # Not by way of the interpreter's end, which gloo's threads abort now and then.
    os._exit(0)


@pytest.mark.timeout(120)
def test_two_processes_average_to_the_global_gradient(tmp_path):
    command = [sys.executable, "-W", "ignore", str(Path(__file__))]
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(WORLD_SIZE)
    ]
    outputs = [process.communicate(timeout=100) for process in processes]
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors
    ranks = [json.loads(output) for output, _ in outputs]

    alone = VariableBatchSampler(SAMPLES, schedule=ramp, boundary="drop")
    expected = gradients(make_model(), alone, lambda _: 1.0)
    shares = list(zip(*(rank["found"] for rank in ranks), strict=True))
    assert len(shares) == len(expected)
    uneven = 0
    for parts, (indices, gradient) in zip(shares, expected, strict=True):
        assert list(itertools.chain(*(part[0] for part in parts))) == indices
        uneven += len(parts[0][0]) != len(parts[1][0])
        for part in parts:  # after the all-reduce every rank holds the same
            assert part[1] == pytest.approx(gradient, rel=1e-12)
    assert uneven
    # The state knows no ranks: one process goes on from what two of them saved.
    assert ranks[0]["state"] == ranks[1]["state"] == alone.state_dict()


if __name__ == "__main__":
    train(int(sys.argv[1]), sys.argv[2])
