"""One pass of batches of 128: ours beside torch's, in turn, in one process."""

import statistics
import time

import numpy as np
import pytest
from torch.utils.data import BatchSampler, RandomSampler

from batchramp import _rust
from batchramp.sampler import VariableBatchSampler

BATCH_SIZE = 128
ROUNDS = 7
# Torch takes a fifth of a second for the largest: plain pytest runs these once.
SIZES = (50_000, 1_000_000)


def drain(sampler):
    for _ in sampler:
        pass


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def medians(functions, rounds):
    """Median seconds of each, taken in turn so that a slow spell meets them all."""
    times = [[seconds(function) for function in functions] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def make_lists(num_samples):
    for start in range(0, num_samples, BATCH_SIZE):
        list(range(start, start + BATCH_SIZE))


def samplers(num_samples):
    return {
        "torch": BatchSampler(RandomSampler(range(num_samples)), BATCH_SIZE, False),
        "list": VariableBatchSampler(num_samples, BATCH_SIZE),
        "numpy": VariableBatchSampler(num_samples, BATCH_SIZE, output="numpy"),
    }


@pytest.mark.parametrize("num_samples", SIZES)
@pytest.mark.parametrize("name", ["torch", "list", "numpy"])
def test_one_pass(benchmark, num_samples, name):
    benchmark.group = f"{num_samples} samples"
    benchmark.extra_info["build"] = _rust.BUILD_PROFILE
    benchmark(drain, samplers(num_samples)[name])


@pytest.mark.parametrize("num_samples", SIZES)
def test_ratio_to_torch_and_distance_to_the_floor(benchmark, num_samples, capsys):
    if benchmark.enabled and _rust.BUILD_PROFILE != "release":
        pytest.fail("benchmarks need a release build")
    both = samplers(num_samples)
    buffer = np.empty(num_samples, dtype=np.int64)
    functions = [lambda sampler=sampler: drain(sampler) for sampler in both.values()]
    # The floors: each index written once into warm memory, and each list of them made.
    functions.append(lambda: buffer.fill(1))
    functions.append(lambda: make_lists(num_samples))
    rounds = ROUNDS if benchmark.enabled else 1
    benchmark.pedantic(functions[1], rounds=rounds)
    torch_s, list_s, numpy_s, write_s, lists_s = medians(functions, rounds)
    if not benchmark.enabled:
        return
    with capsys.disabled():
        print(
            f"\n{num_samples} samples, batches of {BATCH_SIZE}, ns per index: torch "
            f"{torch_s / num_samples * 1e9:.1f}, list {list_s / num_samples * 1e9:.1f} "
            f"({torch_s / list_s:.1f}x torch, {list_s / lists_s:.1f}x the floor of "
            f"making lists), numpy {numpy_s / num_samples * 1e9:.1f} "
            f"({torch_s / numpy_s:.1f}x torch, {numpy_s / write_s:.1f}x the floor of "
            "writing int64)"
        )
