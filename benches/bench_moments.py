"""Gradient variance and norms beside torch's, in turn, at one and at two threads.

On the shapes of ResNet-18 where something is timed, on a few small ones where not. The
peers' vectors are the processor's widest; `ATEN_CPU_CAPABILITY=avx2` gives them AVX2,
which is what ours are on any x86.
"""

import shutil
import warnings

import pytest
import torch
from torch import nn

from batchramp.gradient_variance import GradientNorms, GradientVariance, squared_norm

GRADIENTS = 32
ROUNDS = 21
PRECISIONS = [
    (torch.float32, "float32"),
    (torch.bfloat16, "float32"),
    (torch.float32, "float64"),
]


def resnet18():
    """Shapes of the 62 parameters of torchvision's ResNet-18: 11,689,512 in all."""
    shapes = [(64, 3, 7, 7), (64,), (64,)]
    before = 64
    for width in (64, 128, 256, 512):
        for block in range(2):
            for size, source in ((3, before), (3, width)):
                shapes += [(width, source, size, size), (width,), (width,)]
            if block == 0 and before != width:
                shapes += [(width, before, 1, 1), (width,), (width,)]
            before = width
    return [*shapes, (1000, 512), (1000,)]


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    torch.manual_seed(0)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def gradients(benchmark):
    shapes = resnet18() if benchmark.enabled else [(64, 3, 7, 7), (64,), (10, 64)]
    return [torch.randn(shape) for shape in shapes]


def triad(count):
    """What moves 12 bytes a coordinate, two thirds of them read: z = x + 2 y."""
    x, y, z = torch.randn(3, count)
    return lambda: torch.add(x, y, alpha=2.0, out=z)


class ForeachWelford:
    """The streaming update in three of torch's list operations."""

    def __init__(self, gradients, dtype):
        self.count = 0
        self.mean = [torch.zeros_like(part, dtype=dtype) for part in gradients]
        self.squares = [torch.zeros_like(part) for part in self.mean]
        self.wide = [torch.zeros_like(part) for part in self.mean]

    def update(self, gradients):
        self.count += 1
        if gradients[0].dtype != self.mean[0].dtype:
            torch._foreach_copy_(self.wide, gradients)
            gradients = self.wide
        before = torch._foreach_sub(gradients, self.mean)
        torch._foreach_add_(self.mean, before, alpha=1 / self.count)
        share = (self.count - 1) / self.count
        torch._foreach_addcmul_(self.squares, before, before, value=share)


def compiled(count, dtype, state):
    """The streaming update fused by `torch.compile`, over one flat gradient."""
    gradient = torch.randn(count).to(dtype)
    mean, squares = torch.zeros(2, count, dtype=state)
    inverse = torch.tensor(0.5, dtype=state)

    def welford(gradient, mean, squares, inverse):
        value = gradient.to(mean.dtype)
        before = value - mean
        after = mean + before * inverse
        squares.add_(before * (value - after))
        mean.copy_(after)

    torch._dynamo.reset()  # it settles the number of threads
    fused = torch.compile(welford, dynamic=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fused(gradient, mean, squares, inverse)
    return lambda: fused(gradient, mean, squares, inverse)


def beside(turns, functions):
    """How the first function does beside the fourth, `torch.compile`'s, if it is there."""
    if len(functions) < 4:
        return "no C++ compiler for torch.compile"
    return (
        f"torch.compile {turns.seconds(3) * 1e3:.2f} ms (ours is "
        f"{turns.ratio(3, 0):.2f}x of torch.compile's speed)"
    )


def training_step():
    """A forward and backward pass of a small network: some 10 ms of torch's threads."""
    network = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 16, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 16 * 16, 10),
    )
    images, classes = torch.randn(16, 3, 32, 32), torch.randint(0, 10, (16,))

    def step():
        network.zero_grad()
        nn.functional.cross_entropy(network(images), classes).backward()

    return step


def test_stacked(benchmark, threads, in_turn, say):
    length = 11_689_512 if benchmark.enabled else 10_000
    rows = torch.randn(GRADIENTS, length)

    def ours():
        return GradientVariance.from_stacked(rows).variance()

    def theirs():
        return torch.var_mean(rows, 0)

    assert torch.allclose(ours(), theirs()[0], rtol=1e-4)
    benchmark.pedantic(ours, rounds=ROUNDS)
    # Each twice, the second counts: while the peer runs for seconds, a virtual machine's
    # host takes free memory back, and the first call of the next one waits for it.
    peers = in_turn((theirs, theirs, ours, ours), 3)
    floors = in_turn((rows.sum, ours), ROUNDS)
    say(
        f"stacked {GRADIENTS} x {length}, {threads} threads: ours "
        f"{floors.seconds(1) * 1e3:.0f} ms, torch.var_mean {peers.seconds(1) * 1e3:.0f} "
        f"ms ({peers.ratio(1, 3):.1f}x), floor (one read, X.sum()) "
        f"{floors.seconds(0) * 1e3:.0f} ms ({floors.ratio(1, 0):.2f}x)"
    )


