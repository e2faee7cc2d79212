"""One pass of batches of 128: ours beside torch's, in turn, in one process."""

import numpy as np
import pytest
from torch.utils.data import BatchSampler, RandomSampler

from batchramp.sampler import VariableBatchSampler

BATCH_SIZE = 128
ROUNDS = 7
# Torch takes a fifth of a second for the largest: plain pytest runs these once.
SIZES = (50_000, 1_000_000)


def drain(sampler):
    for _ in sampler:
        pass


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
    benchmark(drain, samplers(num_samples)[name])


@pytest.mark.parametrize("num_samples", SIZES)
def test_ratio_to_torch_and_distance_to_the_floor(benchmark, num_samples, in_turn, say):
    both = samplers(num_samples)
    buffer = np.empty(num_samples, dtype=np.int64)
    functions = [lambda sampler=sampler: drain(sampler) for sampler in both.values()]
    # The floors: each index written once into warm memory, and each list of them made.
    functions.append(lambda: buffer.fill(1))
    functions.append(lambda: make_lists(num_samples))
    turns = in_turn(functions, ROUNDS)
    benchmark.pedantic(functions[1], rounds=ROUNDS)
    torch, lists, arrays, writing, making = range(5)
    ns = [turns.seconds(index) / num_samples * 1e9 for index in range(5)]
    say(
        f"{num_samples} samples, batches of {BATCH_SIZE}, ns per index: torch "
        f"{ns[torch]:.1f}, list {ns[lists]:.1f} ({turns.ratio(torch, lists):.1f}x torch, "
        f"{turns.ratio(lists, making):.1f}x the floor of making lists), numpy "
        f"{ns[arrays]:.1f} ({turns.ratio(torch, arrays):.1f}x torch, "
        f"{turns.ratio(arrays, writing):.1f}x the floor of writing int64)"
    )
