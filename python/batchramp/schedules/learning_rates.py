"""Learning rates: shapes over a clock, and rates that grow by steps.

The shapes and their clocks are those of arXiv 2409.08770 (its code:
github.com/hikarumeda1030/bs_free, src/utils/get_lr_scheduler.py).
"""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

from batchramp.schedules.interface import Progress
from batchramp.schedules.parameters import choice

DECAYS = ("constant", "diminishing", "cosine", "linear", "polynomial")
"""Shapes that the parameter `decay` may name."""


class Clock(NamedTuple):
    """What a shape reads off the horizon.

    Attributes:
        num_samples: Samples of one pass.
        budget: Position at which the trial ends.
        total_updates: Updates until then, or None while they are not known.
        warmup: Exact length of the warm-up in its own unit, rounded to a float.
    """

    num_samples: int
    budget: int
    total_updates: int | None
    warmup: float


class Shape(Protocol):
    """How the rate of an update follows from the rate of its step."""

    @property
    def needs_total_updates(self) -> bool:
        """Whether the shape reads `Clock.total_updates`."""

    def rate(self, lr: float, progress: Progress, clock: Clock) -> float:
        """Returns the rate of the update at `progress`, where the step has `lr`."""


@dataclass(frozen=True)
class Constant:
    """The step's rate itself."""

    needs_total_updates: ClassVar[bool] = False

    def rate(self, lr: float, progress: Progress, clock: Clock) -> float:  # noqa: ARG002
        """Returns `lr`."""
        return lr


@dataclass(frozen=True)
class Diminishing:
    """lr / sqrt(t + 1), t the index of the update."""

    needs_total_updates: ClassVar[bool] = False

    def rate(self, lr: float, progress: Progress, clock: Clock) -> float:  # noqa: ARG002
        """Returns the rate of the update `progress.update`."""
        return lr / math.sqrt(progress.update + 1)


@dataclass(frozen=True)
class CosineByPass:
    """lr (1 + cos(pi (e - W) / (E - W))) / 2, e the whole passes after W of warm-up."""

    needs_total_updates: ClassVar[bool] = False

    def rate(self, lr: float, progress: Progress, clock: Clock) -> float:
        """Returns the rate of the pass that holds `progress.position`."""
        begun = progress.position - progress.position % clock.num_samples
        if begun <= clock.warmup:
            return lr
        part = (begun - clock.warmup) / (clock.budget - clock.warmup)
        return lr * 0.5 * (1 + math.cos(math.pi * part))


@dataclass(frozen=True)
class CosineByPosition:
    """lr (1 + cos(pi s / S)) / 2, s the position and S the budget."""

    needs_total_updates: ClassVar[bool] = False

    def rate(self, lr: float, progress: Progress, clock: Clock) -> float:
        """Returns the rate at `progress.position`."""
        return lr * 0.5 * (1 + math.cos(math.pi * progress.position / clock.budget))


@dataclass(frozen=True)
class Polynomial:
    """lr (1 - t / T)^power, t the index of the update and T the total updates."""

    power: float
    needs_total_updates: ClassVar[bool] = True

    def rate(self, lr: float, progress: Progress, clock: Clock) -> float:
        """Returns the rate of the update, or `lr` while T is not known."""
        if clock.total_updates is None:
            return lr
        remaining: float = (1 - progress.update / clock.total_updates) ** self.power
        return lr * remaining


@dataclass(frozen=True)
class LinearWarmup:
    """A straight line from `start` to the step's rate over the warm-up.

    Attributes:
        start: Rate at the first update.
        in_updates: Whether the warm-up is counted in updates rather than samples.
    """

    start: float
    in_updates: bool
    needs_total_updates: ClassVar[bool] = False

    def rate(self, lr: float, progress: Progress, clock: Clock) -> float:
        """Returns the rate on the line, or `lr` after it."""
        done = progress.update if self.in_updates else progress.position
        if done >= clock.warmup:
            return lr
        return self.start + (lr - self.start) * (done / clock.warmup)


def decay_shape(decay: str, power: float) -> Shape:
    """Returns the shape that `decay` names.

    Args:
        decay: One of `DECAYS`; linear is polynomial of power 1.
        power: Exponent of the polynomial.

    Raises:
        ValueError: If the shape is unknown.
    """
    shapes: dict[str, Shape] = {
        "constant": Constant(),
        "diminishing": Diminishing(),
        "cosine": CosineByPass(),
        "linear": Polynomial(1.0),
        "polynomial": Polynomial(power),
    }
    return shapes[choice("decay", decay, DECAYS)]


def exponential_rates(lr: float, max_lr: float, count: int) -> tuple[float, ...]:
    """Returns lr (max_lr / lr)^(k / (count - 1)) for k from 0 to `count` - 1."""
    if count == 1:
        return (lr,)
    inner = (lr * (max_lr / lr) ** (k / (count - 1)) for k in range(1, count - 1))
    return (lr, *inner, max_lr)


def affine_rates(
    lr: float, max_lr: float, growth: float, count: int
) -> tuple[float, ...]:
    """Returns lr - a + a growth^k for k from 0 to `count` - 1, ending at `max_lr`.

    That is a = (max_lr - lr) / (growth^(count - 1) - 1), here divided through by
    growth^(count - 1) so that no power overflows.
    """
    if count == 1:
        return (lr,)
    whole = 1 - growth ** (1 - count)
    inner = (
        lr + (max_lr - lr) * (growth ** (k + 1 - count) - growth ** (1 - count)) / whole
        for k in range(1, count - 1)
    )
    return (lr, *inner, max_lr)
