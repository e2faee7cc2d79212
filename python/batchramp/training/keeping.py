"""A model's state, kept over a look: what a forward pass counts or caches is put back.

A layer may keep more than parameters, such as how often it was called. A look calls it
too, and training must go on as if it had not.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def state_kept(model: nn.Module) -> Iterator[None]:
    """Put the buffers and plain attributes of a model and its parts back as they were.

    Buffers and tensors in attributes get back their values, other attributes the object
    they held. What changes inside such an object (a list, a generator) is not seen.
    Parameters are left alone.
    """
    held = [
        (module, vars(module).copy(), dict(module._buffers.items()))
        for module in model.modules()
    ]
    values = [
        (now, now.clone())
        for _, attributes, buffers in held
        for value in (*attributes.values(), *buffers.values())
        if isinstance(value, Tensor) and value.layout == torch.strided
        for now in (_memory(value),)
    ]
    try:
        yield
    finally:
        for module, attributes, buffers in held:
            _put_back(vars(module), attributes)
            if isinstance(module._buffers, dict):  # TorchScript's cannot be set
                _put_back(module._buffers, buffers)
        for now, before in values:
            # Only what was written to: memory mapped from a file may be read-only.
            if not torch.equal(now, before):
                now.copy_(before)


def _memory(tensor: Tensor) -> Tensor:
    """A tensor's memory as bytes; changing it there is no change to autograd."""
    storage = tensor.untyped_storage()
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage)


def _put_back(now: MutableMapping[str, Any], before: dict[str, Any]) -> None:
    for name in now.keys() - before.keys():
        del now[name]
    now.update(before)
