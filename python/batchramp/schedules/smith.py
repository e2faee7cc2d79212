"""The schedules of Smith et al.: decay the rate, or grow the batch instead.

arXiv 1711.00489, "Don't Decay the Learning Rate, Increase the Batch Size", section 5:
CIFAR-10 (N = 50,000), 200 epochs, events of factor 5, batches up to 5,120. Events at
epochs 60, 120 and 160 reproduce the numbers of updates that the paper reports. All of
the schedules share one noise scale at every epoch; it begins at lr N / (B (1 - m)) =
390.625.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from batchramp.schedules.annealing import AnnealingSteps
from batchramp.schedules.durations import parse_milestones, plain_duration
from batchramp.schedules.learning_rates import Constant
from batchramp.schedules.parameters import (
    exact_decimal,
    maximum_batch_size,
    momentum_coefficient,
    number_above_one,
    positive_number,
    whole_number,
)
from batchramp.schedules.static import StaticSchedule

NUM_SAMPLES = 50_000
"""Training samples of the paper's CIFAR-10."""

EPOCHS = 200
"""Passes of the paper's runs."""

_MILESTONES = (0.3, 0.6, 0.8)

# The most bits of an exact power of a factor, whose common divisors are searched for.
_MAX_BITS = 2**15


def smith_decay(
    *,
    lr: float = 0.1,
    batch_size: int = 128,
    momentum: float = 0.9,
    factor: float = 5.0,
    milestones: Sequence[float | str] = _MILESTONES,
) -> StaticSchedule:
    """Smith et al., original: the rate falls by a factor at each milestone.

    Source: arXiv 1711.00489, section 5.1 (rate 0.1, momentum 0.9, batch 128; about
    80,000 updates).

    Args:
        lr: Initial learning rate.
        batch_size: Batch size throughout.
        momentum: Momentum.
        factor: By how much each event lowers the rate.
        milestones: Where the events lie.
    """
    return _smith(
        "smith-decay",
        shares=(0,),
        lr=lr,
        batch_size=batch_size,
        max_batch_size=None,
        momentum=momentum,
        factor=factor,
        milestones=milestones,
    )


def smith_increase(
    *,
    lr: float = 0.1,
    batch_size: int = 128,
    max_batch_size: int = 5120,
    momentum: float = 0.9,
    factor: float = 5.0,
    milestones: Sequence[float | str] = _MILESTONES,
) -> StaticSchedule:
    """Smith et al., increasing batch: the batch grows, what it may not decays the rate.

    Source: arXiv 1711.00489, section 5.1 (128, 640, 3,200, then 5,120; about 29,000
    updates).

    Args:
        lr: Initial learning rate.
        batch_size: Initial batch size.
        max_batch_size: Largest batch size; what it withholds decays the rate.
        momentum: Momentum.
        factor: By how much each event lowers the noise scale.
        milestones: Where the events lie.
    """
    return _smith(
        "smith-increase",
        shares=(1,),
        lr=lr,
        batch_size=batch_size,
        max_batch_size=max_batch_size,
        momentum=momentum,
        factor=factor,
        milestones=milestones,
    )


def smith_hybrid(
    *,
    lr: float = 0.1,
    batch_size: int = 128,
    max_batch_size: int = 5120,
    momentum: float = 0.9,
    factor: float = 5.0,
    milestones: Sequence[float | str] = _MILESTONES,
) -> StaticSchedule:
    """Smith et al., hybrid: the first event grows the batch, later ones decay the rate.

    Source: arXiv 1711.00489, section 5.1 (128, then 640 throughout).

    Args:
        lr: Initial learning rate.
        batch_size: Initial batch size.
        max_batch_size: Largest batch size.
        momentum: Momentum.
        factor: By how much each event lowers the noise scale.
        milestones: Where the events lie.
    """
    return _smith(
        "smith-hybrid",
        shares=(1, 0),
        lr=lr,
        batch_size=batch_size,
        max_batch_size=max_batch_size,
        momentum=momentum,
        factor=factor,
        milestones=milestones,
    )


def smith_initial_lr(
    *,
    lr: float = 0.5,
    batch_size: int = 640,
    max_batch_size: int = 5120,
    momentum: float = 0.9,
    factor: float = 5.0,
    milestones: Sequence[float | str] = _MILESTONES,
) -> StaticSchedule:
    """Smith et al., increased initial rate: as increasing batch, from five times both.

    Source: arXiv 1711.00489, section 5.2 (rate 0.5, batches 640, 3,200, 5,120; under
    6,500 updates).

    Args:
        lr: Initial learning rate.
        batch_size: Initial batch size.
        max_batch_size: Largest batch size; what it withholds decays the rate.
        momentum: Momentum.
        factor: By how much each event lowers the noise scale.
        milestones: Where the events lie.
    """
    return _smith(
        "smith-initial-lr",
        shares=(1,),
        lr=lr,
        batch_size=batch_size,
        max_batch_size=max_batch_size,
        momentum=momentum,
        factor=factor,
        milestones=milestones,
    )


def smith_momentum(
    *,
    lr: float = 0.5,
    batch_size: int = 3200,
    max_batch_size: int = 5120,
    momentum: float = 0.98,
    factor: float = 5.0,
    milestones: Sequence[float | str] = _MILESTONES,
) -> StaticSchedule:
    """Smith et al., increased momentum: as increased initial rate, momentum 0.98.

    Source: arXiv 1711.00489, section 5.2 (rate 0.5, batches 3,200, then 5,120; under
    2,500 updates).

    Args:
        lr: Initial learning rate.
        batch_size: Initial batch size.
        max_batch_size: Largest batch size; what it withholds decays the rate.
        momentum: Momentum.
        factor: By how much each event lowers the noise scale.
        milestones: Where the events lie.
    """
    return _smith(
        "smith-momentum",
        shares=(1,),
        lr=lr,
        batch_size=batch_size,
        max_batch_size=max_batch_size,
        momentum=momentum,
        factor=factor,
        milestones=milestones,
    )


def _smith(
    name: str,
    *,
    shares: tuple[float, ...],
    lr: float,
    batch_size: int,
    max_batch_size: int | None,
    momentum: float,
    factor: float,
    milestones: Sequence[float | str],
) -> StaticSchedule:
    lr = positive_number("lr", lr)
    batch_size = whole_number("batch_size", batch_size)
    momentum = momentum_coefficient(momentum)
    exact_factor = _exact_above_one(factor)
    events = parse_milestones(milestones)
    most = _MAX_BITS // max(map(int.bit_length, exact_factor.as_integer_ratio()))
    if len(events) > most:
        raise ValueError(
            f"milestones must be at most {most} for a factor of {float(exact_factor):g}, "
            f"whose powers are exact, got {len(events)}"
        )
    values: dict[str, Any] = {"lr": lr, "batch_size": batch_size}
    largest = batch_size
    if max_batch_size is not None:
        largest = maximum_batch_size(max_batch_size, batch_size)
        values["max_batch_size"] = largest
    values |= {
        "momentum": momentum,
        "factor": float(exact_factor),
        "milestones": [plain_duration(milestone) for milestone in milestones],
    }
    return StaticSchedule(
        name=name,
        values=values,
        momentum=momentum,
        rule=AnnealingSteps(
            lr=lr,
            batch_size=batch_size,
            max_batch_size=largest,
            factor=exact_factor,
            shares=shares,
            milestones=events,
        ),
        shape=Constant(),
    )


def _exact_above_one(factor: float) -> Fraction:
    return exact_decimal("factor", number_above_one("factor", factor))
