"""Sums of squares and of products in double precision, on the device of the numbers.

Single precision would not do: its sums over millions of weights lose three digits, and a
square of what is below 1e-23 or above 1e19 leaves it. Double precision holds all that
single and half precision can square, and of its own numbers those from 1e-150 to 1e150.

Complex numbers count as their two real parts: the product of a and b is the real part of
conj(a) b.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from batchramp._rust import squared_norm
from batchramp.gradient_variance.gradients import array

_BLOCK, _DEVICE_BLOCK = 2**16, 2**22
"""Numbers that are widened at a time, on a CPU what its caches hold."""

_LONG = 1024
"""Numbers of a row from which a call of the core for each is faster than torch's one."""


def squared_norm_on_device(tensors: Sequence[Tensor]) -> Tensor:
    """Returns the sum of all elements' squares: shape (), float64, on the device.

    On a CPU it is one pass of the core, elsewhere torch's list operation, which waits
    for no device and copies nothing. Of tensors on several devices it comes on the first
    that is no CPU.
    """
    home = _home(tensors)
    near, far = [], []
    for tensor in map(_real, tensors):
        if tensor.device.type != "cpu":
            if tensor.numel():  # torch's norm of nothing is what was in the memory
                far.append(tensor)
        else:
            near.append(array("gradient", tensor))
    norms = [torch.zeros((), dtype=torch.float64, device=home)]
    if far:
        found = torch._foreach_norm(far, 2, dtype=torch.float64)
        norms.append(torch.stack([norm.to(home) for norm in found]).square().sum())
    if near:
        norm = squared_norm(near, threads=torch.get_num_threads())
        norms.append(torch.full((), norm, dtype=torch.float64, device=home))
    return torch.stack(norms).sum()


def squared_norms_of_rows(rows: Tensor) -> Tensor:
    """Returns the squared norm of each row of (n, P): shape (n,), float64."""
    rows = _real(rows).flatten(1)
    length = rows.shape[1]
    if rows.device.type == "cpu" and length >= _LONG:
        threads = torch.get_num_threads()
        found = [squared_norm([r], threads=threads) for r in array("gradients", rows)]
        return torch.tensor(found, dtype=torch.float64)
    parts = torch.split(rows, max(1, _DEVICE_BLOCK // max(1, length)))
    norms = [torch.linalg.vector_norm(p, dim=1, dtype=torch.float64) for p in parts]
    return torch.cat(norms).square()


def inner_products(rows: Tensor, direction: Tensor) -> Tensor:
    """Returns the product of each row of (n, P) with a tensor of P elements.

    Shape (n,), float64. Some columns are widened at a time.
    """
    rows, direction = _real(rows).flatten(1), _real(direction)
    block = _BLOCK if rows.device.type == "cpu" else _DEVICE_BLOCK
    width = max(1, block // max(1, len(rows)))
    along = torch.split(direction.reshape(-1), width)
    products = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    for part, stretch in zip(torch.split(rows, width, 1), along, strict=True):
        products += part.double() @ stretch.double()
    return products


def inner_product(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """Returns the product of two gradients, a tensor for each parameter.

    Shape (), float64, on the device that `squared_norm_on_device` names.
    """
    home = _home(one)
    products = [
        inner_products(left.reshape(1, -1), right).to(home)
        for left, right in zip(one, other, strict=True)
    ]
    return torch.cat(products).sum()


def _home(tensors: Sequence[Tensor]) -> torch.device:
    """Where sums over tensors go, so that none of them is waited for."""
    devices = [tensor.device for tensor in tensors]
    return next((each for each in devices if each.type != "cpu"), devices[0])


def _real(numbers: Tensor) -> Tensor:
    if not numbers.is_complex():
        return numbers
    return torch.view_as_real(numbers.resolve_conj())
