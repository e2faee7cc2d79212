"""What is measured at a look, off the train clock: metric, full loss, full gradient."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from batchramp.workloads import Split, Workload

CHUNK = 1000
"""Samples of one evaluation pass. Fixed: the chunk size moves sums by some 4e-7."""


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode, and back as it was."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _chunks(split: Split) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(split), CHUNK):
        end = start + CHUNK
        yield split.inputs[start:end], split.targets[start:end]


def mean_metric(model: nn.Module, workload: Workload, test: Split) -> float:
    """Return the mean of the workload's metric over the test set, in evaluation mode."""
    total = torch.zeros((), dtype=torch.float64, device=test.inputs.device)
    with evaluation_mode(model), torch.inference_mode():
        for inputs, targets in _chunks(test):
            total += workload.metric(model(inputs), targets).sum(dtype=torch.float64)
    return float(total) / len(test)


def full_train_loss(model: nn.Module, workload: Workload, train: Split) -> float:
    """Return the mean loss over the training set, evaluation mode, no augmentation."""
    total = torch.zeros((), dtype=torch.float64, device=train.inputs.device)
    with evaluation_mode(model), torch.inference_mode():
        for inputs, targets in _chunks(train):
            total += workload.loss(model(inputs), targets).sum(dtype=torch.float64)
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
