"""Per-coordinate variance: ours beside torch's, in turn, in one process."""

import statistics
import time

import pytest
import torch

from batchramp import _rust
from batchramp.gradient_variance import GradientVariance

ROUNDS = 7
GRADIENTS = 32
# Three tensors of ResNet-18's shapes times a scale; small where nothing is timed.
SHAPES = ((512, 512, 3, 3), (512, 256, 3, 3), (1000, 512))


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def medians(functions, rounds):
    """Median seconds of each, taken in turn so that a slow spell meets them all."""
    times = [[seconds(function) for function in functions] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def prepare(benchmark):
    """Number of coordinates and of rounds; one thread, as ours has no more."""
    if benchmark.enabled and _rust.BUILD_PROFILE != "release":
        pytest.fail("benchmarks need a release build")
    benchmark.extra_info["build"] = _rust.BUILD_PROFILE
    torch.manual_seed(0)
    return (4_000_000, ROUNDS) if benchmark.enabled else (10_000, 1)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class ForeachWelford:
    """The streaming update as torch's fused list operations write it."""

    def __init__(self, gradients):
        self.count = 0
        self.mean = [torch.zeros_like(part) for part in gradients]
        self.squares = [torch.zeros_like(part) for part in gradients]

    def update(self, gradients):
        self.count += 1
        before = torch._foreach_sub(gradients, self.mean)
        torch._foreach_add_(self.mean, before, alpha=1 / self.count)
        after = torch._foreach_sub(gradients, self.mean)
        torch._foreach_addcmul_(self.squares, before, after)


def test_stacked(benchmark, capsys):
    length, rounds = prepare(benchmark)
    rows = torch.randn(GRADIENTS, length)
    ours, theirs, floor = (
        lambda: GradientVariance.from_stacked(rows).variance(),
        lambda: torch.var_mean(rows, 0),
        rows.sum,
    )
    assert torch.allclose(ours(), theirs()[0], rtol=1e-4)
    benchmark.pedantic(ours, rounds=rounds)
    ours_s, theirs_s, floor_s = medians([ours, theirs, floor], min(rounds, 3))
    if not benchmark.enabled:
        return
    with capsys.disabled():
        print(
            f"\nstacked {GRADIENTS} x {length}: ours {ours_s * 1e3:.1f} ms, "
            f"torch.var_mean {theirs_s * 1e3:.1f} ms ({theirs_s / ours_s:.1f}x), floor "
            f"(one read, X.sum()) {floor_s * 1e3:.1f} ms ({ours_s / floor_s:.1f}x)"
        )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_streaming(benchmark, dtype, capsys):
    length, rounds = prepare(benchmark)
    shapes = SHAPES if benchmark.enabled else ((length,), (3, 7))
    gradients = [torch.randn(shape) for shape in shapes]
    count = sum(part.numel() for part in gradients)
    ours, theirs = GradientVariance(dtype=dtype), ForeachWelford(gradients)
    # The state (two arrays) is read and written, the gradient read. The floor moves as
    # many bytes at the speed of an addition in place, the same mix of reads and writes,
    # on as large a working set.
    itemsize = 4 if dtype == "float32" else 8
    held, moved = 2 * itemsize + 4, 4 * itemsize + 4
    one, two = torch.zeros(2, count * held // 8)
    functions = [
        lambda: ours.update(gradients),
        lambda: theirs.update(gradients),
        lambda: one.add_(two),
    ]
    benchmark.pedantic(functions[0], rounds=rounds)
    ours_s, theirs_s, add_s = medians(functions, 5 * rounds)
    floor_s = add_s * moved / (1.5 * held)
    if not benchmark.enabled:
        return
    with capsys.disabled():
        print(
            f"\nstreaming {count} in {dtype}: ours {ours_s * 1e3:.2f} ms, foreach in "
            f"float32 {theirs_s * 1e3:.2f} ms ({theirs_s / ours_s:.1f}x), floor (bytes "
            f"at the speed of add_) {floor_s * 1e3:.2f} ms ({ours_s / floor_s:.1f}x)"
        )
