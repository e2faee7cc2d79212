"""The sharpness of a minimum: the largest eigenvalue of the training loss's Hessian."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from batchramp.training.evaluation import CHUNK, evaluation_mode
from batchramp.workloads import Split, Workload

SAMPLES = 2000
"""The Hessian is of the loss over the first so many training samples, or over all."""

STEPS = 80
"""The most Lanczos steps; the largest eigenvalue of a network stands apart, and takes 10
to 30."""

TOLERANCE = 1e-3
"""Residual over eigenvalue at which the steps end."""


def sharpness(
    model: nn.Module, workload: Workload, train: Split
) -> tuple[float, float]:
    """Return the Hessian's largest eigenvalue, and how exact it is.

    The Hessian of the mean loss over the first `SAMPLES` training samples by the
    trainable parameters, in evaluation mode, without augmentation and weight decay. It
    is never formed: each Lanczos step takes one product with it, by two backward passes
    (Pearlmutter, Neural Computation 6, 1994).

    Returns:
        The eigenvalue w of largest value (not magnitude), and the residual |H v - w v|
        of its unit vector v: some eigenvalue lies within it of w. NaN both where the
        loss's derivatives are not finite.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    count = min(SAMPLES, len(train))
    with evaluation_mode(model), torch.enable_grad():
        slopes = []
        for start in range(0, count, CHUNK):
            end = min(start + CHUNK, count)
            outputs = model(train.inputs[start:end])
            loss = workload.loss(outputs, train.targets[start:end]).sum() / count
            gradients = torch.autograd.grad(
                loss,
                parameters,
                create_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            slopes.append(_flat(gradients))

        def product(vector: Tensor) -> Tensor:
            total = torch.zeros_like(vector)
            for slope in slopes:
                if slope.requires_grad:
                    parts = torch.autograd.grad(
                        slope @ vector.to(slope.dtype),
                        parameters,
                        retain_graph=True,
                        allow_unused=True,
                        materialize_grads=True,
                    )
                    total += _flat(parts)
            return total

        return largest_eigenvalue(product, slopes[0].numel(), slopes[0].device)


def _flat(parts: Sequence[Tensor]) -> Tensor:
    # Not parameters_to_vector, which fails on a convolution's gradients in other layouts.
    return torch.cat([part.reshape(-1) for part in parts])


def largest_eigenvalue(
    product: Callable[[Tensor], Tensor], size: int, device: torch.device
) -> tuple[float, float]:
    """Return a symmetric operator's largest eigenvalue and its residual, by Lanczos.

    Every new vector is made orthogonal to all before it, twice, in float64, so that
    rounding brings no copies of an eigenvalue.

    Args:
        product: Takes and returns vectors of shape (size,), float64.
        size: Number of the operator's rows.
        device: Where the vectors live.
    """
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(size, generator=generator, dtype=torch.float64).to(device)
    basis = [start / start.norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        image = product(basis[-1])
        diagonal.append(float(basis[-1] @ image))
        if not math.isfinite(diagonal[-1]):
            return math.nan, math.nan
        rows = torch.stack(basis)
        for _ in range(2):
            image = image - rows.T @ (rows @ image)
        values, vectors = np.linalg.eigh(
            np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
        )
        value, rest = float(values[-1]), float(image.norm())
        done = rest * abs(vectors[-1, -1]) <= TOLERANCE * abs(value)
        if done or len(basis) == min(STEPS, size):
            break
        beside.append(rest)
        basis.append(image / rest)
    vector = rows.T @ torch.from_numpy(vectors[:, -1].copy()).to(device)
    vector /= vector.norm()
    return value, float((product(vector) - value * vector).norm())
