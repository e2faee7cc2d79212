"""The accumulator's state: to and from disk, across threads and across a fork."""

import copy
import io
import multiprocessing
import pickle
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from batchramp import _rust
from batchramp.gradient_variance import GradientVariance


@pytest.fixture(autouse=True)
def _threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def filled(rows, **kwargs):
    variance = GradientVariance(4, **kwargs)
    for row in rows:
        variance.update(row)
    return variance


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_state_goes_to_disk_and_back(count, dtype):
    rows = torch.randn(5, 7, generator=torch.manual_seed(0))
    variance = filled(rows[:count], dtype=dtype)
    file = io.BytesIO()
    torch.save(variance.state_dict(), file)
    file.seek(0)
    again = filled(rows[:2], dtype=dtype)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert again.count == count
    for row in rows[count:]:
        variance.update(row)
        again.update(row)
    assert torch.equal(again.variance(), variance.variance())
    assert torch.equal(again.mean(), variance.mean())


def test_a_state_is_a_copy():
    variance = filled([torch.ones(2)])
    state = variance.state_dict()
    variance.update(torch.zeros(2))
    assert state["count"] == 1
    assert state["mean"].tolist() == [1.0, 1.0]
    state["mean"].fill_(9.0)
    assert variance.mean().tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": 1}, "state must have the keys"),
        ({"version": 2}, "state's version must be 1, got 2"),
        ({"batch_size": 5}, "state's batch_size must be 4, got 5"),
        ({"batch_size": 4.0}, "state's batch_size must be a whole number, got 4.0"),
        (
            {"batch_size": 10**400},
            "state's batch_size must be 4, got a whole number of",
        ),
        (
            {"dtype": torch.float32},
            "state's dtype must be 'float32', got torch.float32",
        ),
        ({"mean": [1.0, 2.0]}, "state's mean must be a tensor or an array .* got list"),
        ({"dtype": "float64"}, "state's dtype must be 'float32', got 'float64'"),
        ({"count": -1}, "state's count must be at least 0"),
        ({"count": 2.0}, "state's count must be a whole number"),
        ({"count": 2**64}, "state's count must be at most 9007199254740992"),
        ({"count": 0}, "state's count must be at least 1 with a mean"),
        ({"mean": None}, "state's mean must be a tensor"),
        ({"mean": torch.ones(2).double()}, "flat tensor of float32"),
        ({"mean": torch.ones(2, 1)}, "flat tensor of float32"),
        ({"mean": torch.ones(3)}, "must have the length of its mean, 3"),
        ({"squared_deviations": torch.tensor([1.0, -1.0])}, "must not be negative"),
    ],
)
def test_what_is_no_state_is_refused_and_changes_nothing(change, message):
    variance = filled(torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
    before = variance.variance()
    with pytest.raises(ValueError, match=message):
        variance.load_state_dict(variance.state_dict() | change)
    assert torch.equal(variance.variance(), before)
    with pytest.raises(ValueError, match="must have the keys"):
        variance.load_state_dict([1])


def test_a_state_that_saw_nan_loads():
    variance = filled(torch.tensor([[1.0, float("nan")], [3.0, 5.0]]))
    again = GradientVariance(4)
    again.load_state_dict(variance.state_dict())
    assert torch.equal(again.variance().isnan(), torch.tensor([False, True]))


def test_the_number_of_threads_changes_nothing():
    rows = torch.randn(9, 400_003, generator=torch.manual_seed(0))
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        variance = filled([row[:70_000], row[70_000:]] for row in rows)
        variance.merge(GradientVariance.from_stacked(rows, 4))
        results.append((variance.variance(), variance.trace()))
    for variance, trace in results[1:]:
        assert torch.equal(variance, results[0][0])
        assert trace == results[0][1]


def test_threads_of_python_take_turns():
    torch.set_num_threads(2)
    variance, gradient = GradientVariance(), torch.ones(300_000)
    variance.update(gradient)
    workers = [
        threading.Thread(target=lambda: [variance.update(gradient) for _ in range(20)])
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert variance.count == 81
    assert variance.trace() == 0.0


def update_on_two_threads(moments, rows, pipe):
    for row in rows:
        moments.update([row], threads=2)
    pipe.send((moments.trace(1.0, threads=2), own_threads()))


def own_threads():
    """How many threads of this process are of our own pool."""
    names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    return sum(name.startswith("batchramp-") for name in names)


@pytest.mark.skipif(
    sys.platform != "linux" or "OpenMP" not in torch.__config__.parallel_info(),
    reason="torch has no threads to lend",
)
def test_work_is_done_on_the_threads_of_torch():
    torch.set_num_threads(2)
    torch.ones(300_000).add_(1.0)
    variance = filled(torch.randn(2, 300_000))
    variance.trace()
    assert own_threads() == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="no fork here"
)
def test_a_forked_child_has_threads_of_its_own():
    rows = np.random.default_rng(0).normal(size=(4, 300_000))
    moments = _rust.Moments(rows.shape[1], dtype="float64")
    moments.update([rows[0]], threads=2)  # so that the parent has threads
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(
        target=update_on_two_threads, args=(moments, rows[1:], theirs)
    )
    child.start()
    assert ours.poll(60)
    trace, own = ours.recv()
    child.join(60)
    assert child.exitcode == 0
    assert moments.count == 1
    assert trace == pytest.approx(rows.var(0, ddof=1).sum())
    if sys.platform == "linux":
        assert own > 0
    for row in rows[1:]:
        moments.update([row], threads=2)
    assert trace == moments.trace(1.0, threads=2)  # on other threads the same number


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))]
)
def test_copies_go_on_alike(copied):
    variance = GradientVariance(4, dtype="float64")
    assert copied(variance).count == 0
    for gradient in torch.randn(3, 7):
        variance.update(gradient)
    other = copied(variance)
    assert other.trace() == variance.trace()
    other.update(torch.ones(7))
    assert (other.count, variance.count) == (4, 3)
