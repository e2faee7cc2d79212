"""Samples that mix: a loss that depends on the others of its batch, as batch norm's does.

Such a loss follows the batch size, which is what a race compares.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from batchramp.training import streams
from batchramp.training.evaluation import evaluation_mode
from batchramp.training.models import Living
from batchramp.workloads import Split, Workload

SAMPLES = 8
"""Samples of the batch that is looked at, whole and in halves."""

TOLERANCE = 0.01
"""Of the largest loss. Rounding is far below it, TF32's included, and what a half batch's
statistics change far above it."""

_LOOKED_AT = Living()


def check_not_mixed(model: nn.Module, workload: Workload, train: Split) -> None:
    """Refuse a model or a loss that mixes samples; once per workload and process.

    Each sample's loss must be the same in a batch and in its half, in training mode or,
    where that is random (dropout), in evaluation mode. What cannot be run so, or is
    random in both, is not looked at.

    Args:
        model: Left alone; copies are run.
        workload: Gives the loss of each sample.
        train: The training set, on the model's device.

    Raises:
        ValueError: A sample's loss depends on the batch.
    """
    if workload in _LOOKED_AT or len(train) < SAMPLES:
        return
    try:
        with evaluation_mode(model):
            evaluated = _losses(model, workload, train)
        trained = _losses(model, workload, train)
    except Exception:  # a user's own code may want other batches: this is a question
        return
    for losses in (trained, evaluated):
        if losses is not None:
            _compare(*losses, workload)
    _LOOKED_AT.add(workload)


def _losses(
    model: nn.Module, workload: Workload, train: Split
) -> tuple[Tensor, Tensor] | None:
    """The losses of a batch and of its halves, put together; None if random."""

    def losses(start: int, end: int, stream: str = "look") -> Tensor:
        with streams.seeded(0, stream), torch.no_grad():
            part = slice(start, end)
            # A copy each: a forward pass may change what a model keeps.
            outputs = copy.deepcopy(model)(train.inputs[part])
            return workload.loss(outputs, train.targets[part]).double()

    whole, half = losses(0, SAMPLES), SAMPLES // 2
    if not torch.equal(whole, losses(0, SAMPLES, "another look")):
        return None
    return whole, torch.cat([losses(0, half), losses(half, SAMPLES)])


def _compare(whole: Tensor, halves: Tensor, workload: Workload) -> None:
    if float((whole - halves).abs().max()) <= TOLERANCE * float(whole.abs().max()):
        return
    raise ValueError(
        f"the loss of workload {workload.name!r} must not mix the samples of a batch, as "
        "batch norm does, for it would follow the batch size that is compared: the first "
        f"{SAMPLES} training samples have other losses in one batch than in two"
    )
