"""A trial: one workload, one schedule, one seed; and the rows that it records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from batchramp.schedules import Schedule
from batchramp.workloads import Workload

Status = Literal["finished", "diverged", "failed"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Everything that a trial's curve follows from, but for the machine and the code.

    Attributes:
        workload: Model, data, loss and metric.
        schedule: Decides batch size, learning rate and momentum of every update.
        seed: The split (where the workload draws it), the initial parameters, the order
            of the samples and whatever else is drawn from a global generator all follow
            from it, each from a stream of its own.
        epochs: Budget in passes over the training set.
        boundary: What happens to a batch at a pass's end: `keep`, `drop` or `wrap`.
        cadence: Epochs between looks.
        measures: What to measure beside the metric (see `training.measures`), to the
            epochs between measurements; at the end too. `full_train_loss` and
            `gradient_norm` are always measured at the end.
        weight_decay: Coefficient of L2 regularisation in SGD.
        nesterov: Nesterov's momentum.
        micro_batch: The most samples of one forward and backward pass.
    """

    workload: Workload
    schedule: Schedule
    seed: int
    epochs: Fraction
    boundary: str = "keep"
    cadence: Fraction = Fraction(1, 4)
    measures: Mapping[str, Fraction] = field(default_factory=dict)
    weight_decay: float = 0.0
    nesterov: bool = False
    micro_batch: int | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was known at one look; the columns of a trial's results.

    Attributes:
        updates: Optimizer steps so far.
        samples: Samples that stood behind them.
        position: Place in the stream of passes; a dropped tail counts here.
        epoch: Position over the number of training samples.
        train_seconds: The train clock.
        total_seconds: Wall clock since the trial began.
        evaluation_seconds: Seconds of all looks before and including this one.
        compile_seconds: Seconds of warm-up before the first update.
        batch_size: Global batch size of the last update; null before the first.
        lr: Learning rate of the last update.
        momentum: Momentum of the last update.
        train_loss: Weighted mean of the batch losses since the previous row, in the
            workload's unit; null before the first update.
        metric: Mean of the workload's metric over the test set.
        full_train_loss: Mean loss over the training set in evaluation mode. It and all
            below are null where not measured.
        gradient_norm: Norm of the full gradient of `full_train_loss`.
        variance: Trace of the per-sample gradients' covariance over the training set,
            divisor N - 1.
        noise_scale: That over the squared norm of the full gradient, in samples.
        sharpness: Largest eigenvalue of the Hessian of the training loss.
        sharpness_residual: How far at most the nearest eigenvalue lies from it.
        batch_variance: Mean squared distance of the mean gradient of a batch, of the
            last update's batch size, from the full gradient.
        batch_bias: Unbiased estimate of the squared norm of such a batch's bias.
    """

    updates: int
    samples: int
    position: int
    epoch: float
    train_seconds: float
    total_seconds: float
    evaluation_seconds: float
    compile_seconds: float
    batch_size: int | None
    lr: float | None
    momentum: float | None
    train_loss: float | None
    metric: float
    full_train_loss: float | None = None
    gradient_norm: float | None = None
    variance: float | None = None
    noise_scale: float | None = None
    sharpness: float | None = None
    sharpness_residual: float | None = None
    batch_variance: float | None = None
    batch_bias: float | None = None


@dataclass(frozen=True)
class Record:
    """What a trial left: its rows and how it ended.

    Attributes:
        rows: One at position 0, one after the first update at or past each multiple of
            the cadence, one at the end.
        status: `finished`, `diverged` (its loss was not finite at a look, and it ended
            there) or `failed` (an error stopped it; the next run tries it again).
        error: What stopped a failed trial, in one line, with the user's own innermost
            line where there is one.
        traceback: Its whole traceback.
        notes: What the rows do not say: one line for each measure that failed.
    """

    rows: tuple[Row, ...]
    status: Status
    error: str | None = None
    traceback: str | None = None
    notes: tuple[str, ...] = ()
