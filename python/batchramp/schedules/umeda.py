"""The schedules of Umeda & Iiduka: constant or growing batch, decaying or growing rate.

arXiv 2409.08770, cases (i) to (iv), with the numbers of its code,
github.com/hikarumeda1030/bs_free: N = 50,000 (CIFAR), 300 epochs, plain SGD without
momentum, rate 0.1; batch 128, or from 8 to 4,096, doubled every 30 epochs. Where the
paper has several maximum rates (0.2, 0.5, 1.0) the default is 0.2, and of its growths
(2, 3, 4) it is 2.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from batchramp.schedules.batch_sizes import (
    FORMS,
    affine_sizes,
    geometric_sizes,
    interval_starts,
)
from batchramp.schedules.durations import (
    Duration,
    parse_position_duration,
    plain_duration,
)
from batchramp.schedules.interface import Horizon
from batchramp.schedules.learning_rates import (
    Constant,
    CosineByPass,
    Shape,
    affine_rates,
    decay_shape,
    exponential_rates,
)
from batchramp.schedules.parameters import (
    choice,
    exact_decimal,
    maximum_batch_size,
    maximum_rate,
    momentum_coefficient,
    number_above_one,
    positive_number,
    whole_number,
)
from batchramp.schedules.static import (
    ConstantSteps,
    StaticSchedule,
    StepRule,
    Steps,
    merge_position_steps,
)

NUM_SAMPLES = 50_000
"""Training samples of the paper's CIFAR-10 and CIFAR-100."""

EPOCHS = 300
"""Passes of the paper's runs."""

_WARMUP_STEPS = 10


@dataclass(frozen=True)
class BatchGrowth:
    """Growth of the batch by intervals.

    Attributes:
        batch_size: Size of the first interval.
        max_batch_size: Largest size.
        growth: Factor of an interval, exactly.
        form: `geometric` or `affine`.
        interval: Length of an interval.
    """

    batch_size: int
    max_batch_size: int
    growth: Fraction
    form: str
    interval: Duration

    def sizes(self, count: int) -> tuple[int, ...]:
        """Returns the sizes of `count` intervals."""
        sizes = affine_sizes if self.form == "affine" else geometric_sizes
        return sizes(self.batch_size, self.max_batch_size, self.growth, count)


@dataclass(frozen=True)
class IncreasingBatchSteps:
    """Case (ii): the batch grows, the rate has no steps.

    Attributes:
        batch: How the batch grows.
        lr: The rate, before the shape.
    """

    batch: BatchGrowth
    lr: float

    def steps(self, horizon: Horizon) -> Steps:
        """Returns a step wherever the batch grows."""
        _, starts = interval_starts(self.batch.interval, horizon)
        sizes = self.batch.sizes(len(starts))
        return merge_position_steps(starts, sizes, (0,), (self.lr,))


@dataclass(frozen=True)
class IncreasingBothSteps:
    """Case (iii): batch and rate grow by the same intervals.

    Attributes:
        batch: How the batch grows.
        lr: Rate of the first interval.
        max_lr: Rate of the last.
        lr_growth: Growth of the affine form, or None for the exponential one.
    """

    batch: BatchGrowth
    lr: float
    max_lr: float
    lr_growth: float | None

    def steps(self, horizon: Horizon) -> Steps:
        """Returns a step at each interval where batch or rate grow."""
        _, starts = interval_starts(self.batch.interval, horizon)
        count = len(starts)
        if self.lr_growth is None:
            rates = exponential_rates(self.lr, self.max_lr, count)
        else:
            rates = affine_rates(self.lr, self.max_lr, self.lr_growth, count)
        return merge_position_steps(starts, self.batch.sizes(count), starts, rates)


@dataclass(frozen=True)
class WarmupSteps:
    """Case (iv): the rate grows over the first interval, the batch by intervals.

    Attributes:
        batch: How the batch grows.
        lr: Initial rate.
        max_lr: Rate of the last warm-up step, and after it before the shape.
    """

    batch: BatchGrowth
    lr: float
    max_lr: float

    def steps(self, horizon: Horizon) -> Steps:
        """Returns the ten steps of the warm-up and those of the batch."""
        interval, starts = interval_starts(self.batch.interval, horizon)
        warmup_starts = tuple(
            math.ceil(interval * step / _WARMUP_STEPS) for step in range(_WARMUP_STEPS)
        )
        rates = exponential_rates(self.lr, self.max_lr, _WARMUP_STEPS)
        sizes = self.batch.sizes(len(starts))
        return merge_position_steps(
            starts, sizes, warmup_starts, rates, warmup=float(interval)
        )


def umeda_constant(
    *,
    lr: float = 0.1,
    decay: str = "constant",
    power: float = 2.0,
    batch_size: int = 128,
    momentum: float = 0.0,
) -> StaticSchedule:
    """Umeda & Iiduka, case (i): a constant batch with a constant or decaying rate.

    Source: arXiv 2409.08770, case (i) (rate 0.1, batch 128, polynomial power 2).

    Args:
        lr: Initial learning rate.
        decay: Shape of the rate: constant, diminishing, cosine, linear or polynomial.
        power: Power of the polynomial shape.
        batch_size: Batch size throughout.
        momentum: Momentum; the paper has none.
    """
    lr = positive_number("lr", lr)
    power = positive_number("power", power)
    batch_size = whole_number("batch_size", batch_size)
    return _umeda(
        "umeda-constant",
        {"lr": lr, "decay": decay, "power": power, "batch_size": batch_size},
        momentum,
        ConstantSteps(lr, batch_size),
        decay_shape(decay, power),
    )


