"""Per-coordinate variance: ours beside torch's, in turn, in one process."""

import pytest
import torch

from batchramp.gradient_variance import GradientVariance

ROUNDS = 7
GRADIENTS = 32
# Three tensors of ResNet-18's shapes times a scale; small where nothing is timed.
SHAPES = ((512, 512, 3, 3), (512, 256, 3, 3), (1000, 512))


def coordinates(benchmark):
    torch.manual_seed(0)
    return 4_000_000 if benchmark.enabled else 10_000


@pytest.fixture(autouse=True)
def _one_thread():  # as ours has no more
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


def test_stacked(benchmark, in_turn, say):
    length = coordinates(benchmark)
    rows = torch.randn(GRADIENTS, length)
    functions = (
        lambda: GradientVariance.from_stacked(rows).variance(),
        lambda: torch.var_mean(rows, 0),
        rows.sum,
    )
    ours, theirs = functions[:2]
    assert torch.allclose(ours(), theirs()[0], rtol=1e-4)
    benchmark.pedantic(ours, rounds=ROUNDS)
    turns = in_turn(functions, 3)
    ours_ms, theirs_ms, floor_ms = (turns.seconds(index) * 1e3 for index in range(3))
    say(
        f"stacked {GRADIENTS} x {length}: ours {ours_ms:.1f} ms, torch.var_mean "
        f"{theirs_ms:.1f} ms ({turns.ratio(1, 0):.1f}x), floor (one read, X.sum()) "
        f"{floor_ms:.1f} ms ({turns.ratio(0, 2):.1f}x)"
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_streaming(benchmark, dtype, in_turn, say):
    length = coordinates(benchmark)
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
    benchmark.pedantic(functions[0], rounds=ROUNDS)
    turns = in_turn(functions, 5 * ROUNDS)
    ours_ms, theirs_ms, add_ms = (turns.seconds(index) * 1e3 for index in range(3))
    share = moved / (1.5 * held)
    say(
        f"streaming {count} in {dtype}: ours {ours_ms:.2f} ms, foreach in float32 "
        f"{theirs_ms:.2f} ms ({turns.ratio(1, 0):.1f}x), floor (bytes at the speed of "
        f"add_) {add_ms * share:.2f} ms ({turns.ratio(0, 2) / share:.1f}x)"
    )
