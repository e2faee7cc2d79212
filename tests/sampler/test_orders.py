"""Orders as a trainer meets them: large, in memory of its own, by several threads."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from batchramp.sampler import VariableBatchSampler

TRILLION = 10**12


def test_a_trillion_samples_are_read_and_resumed_anywhere():
    sampler = VariableBatchSampler(TRILLION, 128, order="bijective", seed=3)
    batches = iter(sampler)
    first = [next(batches) for _ in range(50)]
    flat = np.concatenate(first)
    assert len(np.unique(flat)) == 50 * 128
    assert 0 <= flat.min() < TRILLION / 100
    assert TRILLION * 0.99 < flat.max() < TRILLION
    state = json.loads(json.dumps(sampler.state_dict()))
    assert state["algo"] == "bijective-1"
    batches_before = TRILLION // 256
    state |= {
        "samples_consumed_global": batches_before * 128,
        "batches_yielded": batches_before,
    }
    sampler.load_state_dict(state)
    middle = next(iter(sampler))
    assert sampler.state_dict()["batches_yielded"] == batches_before + 1
    assert not set(middle) & set(flat.tolist())
    sampler.set_epoch(5)
    assert next(iter(sampler)) != first[0]


@pytest.mark.parametrize("order", ["exact", "bijective", "sequential"])
@pytest.mark.parametrize("boundary", ["keep", "drop", "wrap"])
def test_containers_hold_the_same_batches(order, boundary):
    def sampler(**more):
        return VariableBatchSampler(
            10_007, 256, order=order, boundary=boundary, seed=5, **more
        )

    lists, arrays, reused = sampler(), sampler(output="numpy"), sampler()
    buffer = torch.full((256,), -1)
    for _ in range(2):
        expected = list(lists)
        assert all(type(batch) is list and type(batch[0]) is int for batch in expected)
        got = list(arrays)
        assert all(batch.dtype == np.int64 for batch in got)
        assert [batch.tolist() for batch in got] == expected
        views = []
        for view in reused.batches_into(buffer):
            assert view.data_ptr() == buffer.data_ptr()
            views.append(view.tolist())
        assert views == expected
        assert reused.state_dict() == lists.state_dict()


@pytest.mark.parametrize("order", ["exact", "bijective"])
@pytest.mark.parametrize("num_samples", [1, 4_095, 300_001, 2**21 + 3])
def test_a_permutation_is_what_the_batches_are(order, num_samples):
    sampler = VariableBatchSampler(
        num_samples, num_samples, order=order, output="numpy", seed=2
    )
    threads = VariableBatchSampler(num_samples, 1, order=order, seed=2, threads=3)
    sampler.set_epoch(4)
    (whole,) = sampler
    out = torch.zeros(num_samples, dtype=torch.int64)
    assert threads.permutation(4, out) is out
    assert np.array_equal(out.numpy(), whole)
    assert np.array_equal(np.sort(whole), np.arange(num_samples))
    assert threads.permutation(4).equal(out)
    array = np.empty(num_samples, dtype=np.int64)
    assert threads.permutation(4, array) is array
    assert np.array_equal(array, whole)


def test_a_size_set_while_a_buffer_is_filled_holds_from_the_next_batch():
    sampler = VariableBatchSampler(100, 10)
    sizes = []
    for view in sampler.batches_into(np.empty(30, dtype=np.int64)):
        sizes.append(len(view))
        if len(sizes) == 2:
            sampler.set_batch_size(30)
        if len(sizes) == 3:
            sampler.set_batch_size(5, at=80)
    assert sizes == [10, 10, 30, 30, 5, 5, 5, 5]


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (torch.empty(5, dtype=torch.int64), "out must hold at least 10 samples, got 5"),
        (torch.empty(20, dtype=torch.int32), "out must be int64 .* got int32"),
        (torch.empty(20, 2, dtype=torch.int64), r"one dimension, got .*\(20, 2\)"),
        (torch.empty(40, dtype=torch.int64)[::2], "out must be contiguous"),
        (torch.empty(20, dtype=torch.int64, device="meta"), "CPU memory, got .* meta"),
        (torch.ones(20, dtype=torch.int64).to_sparse(), "plain memory, .*sparse_coo"),
        (
            np.frombuffer(bytearray(161), np.uint8)[1:].view(np.int64),
            "out must be contiguous, aligned",
        ),
        ([0] * 20, "out must be an int64 tensor or array"),
        (
            np.broadcast_to(np.int64(1), 20),
            "out must be contiguous, aligned and writable",
        ),
    ],
)
def test_memory_that_does_not_fit_is_refused_before_a_batch_is_lost(out, message):
    sampler = VariableBatchSampler(100, 10)
    with pytest.raises(ValueError, match=message):
        next(sampler.batches_into(out))
    assert sampler.state_dict()["batches_yielded"] == 0
    assert len(list(sampler)) == 10


def test_a_permutation_of_another_length_is_refused():
    sampler = VariableBatchSampler(100, 10)
    with pytest.raises(ValueError, match=r"out must have 100 elements .* got 99"):
        sampler.permutation(0, np.empty(99, dtype=np.int64))
    with pytest.raises(ValueError, match="epoch must be at least 0, got -1"):
        sampler.permutation(-1)


RESIDENT = """
import itertools, sys
import psutil
from batchramp.sampler import VariableBatchSampler

def drawn(num_samples, **more):
    sampler = VariableBatchSampler(num_samples, 1000, output="numpy", **more)
    for _ in itertools.islice(sampler, 300):
        pass
    state = sampler.state_dict()
    last = num_samples // 1000 - 1
    state |= {"samples_consumed_global": last * 1000, "batches_yielded": last}
    sampler.load_state_dict(state)
    # Under wrap the last batch of the pass runs on into the next one.
    for _ in sampler:
        pass
    return sampler

drawn(5_000, order="bijective")
drawn(5_000, order="exact")
before = psutil.Process().memory_info().rss
bijective = drawn(10**9, order="bijective", boundary="wrap")
between = psutil.Process().memory_info().rss
exact = drawn(10**7 + 1, order="exact", boundary="wrap")
after = psutil.Process().memory_info().rss
print(between - before, (after - between) / 10**7)
"""


def test_memory_is_constant_in_one_order_and_four_bytes_a_sample_in_the_other():
    out = subprocess.run(
        [sys.executable, "-c", RESIDENT], check=True, capture_output=True, text=True
    ).stdout
    bijective, per_sample = map(float, out.split())
    assert bijective < 2**21
    assert per_sample < 4.3