def umeda_increasing_batch(
    *,
    lr: float = 0.1,
    decay: str = "constant",
    power: float = 2.0,
    batch_size: int = 8,
    max_batch_size: int = 4096,
    growth: float = 2.0,
    interval: float | str = 0.1,
    form: str = "geometric",
    momentum: float = 0.0,
) -> StaticSchedule:
    """Umeda & Iiduka, case (ii): a growing batch with a constant or decaying rate.

    Source: arXiv 2409.08770, case (ii) (rate 0.1; batch 8 to 4,096, doubled every 30
    of 300 epochs; for its growths 3 and 4 the code has the affine form).

    Args:
        lr: Initial learning rate.
        decay: Shape of the rate: constant, diminishing, cosine, linear or polynomial.
        power: Power of the polynomial shape.
        batch_size: Initial batch size.
        max_batch_size: Largest batch size.
        growth: Factor of the batch at each interval.
        interval: Length of an interval.
        form: geometric, or affine for the form of the paper's code that ends at the
            largest size in the last interval.
        momentum: Momentum; the paper has none.
    """
    lr = positive_number("lr", lr)
    power = positive_number("power", power)
    batch, values = _batch_growth(batch_size, max_batch_size, growth, interval, form)
    return _umeda(
        "umeda-increasing-batch",
        {"lr": lr, "decay": decay, "power": power, **values},
        momentum,
        IncreasingBatchSteps(batch, lr),
        decay_shape(decay, power),
    )


def umeda_increasing_both(
    *,
    lr: float = 0.1,
    max_lr: float = 0.2,
    lr_growth: float | None = None,
    batch_size: int = 8,
    max_batch_size: int = 4096,
    growth: float = 2.0,
    interval: float | str = 0.1,
    form: str = "geometric",
    momentum: float = 0.0,
) -> StaticSchedule:
    """Umeda & Iiduka, case (iii): batch and rate both grow.

    Source: arXiv 2409.08770, case (iii) (batch as case (ii); rate 0.1 to 0.2, 0.5 or
    1.0; with batch growths 3 and 4 the affine forms, whose rate growths are 1.5 and
    1.9).

    Args:
        lr: Initial learning rate.
        max_lr: Rate of the last interval.
        lr_growth: Growth of the rate in the affine form; none for the exponential form
            from `lr` to `max_lr`.
        batch_size: Initial batch size.
        max_batch_size: Largest batch size.
        growth: Factor of the batch at each interval.
        interval: Length of an interval.
        form: Form of the batch's growth, geometric or affine.
        momentum: Momentum; the paper has none.
    """
    lr = positive_number("lr", lr)
    max_lr = maximum_rate(max_lr, lr)
    if lr_growth is not None:
        lr_growth = number_above_one("lr_growth", lr_growth)
    batch, values = _batch_growth(batch_size, max_batch_size, growth, interval, form)
    return _umeda(
        "umeda-increasing-both",
        {"lr": lr, "max_lr": max_lr, "lr_growth": lr_growth, **values},
        momentum,
        IncreasingBothSteps(batch, lr, max_lr, lr_growth),
        Constant(),
    )


def umeda_warmup(
    *,
    lr: float = 0.1,
    max_lr: float = 0.2,
    decay: str = "constant",
    batch_size: int = 8,
    max_batch_size: int = 4096,
    growth: float = 2.0,
    interval: float | str = 0.1,
    form: str = "geometric",
    momentum: float = 0.0,
) -> StaticSchedule:
    """Umeda & Iiduka, case (iv): a growing batch with a warm-up of the rate.

    Source: arXiv 2409.08770, case (iv) (ten steps from 0.1 to 0.2, 0.5 or 1.0 over
    the first 30 of 300 epochs, then constant or cosine; batch as case (ii)).

    Args:
        lr: Initial learning rate.
        max_lr: Rate at the end of the warm-up, which lasts for the first interval.
        decay: Shape of the rate after the warm-up: constant or cosine.
        batch_size: Initial batch size.
        max_batch_size: Largest batch size.
        growth: Factor of the batch at each interval.
        interval: Length of an interval.
        form: Form of the batch's growth, geometric or affine.
        momentum: Momentum; the paper has none.
    """
    lr = positive_number("lr", lr)
    max_lr = maximum_rate(max_lr, lr)
    decay = choice("decay", decay, ("constant", "cosine"))
    batch, values = _batch_growth(batch_size, max_batch_size, growth, interval, form)
    return _umeda(
        "umeda-warmup",
        {"lr": lr, "max_lr": max_lr, "decay": decay, **values},
        momentum,
        WarmupSteps(batch, lr, max_lr),
        CosineByPass() if decay == "cosine" else Constant(),
    )


def _umeda(
    name: str, values: dict[str, Any], momentum: float, rule: StepRule, shape: Shape
) -> StaticSchedule:
    momentum = momentum_coefficient(momentum)
    return StaticSchedule(
        name=name,
        values={**values, "momentum": momentum},
        momentum=momentum,
        rule=rule,
        shape=shape,
    )


def _batch_growth(
    batch_size: int,
    max_batch_size: int,
    growth: float,
    interval: float | str,
    form: str,
) -> tuple[BatchGrowth, dict[str, Any]]:
    batch_size = whole_number("batch_size", batch_size)
    max_batch_size = maximum_batch_size(max_batch_size, batch_size)
    growth = number_above_one("growth", growth)
    batch = BatchGrowth(
        batch_size=batch_size,
        max_batch_size=max_batch_size,
        growth=exact_decimal("growth", growth),
        form=choice("form", form, FORMS),
        interval=parse_position_duration("interval", interval),
    )
    values = {
        "batch_size": batch_size,
        "max_batch_size": max_batch_size,
        "growth": growth,
        "interval": plain_duration(interval),
        "form": form,
    }
    return batch, values
