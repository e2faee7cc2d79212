"""One pass of indices in batches of 128: ours beside torch's, in turn, in one process."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, RandomSampler, SubsetRandomSampler

from batchramp._rust import Batches
from batchramp.sampler import VariableBatchSampler

BATCH_SIZE = 128
# Rounds, and passes of each in a round, by number of samples: torch takes 20 seconds and
# more for the largest, and of the smallest one pass would measure how cold the caches are.
ROUNDS = {50_000: 9, 1_000_000: 7, 10_000_000: 3, 100_000_000: 2}
PASSES = {50_000: 20, 1_000_000: 2, 10_000_000: 1, 100_000_000: 1}
LARGE = 10_000_000


def drain(batches):
    for _ in batches:
        pass


def repeated(function, count):
    def call():
        for _ in range(count):
            function()

    return call


def ours(samples, order, output="list", threads=1):
    # One sampler goes from pass to pass, as in training.
    sampler = VariableBatchSampler(
        samples, BATCH_SIZE, order=order, output=output, threads=threads
    )
    return lambda: drain(sampler)


def passes(num_samples):
    """Every way to go through one pass."""
    tensor = torch.empty(num_samples, dtype=torch.int64)
    buffer = torch.empty(BATCH_SIZE, dtype=torch.int64)
    written, lists = tensor.numpy(), num_samples // BATCH_SIZE
    bijective = VariableBatchSampler(num_samples, order="bijective", batch_size=1)
    two = VariableBatchSampler(num_samples, order="bijective", batch_size=1, threads=2)
    reused = VariableBatchSampler(num_samples, BATCH_SIZE, order="bijective")
    source = BatchSampler(RandomSampler(range(num_samples)), BATCH_SIZE, False)
    # Every second one of twice as many samples. Torch looks them up in the range itself,
    # which costs it less than a list: no memory.
    ids = range(1, 2 * num_samples, 2)
    subset = BatchSampler(SubsetRandomSampler(ids), BATCH_SIZE, False)
    ready = list(range(10**6, 10**6 + BATCH_SIZE))
    array = np.array(ready)
    return {
        "torch BatchSampler": lambda: drain(source),
        "torch BatchSampler, indices": lambda: drain(subset),
        "torch.randperm(out=)": lambda: torch.randperm(num_samples, out=tensor),
        "bijective, arrays": ours(num_samples, "bijective", "numpy"),
        "exact, arrays": ours(num_samples, "exact", "numpy"),
        "exact, arrays, 2 threads": ours(num_samples, "exact", "numpy", 2),
        "bijective, arrays, indices": ours(ids, "bijective", "numpy"),
        "exact, arrays, indices": ours(ids, "exact", "numpy"),
        "bijective, lists": ours(num_samples, "bijective"),
        "exact, lists": ours(num_samples, "exact"),
        "bijective, into a buffer": lambda: drain(reused.batches_into(buffer)),
        "bijective, whole pass": lambda: bijective.permutation(7, tensor),
        "bijective, whole pass, 2 threads": lambda: two.permutation(7, tensor),
        # The floors: every index written, every array made, every list made.
        "floor of writing": lambda: written.fill(1),
        "floor of arrays": lambda: drain(array.copy() for _ in range(lists)),
        "floor of lists": lambda: drain(array.tolist() for _ in range(lists)),
    }


def floor_of(name):
    kinds = {"arrays": "arrays", "lists": "lists"}
    return f"floor of {next((kinds[k] for k in kinds if k in name), 'writing')}"


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("one_thread")
def test_one_pass(benchmark, in_turn, say):
    sizes = ROUNDS if benchmark.enabled else [min(ROUNDS)]
    for num_samples in sizes:
        functions, count = passes(num_samples), PASSES[num_samples]
        turns = in_turn(
            [repeated(function, count) for function in functions.values()],
            ROUNDS[num_samples],
        )
        say(table(num_samples, list(functions), turns))
    smallest = passes(min(ROUNDS))["bijective, arrays"]
    benchmark.pedantic(smallest, rounds=9, iterations=20)


def table(num_samples, names, turns):
    rounds, count = ROUNDS[num_samples], PASSES[num_samples]
    lines = [f"{num_samples} samples, ns an index (median of {rounds} rounds):"]
    for index, name in enumerate(names):
        each = turns.seconds(index) / (num_samples * count) * 1e9
        line = f"  {name:33} {each:8.2f}"
        if not name.startswith(("torch", "floor")):
            peer = "torch.randperm(out=)" if "whole" in name else "torch BatchSampler"
            peer += ", indices" if "indices" in name else ""
            ratio = turns.ratio(names.index(peer), index)
            above = turns.ratio(index, names.index(floor_of(name)))
            line += f"  {ratio:6.1f}x {peer:27} {above:5.1f}x the {floor_of(name)}"
        lines.append(line)
    return "\n".join(lines)


@pytest.mark.parametrize("num_samples", [2**30, 10**12])
def test_a_stretch_of_very_many(benchmark, num_samples, in_turn, say):
    count = 10_000_000 if benchmark.enabled else 10_000
    batches, out = Batches(num_samples, order="bijective"), np.empty(count, np.int64)
    functions = [lambda: batches.fill(num_samples // 3, out), lambda: out.fill(1)]
    turns = in_turn(functions, 9)
    benchmark.pedantic(functions[0], rounds=1)
    say(
        f"{count} of {num_samples} samples, bijective, into an array: "
        f"{turns.seconds(0) / count * 1e9:.2f} ns an index, {turns.ratio(0, 1):.1f}x the "
        "floor of writing"
    )


MEASURE = """
import json, sys, time
import psutil
from batchramp._rust import Batches
from batchramp.sampler import VariableBatchSampler

def resident():
    return psutil.Process().memory_info().rss

num_samples, order = int(sys.argv[1]), sys.argv[2]
next(iter(VariableBatchSampler(10_000, 128, order=order, output="numpy")))
before = resident()
begun = time.perf_counter()
sampler = VariableBatchSampler(num_samples, 128, order=order, output="numpy")
next(iter(sampler))
first = time.perf_counter() - begun
half = sampler.state_dict() | {
    "samples_consumed_global": num_samples // 256 * 128,
    "batches_yielded": num_samples // 256,
}
fresh = VariableBatchSampler(num_samples, 128, order=order, output="numpy")
begun = time.perf_counter()
fresh.load_state_dict(half)
next(iter(fresh))
resumed = time.perf_counter() - begun
del fresh
# The start of a pass, its middle and its end are in memory by now, if anything is.
for index, _ in enumerate(sampler):
    if index > 1000:
        break
print(json.dumps([first, resumed, resident() - before]))
"""


@pytest.mark.parametrize("order", ["bijective", "exact"])
def test_first_batch_resume_and_memory(benchmark, order, say):
    num_samples = LARGE if benchmark.enabled else 50_000
    begun = time.perf_counter()
    out = subprocess.run(
        [sys.executable, "-c", MEASURE, str(num_samples), order],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    benchmark.pedantic(lambda: None, rounds=1)
    benchmark.extra_info["process_seconds"] = time.perf_counter() - begun
    first, resumed, memory = json.loads(out)
    say(
        f"{num_samples} samples, {order}: first batch {first * 1e3:.2f} ms, resume at half "
        f"a pass {resumed * 1e3:.2f} ms, {memory / num_samples:.2f} bytes an index resident"
    )
