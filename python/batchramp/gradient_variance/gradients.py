"""Gradients as core reads them: in place, whatever holds them."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from batchramp.gradient_variance.layout import Layout

Gradient: TypeAlias = (
    "Tensor | NDArray[Any] | Sequence[Tensor | NDArray[Any]] | nn.Module"
)
"""A gradient of any shape; its parts, one per parameter, in a fixed order; or a module,
whose parameters that require a gradient hold the parts in their `.grad`s."""

_INSTEAD = "write [p.grad for p in model.parameters()]"

_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def parts(gradient: Any) -> list[NDArray[Any]]:
    """Returns the parts of a gradient as C-contiguous arrays, at least one number in all.

    Weights are taken as they are, as any other tensors.

    CPU tensors and arrays of float32, float64, bfloat16 and float16 are not copied if
    they are contiguous. Other devices are copied from, other layouts put in order.

    Raises:
        ValueError: If a part is None, sparse or not of such numbers, or all are empty.
    """
    return _arrays(_named(gradient))


def read(gradient: Any) -> tuple[list[NDArray[Any]], Layout | None]:
    """Returns the parts of a gradient, as `parts` does, and their layout.

    That of a tensor or an array alone is not known if it is flat, for then it may be
    what parts were joined to.

    Raises:
        ValueError: As of `parts`, or if a part is a parameter, whose values are weights.
    """
    named = _named(gradient)
    for name, part in named:
        refuse_weights(name, part)
    arrays = _arrays(named)
    shapes = tuple(part.shape for part in arrays)
    if isinstance(gradient, nn.Module):
        return arrays, Layout.of_module(
            [name for name, _ in _of_module(gradient)], shapes
        )
    if isinstance(gradient, Tensor | np.ndarray) and gradient.ndim < 2:
        return arrays, None
    return arrays, Layout(shapes)


def refuse_weights(name: str, values: Any) -> None:
    """Refuses a parameter, or what was one: a leaf that has a gradient.

    Raises:
        ValueError: If it is one.
    """
    if type(values) is Tensor and not values.requires_grad:
        return  # what most are, at once
    if isinstance(values, nn.Parameter) or (
        isinstance(values, Tensor)
        and values.requires_grad
        and values.is_leaf
        and values.grad is not None
    ):
        raise ValueError(
            f"{name} must be a gradient, got a parameter's weights: {_INSTEAD}"
        )


def _named(gradient: Any) -> list[tuple[str, Any]]:
    """The parts, and what an error calls them."""
    if isinstance(gradient, nn.Module):
        return [(f"gradient of {name!r}", part) for name, part in _of_module(gradient)]
    if isinstance(gradient, Tensor | np.ndarray):
        return [("gradient", gradient)]
    if isinstance(gradient, Sequence):
        return [(f"gradient[{index}]", part) for index, part in enumerate(gradient)]
    raise ValueError(
        "gradient must be a tensor, an array, a sequence of them or a module, got "
        f"{type(gradient).__name__}: {_INSTEAD}, or give the module itself"
    )


def _arrays(named: list[tuple[str, Any]]) -> list[NDArray[Any]]:
    arrays = [array(name, part) for name, part in named]
    if not any(part.size for part in arrays):
        raise ValueError("gradient must have at least one coordinate, got none")
    return arrays


def _of_module(module: nn.Module) -> list[tuple[str, Any]]:
    named: list[tuple[str, Any]] = []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:
            raise ValueError(
                f"gradient of {name!r} must not be None: call backward() first, or "
                "take the parameter out with requires_grad_(False)"
            )
        named.append((name, parameter.grad))
    return named


def array(name: str, values: Any) -> NDArray[Any]:
    """Returns a tensor or an array as a C-contiguous array of its own numbers.

    The bits of bfloat16, which NumPy does not know, are uint16.

    Raises:
        ValueError: If it holds no floating-point numbers that can be read.
    """
    if isinstance(values, Tensor):
        found = _of_tensor(name, values)
    elif isinstance(values, np.ndarray) and values.dtype.kind == "f":
        found = values
        if found.dtype.itemsize > 8 or not found.dtype.isnative:
            found = found.astype(f"f{min(found.dtype.itemsize, 8)}")
    else:
        kind = values.dtype if isinstance(values, np.ndarray) else type(values).__name__
        raise ValueError(_not_real(name, kind))
    if found.flags.c_contiguous and found.flags.aligned:
        return found
    return np.require(found, requirements=("C", "A"))


def _of_tensor(name: str, values: Tensor) -> NDArray[Any]:
    if values.layout != torch.strided:
        raise ValueError(f"{name} must be dense, got layout {values.layout}")
    if values.dtype not in _FLOATS:
        raise ValueError(_not_real(name, values.dtype))
    if values.dtype == torch.bfloat16:
        values = values.detach().view(torch.uint16)
    try:
        return values.numpy(force=True)
    except (RuntimeError, TypeError) as error:  # as of a meta tensor
        # Of those that FSDP and tensor parallelism split, this rank holds a part alone.
        whole = ": write its full_tensor()" if hasattr(values, "full_tensor") else ""
        raise ValueError(f"{name} must hold numbers to read: {error}{whole}") from error


def _not_real(name: str, kind: Any) -> str:
    return (
        f"{name} must be a tensor or an array of real floating-point numbers (float32, "
        f"float64, bfloat16 or float16), got {kind}"
    )
