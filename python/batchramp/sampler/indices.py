"""Which arguments are the indices to draw, as torch's own batch samplers take them."""

from array import array
from collections.abc import Iterator, Mapping, MappingView, Sized
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from batchramp.values import shown

_LARGEST = 2**63 - 1
_WHOLE = (int, np.integer)


def read_indices(sampler: object) -> NDArray[np.int64] | None:
    """Returns the indices that an argument lists, if it does; a data set lists none.

    One-dimensional lists, tuples, ranges, arrays and tensors of whole numbers do. What
    holds anything else, or has more dimensions, is samples themselves: only its length
    counts. So is `range(n)`, whose indices are the places.

    Args:
        sampler: What a user gave for the samples.

    Returns:
        A contiguous array, or None.

    Raises:
        ValueError: If the indices have no order (sets, dicts), are an iterator, a mask,
            a column, in a tuple of one array, in part no whole numbers or whole numbers
            of a floating kind, or if one is negative or 2**63 or more.
    """
    if isinstance(sampler, Dataset):
        return None
    if isinstance(sampler, AbstractSet | Mapping | MappingView):
        raise ValueError(
            "sampler must list its indices in an order of their own, got a "
            f"{type(sampler).__name__}: write sorted(...) around it, or give the data "
            "set itself to draw from all of it"
        )
    if isinstance(sampler, Iterator):
        raise ValueError(
            "sampler must list its indices for every pass to come, got a "
            f"{type(sampler).__name__}, which is used up by one: write list(...) around it"
        )
    if isinstance(sampler, range):
        return _of_range(sampler)
    if isinstance(sampler, tuple) and len(sampler) == 1:
        _refuse_wrapped(sampler[0])
    if isinstance(sampler, list | tuple | array):
        return _of_items(sampler)
    if isinstance(sampler, Tensor):
        if sampler.is_complex() or (sampler.is_floating_point() and sampler.ndim != 1):
            return None
        sampler = sampler.detach().cpu()
        sampler = sampler.double() if sampler.is_floating_point() else sampler
        sampler = sampler.numpy()
    # Arrays of other libraries too: a column or an index of pandas, say.
    shape = getattr(sampler, "shape", None)
    if hasattr(sampler, "__array__") and isinstance(shape, tuple) and len(shape) == 1:
        return _of_array(np.asarray(sampler))
    if isinstance(sampler, np.ndarray):
        _refuse_column(sampler)
    return None


def _refuse_wrapped(item: object) -> None:
    """Refuses the one array in a tuple that `np.nonzero` returns for a mask."""
    if isinstance(item, Tensor):
        item = item.detach().cpu().numpy()
    if isinstance(item, np.ndarray) and item.ndim == 1 and item.dtype.kind in "iu":
        raise ValueError(
            "sampler must be the indices themselves, got a tuple of one array, as "
            f"np.nonzero and np.where return it, of {len(item)}: write [0] behind it"
        )


def _refuse_column(values: NDArray[Any]) -> None:
    """Refuses the column of indices that `mask.nonzero()` returns in torch."""
    if values.ndim == 2 and values.shape[1] == 1 and values.dtype.kind in "iu":
        raise ValueError(
            "sampler must have one dimension where it is indices, got a column of "
            f"{len(values)} whole numbers, as tensor.nonzero() and np.argwhere return "
            "it: write .flatten() behind it, or give len(data) if it is a data set"
        )


def _refuse_floats(values: NDArray[Any]) -> None:
    """Refuses indices read as floating-point numbers, as `np.loadtxt` does.

    They might be samples too, but nothing tells which.
    """
    if len(values) and bool(np.all((values >= 0) & (values == np.floor(values)))):
        raise ValueError(
            "sampler must be of an integer kind where it is indices, got "
            f"{len(values)} whole numbers as {values.dtype}: write .astype(int) (of a "
            "tensor, .long()), or give len(data) if it is a data set"
        )


def _of_range(numbers: range) -> NDArray[np.int64] | None:
    if (numbers.start, numbers.step) == (0, 1) or not numbers:
        return None
    ends = numbers[0], numbers[-1]
    _check(min(ends), max(ends))
    try:
        indices = np.arange(len(numbers), dtype=np.int64)
    except (MemoryError, ValueError) as error:
        raise ValueError(
            "sampler must be small enough for memory: indices take 8 bytes a sample, "
            f"got {shown(numbers)}"
        ) from error
    if len(numbers) > 1:  # or the step may be any number
        indices *= numbers.step
    indices += numbers.start
    return indices


def _of_items(
    items: "list[Any] | tuple[Any, ...] | array[Any]",
) -> NDArray[np.int64] | None:
    # Their types are few, and a type says all but of a tensor or an array.
    kinds = set(map(type, items))
    if kinds and kinds <= {bool, np.bool_}:
        raise _a_mask(items)
    plain = not kinds & {Tensor, np.ndarray}
    if plain:
        found = {kind is not bool and issubclass(kind, _WHOLE) for kind in kinds}
    else:
        found = {_is_whole(item) for item in items}
    if True not in found:
        if kinds and all(issubclass(kind, float | np.floating) for kind in kinds):
            _refuse_floats(np.asarray(items))
        return None
    if False in found:
        odd = next(item for item in items if not _is_whole(item))
        raise ValueError(
            "sampler must hold whole numbers alone (the indices to draw) or none (then "
            f"it is a data set), got {shown(odd)} among them"
        )
    numbers = items if plain else [int(item) for item in items]
    try:
        indices = np.array(numbers, dtype=np.int64)
    except OverflowError as error:
        raise _out_of_range(max(map(int, numbers), key=abs)) from error
    return _of_array(indices)


def _of_array(values: NDArray[Any]) -> NDArray[np.int64] | None:
    kind = values.dtype.kind
    if kind == "b":
        raise _a_mask(values)
    if kind == "O":
        return _of_items(values.tolist())
    if kind not in "iu":
        if kind == "f":
            _refuse_floats(values)
        return None
    if len(values):
        _check(int(values.min()), int(values.max()))
    return np.require(values, np.int64, ["C", "A"])


def _is_whole(item: object) -> bool:
    """Whether one item is a whole number, perhaps an array's or tensor's single one."""
    if isinstance(item, Tensor):
        whole = not (item.is_floating_point() or item.is_complex())
        return item.ndim == 0 and whole and item.dtype != torch.bool
    if isinstance(item, np.ndarray):
        return item.ndim == 0 and item.dtype.kind in "iu"
    return isinstance(item, _WHOLE) and not isinstance(item, bool)


def _check(least: int, most: int) -> None:
    if least < 0 or most > _LARGEST:
        raise _out_of_range(least if least < 0 else most)


def _out_of_range(index: int) -> ValueError:
    return ValueError(
        "sampler's indices must be between 0 and 9223372036854775807 (2**63 - 1), got "
        f"{shown(index)}"
    )


def _a_mask(mask: Sized) -> ValueError:
    return ValueError(
        "sampler must be indices, not which of them to take, got a mask of "
        f"{len(mask)}: write np.flatnonzero(mask), or mask.nonzero().flatten() for a tensor"
    )
