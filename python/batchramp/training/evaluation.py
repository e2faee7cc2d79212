"""What is measured at a look, off the train clock: metric, full loss, full gradient."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeGuard

import torch
from torch import Tensor, nn

from batchramp.workloads import Split, Workload

CHUNK = 1000
"""Samples of one evaluation pass. Fixed: the chunk size moves sums by some 4e-7."""


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode, and each of its parts back as it was."""
    training, parts = model.training, [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        yield
    finally:
        model.train(training)
        for module, mode in parts:
            if module.training != mode:
                module.training = mode


def check_losses(
    workload: Workload, losses: object, outputs: object, targets: Tensor
) -> Tensor:
    """Return what a loss gave: one floating value a sample, on the data's device.

    Raises:
        ValueError: It gave something else.
    """
    name = f"loss of workload {workload.name!r}"
    values = _check_values(name, losses, outputs, targets)
    if not values.is_floating_point():
        raise ValueError(f"{name} must be of a floating dtype, got {values.dtype}")
    return values


def check_scores(
    workload: Workload, scores: object, outputs: object, targets: Tensor
) -> Tensor:
    """Return what a metric gave: one real value a sample, on the data's device.

    Raises:
        ValueError: It gave something else.
    """
    name = f"metric of workload {workload.name!r}"
    values = _check_values(name, scores, outputs, targets)
    if values.is_complex():
        raise ValueError(f"{name} must be real, got {values.dtype}")
    return values


def _check_values(
    name: str, values: object, outputs: object, targets: Tensor
) -> Tensor:
    count = len(targets)
    rule = f"{name} must give one value a sample, a tensor of shape ({count},)"
    if not isinstance(values, Tensor):
        raise ValueError(f"{rule}, got {type(values).__name__}")
    shape = tuple(values.shape)
    if shape == ():
        raise ValueError(
            f"{rule}, got one number for all: leave their mean out, or write "
            "reduction='none'"
        )
    if shape != (count,):
        of = f" from outputs {tuple(outputs.shape)}" if _is_tensor(outputs) else ""
        raise ValueError(f"{rule}, got {shape}{of} and targets {tuple(targets.shape)}")
    if values.device != targets.device:
        raise ValueError(f"{rule} on {targets.device}, got one on {values.device}")
    return values


def _is_tensor(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor)


def _chunks(split: Split) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(split), CHUNK):
        end = start + CHUNK
        yield split.inputs[start:end], split.targets[start:end]


def mean_metric(model: nn.Module, workload: Workload, test: Split) -> float:
    """Return the mean of the workload's metric over the test set, in evaluation mode.

    Raises:
        ValueError: The metric gives no one value a sample.
    """
    total = torch.zeros((), dtype=torch.float64, device=test.inputs.device)
    with evaluation_mode(model), torch.inference_mode():
        for inputs, targets in _chunks(test):
            outputs = model(inputs)
            scores = workload.metric(outputs, targets)
            total += check_scores(workload, scores, outputs, targets).sum(
                dtype=torch.float64
            )
    return float(total) / len(test)


def full_train_loss(model: nn.Module, workload: Workload, train: Split) -> float:
    """Return the mean loss over the training set, evaluation mode, no augmentation.

    Raises:
        ValueError: The loss gives no one value a sample.
    """
    total = torch.zeros((), dtype=torch.float64, device=train.inputs.device)
    with evaluation_mode(model), torch.inference_mode():
        for inputs, targets in _chunks(train):
            outputs = model(inputs)
            losses = workload.loss(outputs, targets)
            total += check_losses(workload, losses, outputs, targets).sum(
                dtype=torch.float64
            )
    return float(total) / len(train)


def full_gradient(
    model: nn.Module, workload: Workload, train: Split
) -> tuple[float, float]:
    """Return the mean loss over the training set and the norm of its gradient.

    The full gradient norm of Umeda & Iiduka (arXiv 2409.08770), measured in evaluation
    mode on the unaugmented training set in chunks of fixed size: sum-reduced losses,
    gradients summed in float64 over all chunks, divided by the number of samples once;
    the norm is the root of the summed squares over all parameters. The loss is without
    weight decay.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    sums = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
    total = torch.zeros((), dtype=torch.float64, device=train.inputs.device)
    with evaluation_mode(model), torch.enable_grad():
        for inputs, targets in _chunks(train):
            losses = workload.loss(model(inputs), targets)
            gradients = torch.autograd.grad(
                losses.sum(), parameters, allow_unused=True, materialize_grads=True
            )
            total += losses.detach().sum(dtype=torch.float64)
            for accumulated, gradient in zip(sums, gradients, strict=True):
                accumulated += gradient
    squares = torch.stack([accumulated.square().sum() for accumulated in sums]).sum()
    return float(total) / len(train), float(squares.sqrt()) / len(train)
