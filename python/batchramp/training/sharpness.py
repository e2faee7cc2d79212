"""The sharpness of a minimum: the largest eigenvalue of the training loss's Hessian."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from batchramp.training.evaluation import CHUNK, evaluation_mode
from batchramp.workloads import Split, Workload

SAMPLES = 2000
"""The Hessian is of the loss over the first so many training samples, or over all."""

LEAST_STEPS, STEPS = 10, 80
"""The fewest and the most Lanczos steps; the largest eigenvalue of a network stands apart,
and takes 10 to 30. Fewer tell nothing: where most eigenvalues are alike, a first step meets
the tolerance at them."""

TOLERANCE = 1e-3
"""Residual over eigenvalue at which the steps end."""

_NOTHING = 1e-10
"""What is left of a product, over the largest one so far, that is taken for rounding."""


def sharpness(
    model: nn.Module, workload: Workload, train: Split
) -> tuple[float, float]:
    """Return the Hessian's largest eigenvalue, and how exact it is.

    The Hessian of the mean loss over the first `SAMPLES` training samples by the
    trainable parameters (a complex one counts as its two real parts), in evaluation
    mode, without augmentation and weight decay. It is never formed: each Lanczos step
    takes one product with it, by two backward passes (Pearlmutter, Neural Computation 6,
    1994). Attention is computed in plain operations, for the fused kernels have no
    second derivative; so are recurrent layers on a GPU.

    Memory, beside the graph of the samples: `largest_eigenvalue`'s.

    Returns:
        The eigenvalue w of largest value (not magnitude), and the residual |H v - w v|
        of its unit vector v: some eigenvalue lies within it of w. NaN both where the
        loss's derivatives are not finite.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    count = min(SAMPLES, len(train))
    with evaluation_mode(model), torch.enable_grad(), _plain_kernels(model):
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


@contextmanager
def _plain_kernels(model: nn.Module) -> Iterator[None]:
    """Has layers computed by kernels that can be differentiated twice."""
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            cudnn = torch.backends.cudnn
            before, cudnn.enabled = cudnn.enabled, False
            stack.callback(setattr, cudnn, "enabled", before)
        yield


def _flat(parts: Sequence[Tensor]) -> Tensor:
    # Not parameters_to_vector, which fails on a convolution's gradients in other layouts.
    return torch.cat([_real(part).reshape(-1) for part in parts])


def _real(part: Tensor) -> Tensor:
    """A gradient in dense real numbers: of a complex one both parts."""
    part = part.to_dense() if part.layout != torch.strided else part
    return torch.view_as_real(part.resolve_conj()) if part.is_complex() else part


def largest_eigenvalue(
    product: Callable[[Tensor], Tensor], size: int, device: torch.device
) -> tuple[float, float]:
    """Return a symmetric operator's largest eigenvalue and its residual, by Lanczos.

    Every new vector is made orthogonal to all before it, twice, in float64, so that
    rounding brings no copies of an eigenvalue. Where their products hold no new
    direction, a random one follows, for the largest may lie outside. It takes
    `LEAST_STEPS` at least, or `size`; the memory is 8 bytes a row and step, for 10^7
    rows some 2.4 GB in 30 steps and 6.4 GB at the most.

    Args:
        product: Takes and returns vectors of shape (size,), float64.
        size: Number of the operator's rows.
        device: Where the vectors live.
    """
    generator = torch.Generator().manual_seed(0)

    def random() -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64).to(device)

    most = min(STEPS, size)
    basis = _Basis(size, device)
    projected = np.zeros((most, most))
    basis.append(random())
    while True:
        count = len(basis)
        image = product(basis.last).clone()  # which may be the vector itself
        column = basis.take_from(image)
        rest = float(image.norm())
        if not (np.isfinite(column).all() and math.isfinite(rest)):
            return math.nan, math.nan
        projected[:count, count - 1] = projected[count - 1, :count] = column
        values, vectors = np.linalg.eigh(projected[:count, :count])
        value = float(values[-1])
        done = rest * abs(vectors[-1, -1]) <= TOLERANCE * abs(value)
        if count == most or (done and count >= LEAST_STEPS):
            break
        if rest <= _NOTHING * np.abs(projected).max():
            image = random()
            basis.take_from(image)
        basis.append(image)
    vector = basis.combined(vectors[:, -1])
    vector /= vector.norm()
    return value, float((product(vector) - value * vector).norm())


class _Basis:
    """Orthonormal vectors, in blocks of rows, so that one more moves none of the others."""

    def __init__(self, size: int, device: torch.device) -> None:
        self._shape = min(LEAST_STEPS, size), size
        self._device = device
        self._blocks: list[Tensor] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, vector: Tensor) -> None:
        """Adds a vector that is orthogonal to the others, at the length 1."""
        row = self._count % self._shape[0]
        if not row:
            self._blocks.append(
                torch.empty(self._shape, dtype=torch.float64, device=self._device)
            )
        torch.div(vector, vector.norm(), out=self._blocks[-1][row])
        self._count += 1

    @property
    def last(self) -> Tensor:
        """The vector added last."""
        return self._rows()[-1][-1]

    def take_from(self, vector: Tensor) -> NDArray[np.float64]:
        """Makes a vector orthogonal to all of these; returns its products with them."""
        products = np.zeros(self._count)
        for _ in range(2):
            found = [rows @ vector for rows in self._rows()]
            for rows, part in zip(self._rows(), found, strict=True):
                vector.addmv_(rows.T, part, alpha=-1)
            products += torch.cat(found).cpu().numpy()
        return products

    def combined(self, weights: NDArray[np.float64]) -> Tensor:
        """Returns the weighted sum of the vectors."""
        total = torch.zeros(self._shape[1], dtype=torch.float64, device=self._device)
        parts = torch.from_numpy(weights.copy()).to(self._device)
        for index, rows in enumerate(self._rows()):
            start = index * self._shape[0]
            total.addmv_(rows.T, parts[start : start + len(rows)])
        return total

    def _rows(self) -> list[Tensor]:
        """The blocks, the last as far as it is filled."""
        filled = self._count - self._shape[0] * (len(self._blocks) - 1)
        return [*self._blocks[:-1], self._blocks[-1][:filled]]
