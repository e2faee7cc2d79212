"""What the whole path costs a small model's update, beside a bare PyTorch loop's.

    make bench            # or: pytest benches/bench_step.py --benchmark-enable -s

The bare loop is the usual one on data in memory: slice a permutation, index, forward,
mean cross-entropy, backward, `torch.optim.SGD(fused=True)`. Ours adds the schedule's
decision, the sampler, exact weights, the loss record and the train clock. Both run in
turn, so that the machine's drift falls on both; the median of the ratios is printed.
"""

from __future__ import annotations

import statistics
import time
from fractions import Fraction

import pytest
import torch
from torch.nn import functional

from batchramp.schedules import make
from batchramp.training.loop import run_trial
from batchramp.training.trial import Trial
from batchramp.workloads import find_workload

WORKLOAD = find_workload("digits")
CPU = torch.device("cpu")


def ours(batch_size: int, epochs: int) -> tuple[float, int]:
    """Return train seconds and updates of a trial."""
    trial = Trial(
        workload=WORKLOAD,
        schedule=make("constant", batch_size=batch_size, lr=0.1, momentum=0.9),
        seed=0,
        epochs=Fraction(epochs),
        cadence=Fraction(1),
        weight_decay=5e-4,
    )
    end = run_trial(trial, WORKLOAD.load(None, 0), CPU).rows[-1]
    return end.train_seconds, end.updates


def bare(batch_size: int, epochs: int) -> tuple[float, int]:
    """Return seconds and updates of the usual loop."""
    train = WORKLOAD.load(None, 0).train
    model = WORKLOAD.model()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, fused=True
    )
    inputs, targets = train.inputs, train.targets
    updates = 0
    started = time.perf_counter()
    for _ in range(epochs):
        order = torch.randperm(len(train))
        for start in range(0, len(train), batch_size):
            batch = order[start : start + batch_size]
            optimizer.zero_grad(set_to_none=True)
            loss = functional.cross_entropy(model(inputs[batch]), targets[batch])
            loss.backward()
            optimizer.step()
            updates += 1
    return time.perf_counter() - started, updates


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("batch_size", [8, 32])
def test_a_digits_update_beside_a_bare_loops(benchmark, batch_size, say):
    def pair():
        return [
            seconds / updates * 1e6
            for seconds, updates in (loop(batch_size, 4) for loop in (bare, ours))
        ]

    pair()  # the first imports and allocates
    rounds = [pair() for _ in range(11 if benchmark.enabled else 1)]
    theirs, mine = (statistics.median(side) for side in zip(*rounds, strict=True))
    ratio = statistics.median(b / a for a, b in rounds)
    benchmark.extra_info.update(bare_us=theirs, ours_us=mine, ratio=ratio)
    say(
        f"digits, B = {batch_size}: ours {mine:.0f} us an update, bare loop "
        f"{theirs:.0f} us; median of ratios {ratio:.3f}"
    )
    benchmark.pedantic(ours, args=(batch_size, 4), rounds=3)
