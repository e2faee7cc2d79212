"""The variance of gradients, per coordinate or as a noise scale."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from batchramp._rust import Moments, noise_from_micro_batches, noise_from_two_sizes

Gradient: TypeAlias = "Tensor | NDArray[Any] | Sequence[Tensor | NDArray[Any]]"
"""A gradient of any shape, or its parts, one per parameter, in a fixed order."""

_NOISE_STATE_VERSION = 1


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
        self._batch_size = _batch_size(batch_size)
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


class NoiseScale:
    """The noise scale tr(Sigma) / |G|^2, from squared norms alone.

    Sigma is the covariance of the per-sample gradients and G the gradient of all
    samples (McCandlish et al., arXiv 1812.06162). Each update gives an unbiased
    estimate of both; each is averaged exponentially and debiased, and the noise scale
    is the ratio of the averages. NaN and infinity, as of a diverged run, stay.

    Args:
        num_samples: Samples that batches are drawn from without replacement, which
            makes their means vary less; None is an endless stream.
        decay: Weight of the past in the averages, at least 0 and below 1.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self, num_samples: int | None = None, decay: float = 0.9) -> None:
        if num_samples is not None:
            num_samples = _batch_size(num_samples, "num_samples")
        if isinstance(decay, bool) or not 0 <= decay < 1:
            raise ValueError(f"decay must be at least 0 and below 1, got {decay!r}")
        self._num_samples = num_samples
        self._decay = float(decay)
        self._count = 0
        self._trace = 0.0
        self._squared_norm = 0.0

    def update_micro_batches(
        self,
        count: int,
        batch_size: int,
        sum_squared_norms: float,
        squared_norm_of_mean: float,
    ) -> None:
        """Takes the evidence of one update's micro-batches.

        Args:
            count: Number of micro-batches, at least 2, of equal size.
            batch_size: Samples of each, over which its gradient is the mean.
            sum_squared_norms: Sum of the squared norms of their gradients.
            squared_norm_of_mean: Squared norm of the mean of their gradients.

        Raises:
            ValueError: If an argument is out of its range.
        """
        self._take(
            *noise_from_micro_batches(
                count,
                batch_size,
                sum_squared_norms,
                squared_norm_of_mean,
                self._num_samples,
            )
        )

    def update_two_sizes(
        self,
        small_batch_size: int,
        small_squared_norm: float,
        large_batch_size: int,
        large_squared_norm: float,
    ) -> None:
        """Takes the squared norms of two gradients, means over batches of two sizes.

        Args:
            small_batch_size: Samples of the small batch.
            small_squared_norm: Squared norm of its gradient.
            large_batch_size: Samples of the large batch.
            large_squared_norm: Squared norm of its gradient.

        Raises:
            ValueError: If an argument is out of its range.
        """
        self._take(
            *noise_from_two_sizes(
                small_batch_size,
                small_squared_norm,
                large_batch_size,
                large_squared_norm,
                self._num_samples,
            )
        )

    @property
    def count(self) -> int:
        """Number of updates taken."""
        return self._count

    @property
    def trace(self) -> float:
        """Average trace of Sigma (per sample, divisor N - 1); NaN before an update."""
        return self._debiased(self._trace)

    @property
    def squared_norm(self) -> float:
        """Average squared norm of G, which noise can push below 0; NaN at first."""
        return self._debiased(self._squared_norm)

    @property
    def noise_scale(self) -> float:
        """Samples at which noise and signal are equal: `trace` / `squared_norm`.

        Infinite where the average squared norm is not above 0: no signal was seen.
        """
        return math.inf if self.squared_norm <= 0 else self.trace / self.squared_norm

    def state_dict(self) -> dict[str, Any]:
        """Returns the averages as a new JSON-able dict."""
        return {
            "version": _NOISE_STATE_VERSION,
            "num_samples": self._num_samples,
            "decay": self._decay,
            "count": self._count,
            "trace": self._trace,
            "squared_norm": self._squared_norm,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to a state.

        Raises:
            ValueError: If it is not a state, or one of other arguments.
        """
        ours = self.state_dict()
        if set(state) != set(ours):
            raise ValueError(
                f"state must have the keys {', '.join(ours)}, got {sorted(state)}"
            )
        for key in ("version", "num_samples", "decay"):
            if state[key] != ours[key]:
                raise ValueError(
                    f"state's {key} must be {ours[key]!r}, got {state[key]!r}"
                )
        self._count = _batch_size(state["count"], "state's count", least=0)
        self._trace = float(state["trace"])
        self._squared_norm = float(state["squared_norm"])

    def _take(self, trace: float, squared_norm: float) -> None:
        self._count += 1
        self._trace += (1 - self._decay) * (trace - self._trace)
        self._squared_norm += (1 - self._decay) * (squared_norm - self._squared_norm)

    def _debiased(self, average: float) -> float:
        # The averages began at 0, which weighs decay^count in them.
        if not self._count:
            return math.nan
        return average / (1 - self._decay**self._count)


def _batch_size(value: Any, name: str = "batch_size", least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


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
