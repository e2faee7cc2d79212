"""Mean and variance of a stream of gradients, coordinate by coordinate."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from batchramp._rust import Moments
from batchramp.gradient_variance.arguments import whole

Gradient: TypeAlias = "Tensor | NDArray[Any] | Sequence[Tensor | NDArray[Any]]"
"""A gradient of any shape, or its parts, one per parameter, in a fixed order."""


class GradientVariance:
    """Mean and variance of a stream of gradients, coordinate by coordinate.

    Each gradient is the mean over `batch_size` samples (not their sum, and not divided
    again by a number of accumulation steps). The variance is per sample: `batch_size`
    times the variance between gradients, with divisor K - 1 for K gradients (Welford's
    update, and Chan's to merge). Contiguous CPU tensors and arrays of the state's
    precision are read in place; anything else is converted first.

    Args:
        batch_size: Samples behind each gradient.
        dtype: Precision of the state, `float32` (8 bytes a coordinate) or `float64`.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self, batch_size: int = 1, *, dtype: str = "float32") -> None:
        self._batch_size = whole("batch_size", batch_size)
        if dtype not in ("float32", "float64"):
            raise ValueError(f"dtype must be float32 or float64, got {dtype!r}")
        self._dtype = dtype
        self._moments: Moments | None = None

    @classmethod
    def from_stacked(
        cls,
        gradients: Tensor | NDArray[Any],
        batch_size: int = 1,
        *,
        dtype: str = "float32",
    ) -> "GradientVariance":
        """Takes all gradients at once: faster, and closer at a large mean.

        Args:
            gradients: K gradients of P coordinates each, of shape (K, P).
            batch_size: Samples behind each gradient.
            dtype: Precision of the state.

        Raises:
            ValueError: If it is not a matrix of numbers with a row and a column.
        """
        variance = cls(batch_size, dtype=dtype)
        rows = _array("gradients", gradients, dtype)
        if rows.ndim != 2 or not rows.size:
            raise ValueError(
                "gradients must have the shape (K, P), neither of them 0, "
                f"got {tuple(rows.shape)}"
            )
        variance._moments = Moments.from_stacked(rows, dtype=dtype)
        return variance

    def update(self, gradient: Gradient) -> None:
        """Takes one more gradient.

        Args:
            gradient: A tensor or an array of any shape, or a sequence of them, which
                are flattened in their order.

        Raises:
            ValueError: If a part is None, sparse or not real, or if there are not as
                many coordinates as before, or none.
        """
        parts = [gradient] if isinstance(gradient, Tensor | np.ndarray) else gradient
        if not isinstance(parts, Sequence):
            raise ValueError(
                "gradient must be a tensor, an array or a sequence of them, "
                f"got {parts!r}"
            )
        arrays = [_array("gradient", part, self._dtype).reshape(-1) for part in parts]
        if len({array.dtype for array in arrays}) > 1:
            arrays = [array.astype(self._dtype) for array in arrays]
        length = sum(array.size for array in arrays)
        if not length:
            raise ValueError("gradient must have at least one coordinate, got none")
        if self._moments is None:
            self._moments = Moments(length, dtype=self._dtype)
        self._moments.update(arrays)

    def merge(self, other: "GradientVariance") -> None:
        """Takes in the gradients that another one has seen.

        Raises:
            ValueError: If batch size, precision or number of coordinates differ.
        """
        if not isinstance(other, GradientVariance):
            raise ValueError(f"other must be a GradientVariance, got {other!r}")
        if (other._batch_size, other._dtype) != (self._batch_size, self._dtype):
            raise ValueError(
                f"other must have batch_size={self._batch_size} and dtype="
                f"{self._dtype!r}, got {other._batch_size} and {other._dtype!r}"
            )
        if other._moments is None:
            return
        if self._moments is None:
            self._moments = Moments(other._moments.length, dtype=self._dtype)
        self._moments.merge(other._moments)

    @property
    def count(self) -> int:
        """Number of gradients taken, K."""
        return 0 if self._moments is None else self._moments.count

    def mean(self) -> Tensor:
        """Returns the mean gradient, flat, in the state's precision.

        Raises:
            ValueError: If there was no gradient yet.
        """
        return torch.from_numpy(self._seen("mean").mean())

    def variance(self) -> Tensor:
        """Returns the per-sample variance of each coordinate, flat; NaN at K = 1.

        Raises:
            ValueError: If there was no gradient yet.
        """
        variance = self._seen("variance").variance(float(self._batch_size))
        return torch.from_numpy(variance)

    def trace(self) -> float:
        """Returns the sum of `variance()`, added in double precision; NaN at K = 1.

        Raises:
            ValueError: If there was no gradient yet.
        """
        return self._seen("trace").trace(float(self._batch_size))

    def _seen(self, name: str) -> Moments:
        if self._moments is None:
            raise ValueError(f"count must be at least 1 for {name}(), got 0")
        return self._moments


def _array(name: str, values: Any, dtype: str) -> NDArray[Any]:
    """Values as a contiguous array that a state of this precision takes."""
    if isinstance(values, Tensor):
        if values.layout != torch.strided:
            raise ValueError(f"{name} must be dense, got layout {values.layout}")
        values = values.detach()
        # NumPy has no bfloat16, and half precision is summed in single at least.
        narrow = values.is_floating_point() and values.element_size() < 4
        values = values.to("cpu", torch.float32 if narrow else values.dtype).numpy()
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
        kind = values.dtype if isinstance(values, np.ndarray) else type(values).__name__
        raise ValueError(
            f"{name} must be a tensor or an array of real floating-point numbers, "
            f"got {kind}"
        )
    keep = values.dtype == np.float32 or values.dtype == dtype
    return np.ascontiguousarray(values, dtype=values.dtype if keep else dtype)
