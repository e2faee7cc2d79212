"""Samples that mix: a loss or a score that depends on the others of its batch.

Batch norm's loss does, and follows the batch size, which is what a race compares; and so
does what broadcasts outputs (batch, 1) against targets (batch,), which is just wrong.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from batchramp.training import streams
from batchramp.training.evaluation import evaluation_mode
from batchramp.training.models import Living
from batchramp.workloads import Split, Workload

SAMPLES = 8
"""Samples of the batch that is looked at, whole and in halves."""

TOLERANCE = 0.01
"""Of the largest value. Rounding is far below it, TF32's included, and what a half batch's
statistics change far above it."""

_LOOKED_AT = Living()

Values = Callable[[Tensor, Tensor], Tensor]
"""A workload's loss or metric: one value a sample from outputs and targets."""


def check_not_mixed(
    model: nn.Module, workload: Workload, train: Split, test: Split
) -> None:
    """Refuse a model, loss or metric that mixes samples; once per workload and process.

    Each sample's loss must be the same in a batch and in its half, in training mode or,
    where that is random (dropout), in evaluation mode; each sample's score likewise, in
    evaluation mode. The halves are of low and of high targets. What cannot be run so, or
    is random in both, is not looked at.

    Args:
        model: Left alone; copies are run.
        workload: Gives the loss and the score of each sample.
        train: The training set, on the model's device.
        test: The test set, likewise.

    Raises:
        ValueError: A sample's loss or score depends on the batch.
    """
    if workload in _LOOKED_AT:
        return
    with evaluation_mode(model):
        _check("loss", "training", workload, _in_halves(model, workload.loss, train))
        _check("metric", "test", workload, _in_halves(model, workload.metric, test))
    _check("loss", "training", workload, _in_halves(model, workload.loss, train))
    _LOOKED_AT.add(workload)


def _in_halves(
    model: nn.Module, function: Values, split: Split
) -> tuple[Tensor, Tensor] | None:
    """The values of a batch, and of its halves put together.

    None where they cannot be told: random, or a user's own code wants other batches.
    """
    rows = _spread(split.targets)

    def values(part: Tensor, stream: str = "look") -> Tensor:
        with streams.seeded(0, stream), torch.no_grad():
            # A copy each: a forward pass may change what a model keeps.
            outputs = copy.deepcopy(model)(split.inputs[part])
            return function(outputs, split.targets[part]).double()

    try:
        whole, half = values(rows), len(rows) // 2
        if half == 0 or not torch.equal(whole, values(rows, "another look")):
            return None
        return whole, torch.cat([values(rows[:half]), values(rows[half:])])
    except Exception:  # this is a question, and no part of a trial
        return None


def _spread(targets: Tensor) -> Tensor:
    """Rows of low to high targets, evenly: halves of equal ones could hide a mix."""
    first = targets.reshape(len(targets), -1)[:, 0]
    order = (first.real if first.is_complex() else first).argsort(stable=True)
    count = min(SAMPLES, len(order))
    steps = torch.linspace(0, len(order) - 1, count, dtype=torch.float64)
    return order[steps.long().to(order.device)]


def _check(
    name: str, kind: str, workload: Workload, values: tuple[Tensor, Tensor] | None
) -> None:
    if values is None:
        return
    whole, halves = values
    largest = torch.stack([whole, halves]).abs().max()
    if float((whole - halves).abs().max()) <= TOLERANCE * float(largest):
        return
    raise ValueError(
        f"the {name} of workload {workload.name!r} must not mix the samples of a batch, "
        "as batch norm does, for it would follow the batch size that is compared: "
        f"{len(whole)} {kind} samples have other values in one batch than in two; are "
        "there outputs of shape (batch, 1) beside targets of shape (batch,)?"
    )
