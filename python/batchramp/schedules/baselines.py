"""The baselines that keep a comparison honest."""

from dataclasses import dataclass

from batchramp.schedules.durations import Duration, parse_duration, plain_duration
from batchramp.schedules.interface import Horizon
from batchramp.schedules.learning_rates import (
    Constant,
    CosineByPosition,
    LinearWarmup,
    Shape,
)
from batchramp.schedules.parameters import (
    momentum_coefficient,
    positive_number,
    whole_number,
)
from batchramp.schedules.static import ConstantSteps, StaticSchedule, Steps

GOYAL_NUM_SAMPLES = 1_281_167
"""Training samples of ImageNet, which arXiv 1706.02677 trains on."""

GOYAL_EPOCHS = 90
"""Passes of arXiv 1706.02677's runs."""


@dataclass(frozen=True)
class LinearWarmupSteps:
    """A constant batch, and an event where the warm-up ends.

    Attributes:
        lr: Rate after the warm-up.
        batch_size: The batch size.
        warmup: Length of the warm-up.
    """

    lr: float
    batch_size: int
    warmup: Duration

    def steps(self, horizon: Horizon) -> Steps:
        """Returns one step, at the end of the warm-up, that changes no table."""
        end = self.warmup.mark(horizon)
        return Steps(
            positions=() if end.position is None else (end.position,),
            updates=() if end.update is None else (end.update,),
            batch_sizes=(self.batch_size, self.batch_size),
            rates=(self.lr, self.lr),
            warmup=float(self.warmup.length(horizon)),
        )


def constant(
    *, lr: float = 0.1, batch_size: int = 128, momentum: float = 0.0
) -> StaticSchedule:
    """Baseline: batch and rate both constant.

    The defaults are those of `umeda-constant`.

    Args:
        lr: Learning rate throughout.
        batch_size: Batch size throughout.
        momentum: Momentum.
    """
    return _constant_batch("constant", lr, batch_size, momentum, Constant())


def constant_cosine(
    *, lr: float = 0.1, batch_size: int = 128, momentum: float = 0.0
) -> StaticSchedule:
    """Baseline: a constant batch, and a rate that follows a cosine of position to zero.

    The defaults are those of `umeda-constant`; the cosine (arXiv 1608.03983, equation
    5, one cycle down to zero) changes with every update.

    Args:
        lr: Initial learning rate.
        batch_size: Batch size throughout.
        momentum: Momentum.
    """
    shape = CosineByPosition()
    return _constant_batch("constant-cosine", lr, batch_size, momentum, shape)


def constant_warmup(
    *,
    base_lr: float = 0.1,
    base_batch_size: int = 256,
    batch_size: int = 8192,
    warmup: float | str = "5 epochs",
    momentum: float = 0.9,
) -> StaticSchedule:
    """Baseline: a constant batch, and the linearly scaled rate after a linear warm-up.

    Source: arXiv 1706.02677, sections 2.1, 2.2 and 5.1: rate 0.1 for each 256 samples,
    reached from `base_lr` over 5 epochs; batch 8,192 and momentum 0.9, 90 epochs of
    ImageNet. The paper's later steps of the rate are not part of this baseline.

    Args:
        base_lr: Learning rate that suits `base_batch_size`, and that of the first
            update; the rate becomes base_lr * batch_size / base_batch_size.
        base_batch_size: Batch size that `base_lr` suits.
        batch_size: Batch size throughout.
        warmup: Length of the warm-up; may be 0.
        momentum: Momentum.
    """
    base_lr = positive_number("base_lr", base_lr)
    base_batch_size = whole_number("base_batch_size", base_batch_size)
    batch_size = whole_number("batch_size", batch_size)
    momentum = momentum_coefficient(momentum)
    duration = parse_duration("warmup", warmup, zero=True)
    return StaticSchedule(
        name="constant-warmup",
        values={
            "base_lr": base_lr,
            "base_batch_size": base_batch_size,
            "batch_size": batch_size,
            "warmup": plain_duration(warmup),
            "momentum": momentum,
        },
        momentum=momentum,
        rule=LinearWarmupSteps(
            base_lr * batch_size / base_batch_size, batch_size, duration
        ),
        shape=LinearWarmup(base_lr, in_updates=duration.unit == "updates"),
    )


def _constant_batch(
    name: str, lr: float, batch_size: int, momentum: float, shape: Shape
) -> StaticSchedule:
    lr = positive_number("lr", lr)
    batch_size = whole_number("batch_size", batch_size)
    momentum = momentum_coefficient(momentum)
    return StaticSchedule(
        name=name,
        values={"lr": lr, "batch_size": batch_size, "momentum": momentum},
        momentum=momentum,
        rule=ConstantSteps(lr, batch_size),
        shape=shape,
    )