@pytest.mark.parametrize(("dtype", "state"), PRECISIONS)
def test_streaming(benchmark, threads, gradients, dtype, state, in_turn, say):
    gradients = [part.to(dtype) for part in gradients]
    count = sum(part.numel() for part in gradients)
    ours = GradientVariance(dtype=state)
    theirs = ForeachWelford(gradients, getattr(torch, state))
    functions = [
        lambda: ours.update(gradients),
        lambda: theirs.update(gradients),
        triad(count),
    ]
    has_compiler = shutil.which("c++") is not None
    if benchmark.enabled and has_compiler:
        functions.append(compiled(count, dtype, getattr(torch, state)))
    benchmark.pedantic(functions[0], rounds=ROUNDS)
    turns = in_turn(functions, 2 * ROUNDS)
    ours_ms, theirs_ms, triad_ms = (turns.seconds(index) * 1e3 for index in range(3))
    itemsize = 4 if state == "float32" else 8
    moved = 4 * itemsize + dtype.itemsize  # the state read and written, the gradient
    say(
        f"streaming {count} of {dtype} into {state}, {threads} threads: ours "
        f"{ours_ms:.2f} ms, foreach {theirs_ms:.2f} ms ({turns.ratio(1, 0):.1f}x), "
        f"{beside(turns, functions)}, {100 * turns.ratio(2, 0) * moved / 12:.0f}% of "
        f"triad bandwidth ({triad_ms:.2f} ms)"
    )


@pytest.mark.parametrize("threads", [2], indirect=True)
@pytest.mark.parametrize(("dtype", "state"), PRECISIONS)
def test_in_training(benchmark, threads, gradients, dtype, state, in_turn, say):
    """Updates and squared norms between the steps of a training, which are not timed.

    As users have them: torch's other threads have just worked, and spin.
    """
    gradients = [part.to(dtype) for part in gradients]
    ours = GradientVariance(dtype=state)
    functions = [
        lambda: ours.update(gradients),
        lambda: squared_norm(gradients),
        lambda: foreach_squared_norm(gradients),
    ]
    if benchmark.enabled and shutil.which("c++") is not None:
        count = sum(part.numel() for part in gradients)
        functions.append(compiled(count, dtype, getattr(torch, state)))
    step = training_step()
    benchmark.pedantic(functions[0], setup=step, rounds=ROUNDS)
    turns = in_turn(functions, 2 * ROUNDS, between=step)
    ours_ms, norm_ms, foreach_ms = (turns.seconds(index) * 1e3 for index in range(3))
    say(
        f"in a training loop, {dtype} into {state}, {threads} threads: streaming ours "
        f"{ours_ms:.2f} ms, {beside(turns, functions)}; squared norm ours "
        f"{norm_ms:.2f} ms, foreach norms {foreach_ms:.2f} ms (ours is "
        f"{turns.ratio(2, 1):.2f}x of their speed)"
    )


def foreach_squared_norm(gradients, dtype=None):
    norms = torch._foreach_norm(gradients, dtype=dtype)
    return torch.stack(norms).square().sum().item()


def test_squared_norm(benchmark, threads, gradients, in_turn, say):
    flat = torch.cat([part.flatten() for part in gradients])

    def ours():
        return squared_norm(gradients)

    def theirs():
        return foreach_squared_norm(gradients)

    def double():
        return foreach_squared_norm(gradients, torch.float64)

    assert ours() == pytest.approx(double(), rel=1e-9)
    benchmark.pedantic(ours, rounds=ROUNDS)
    # Each after the floor's read of other memory, so that none finds the gradients in
    # the cache where the one before has left them.
    functions = (flat.sum, ours, flat.sum, theirs, flat.sum, double)
    turns = in_turn(functions, 3 * ROUNDS)
    floor_ms, ours_ms, _, theirs_ms, _, double_ms = (
        turns.seconds(index) * 1e3 for index in range(6)
    )
    say(
        f"squared norm of {flat.numel()}, {threads} threads: ours {ours_ms:.2f} ms, "
        f"foreach norms {theirs_ms:.2f} ms (ours is {turns.ratio(3, 1):.2f}x of their "
        f"speed), in float64 as ours {double_ms:.2f} ms ({turns.ratio(5, 1):.1f}x), "
        f"floor (one read, sum) {floor_ms:.2f} ms ({turns.ratio(1, 0):.2f}x)"
    )


def test_norms_and_mean(benchmark, threads, gradients, in_turn, say):
    ours, sums = GradientNorms(), [torch.zeros_like(part) for part in gradients]

    def theirs():
        torch._foreach_add_(sums, gradients)
        for parts in (gradients, sums):
            foreach_squared_norm(parts)

    functions = [lambda: ours.update(gradients), theirs]
    functions.append(triad(sum(part.numel() for part in gradients)))
    benchmark.pedantic(functions[0], rounds=ROUNDS)
    turns = in_turn(functions, 3 * ROUNDS)
    ours_ms, theirs_ms, floor_ms = (turns.seconds(index) * 1e3 for index in range(3))
    say(
        f"squared norms of a gradient and of the running mean, {threads} threads: ours "
        f"{ours_ms:.2f} ms, foreach norms and add {theirs_ms:.2f} ms "
        f"({turns.ratio(1, 0):.2f}x), floor (as many bytes, triad) {floor_ms:.2f} ms "
        f"({turns.ratio(0, 2):.2f}x)"
    )
