"""Mean and variance of a stream of gradients, coordinate by coordinate."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from batchramp._rust import Moments
from batchramp.gradient_variance.gradients import (
    Gradient,
    array,
    read,
    refuse_weights,
)
from batchramp.gradient_variance.layout import NO_STATE, Layout, joined, loaded
from batchramp.values import shown, whole

MAX_COUNT = 2**53
"""The most gradients or samples: a double holds every whole number up to there."""

_STATE_VERSION = 1


class GradientVariance:
    """Mean and variance of a stream of gradients, coordinate by coordinate.

    Each gradient is the mean over `batch_size` samples (not their sum, and not divided
    again by a number of accumulation steps). Between K gradients the variance of a
    coordinate has the divisor K - 1; per sample it is `batch_size` times that.
    Gradients are added by Welford's update and merged by Chan's.

    Gradients may be float32, float64, bfloat16 or float16, also mixed; a `float32`
    state rounds float64. CPU tensors and NumPy arrays are read in place if they are
    contiguous, and copied first if not, or if they are on another device. Work runs on
    `torch.get_num_threads()` threads, without the GIL; their number changes no result.
    A `float32` state holds deviations from 1e-18 to 1e18, whose squares it can keep.
    What is not finite stays, in its coordinate: leave out a gradient that overflowed, as
    now and then under AMP, whose `squared_norm` is not finite.

    A `float32` state is close while means are small beside the deviations, as those of
    gradients are: in a stream whose mean is 1,000 standard deviations from zero, the
    variance has three right digits, at 10,000 two of dozens of gradients, and none of
    two alone. A `float64` state keeps eight there, at about twice the time;
    `from_stacked` keeps five in `float32`.

    Args:
        batch_size: Samples behind each gradient.
        dtype: Precision of the state, `float32` (8 bytes a coordinate) or `float64`.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self, batch_size: int = 1, *, dtype: str = "float32") -> None:
        self._batch_size = whole("batch_size", batch_size, least=1, most=MAX_COUNT)
        if dtype not in ("float32", "float64"):
            raise ValueError(f"dtype must be float32 or float64, got {shown(dtype)}")
        self._dtype = dtype
        self._moments: Moments | None = None
        self._layout: Layout | None = None

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
            ValueError: If it is not a matrix of numbers with a row and a column, or is a
                parameter.
        """
        variance = cls(batch_size, dtype=dtype)
        refuse_weights("each row of gradients", gradients)
        rows = array("gradients", gradients)
        if rows.ndim != 2 or not rows.size:
            raise ValueError(
                "gradients must have the shape (K, P), neither of them 0, "
                f"got {tuple(rows.shape)}"
            )
        threads = torch.get_num_threads()
        variance._moments = Moments.from_stacked(rows, dtype=dtype, threads=threads)
        return variance

    def update(self, gradient: Gradient) -> None:
        """Takes one more gradient.

        Args:
            gradient: A tensor or an array of any shape; a sequence of them, which are
                flattened in their order; or a module, whose parameters' `.grad`s are
                taken in their order, but of those that require no gradient. Nothing is
                concatenated. Parts have the shapes of the first gradient's, and those of
                a module its parameters' names; a flat tensor alone has any.

        Raises:
            ValueError: If a part is None, sparse, not real or a parameter (its weights),
                if there is no coordinate, or if the parts are not those of the first
                gradient.
        """
        arrays, layout = read(gradient)
        layout = joined(self._layout, layout)
        if self._moments is None:
            self._moments = Moments(sum(a.size for a in arrays), dtype=self._dtype)
        self._moments.update(arrays, threads=torch.get_num_threads())
        self._layout = layout

    def merge(self, other: "GradientVariance") -> None:
        """Takes in the gradients that another one has seen.

        Raises:
            ValueError: If batch size, precision or the gradients' parts differ.
        """
        if not isinstance(other, GradientVariance):
            raise ValueError(f"other must be a GradientVariance, got {shown(other)}")
        if (other._batch_size, other._dtype) != (self._batch_size, self._dtype):
            raise ValueError(
                f"other must have batch_size={self._batch_size} and dtype="
                f"{self._dtype!r}, got {other._batch_size} and {other._dtype!r}"
            )
        if other._moments is None:
            return
        layout = joined(self._layout, other._layout)
        if self._moments is None:
            self._moments = Moments(other._moments.length, dtype=self._dtype)
        self._moments.merge(other._moments, threads=torch.get_num_threads())
        self._layout = layout

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

    def variance(self, *, per_sample: bool = True) -> Tensor:
        """Returns the variance of each coordinate, flat; NaN at K = 1.

        Args:
            per_sample: Whether it is the variance between samples, `batch_size` times
                that between the gradients themselves (divisor K - 1).

        Raises:
            ValueError: If there was no gradient yet.
        """
        moments, threads = self._seen("variance"), torch.get_num_threads()
        variance = moments.variance(self._scale(per_sample), threads=threads)
        return torch.from_numpy(variance)

    def trace(self, *, per_sample: bool = True) -> float:
        """Returns the sum of `variance()`, added in double precision; NaN at K = 1.

        Args:
            per_sample: As of `variance`.

        Raises:
            ValueError: If there was no gradient yet.
        """
        moments, threads = self._seen("trace"), torch.get_num_threads()
        return moments.trace(self._scale(per_sample), threads=threads)

    def __getstate__(self) -> dict[str, Any]:
        return self.state_dict()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._batch_size, self._dtype = state["batch_size"], state["dtype"]
        self._moments = self._layout = None
        self.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        """Returns a copy of the state: plain values, and two flat tensors.

        `mean`, and the sum of `squared_deviations` from it, are None before the first
        gradient; so are the parts' `shapes`, and their `names` in a module, where they
        are not known. `torch.load(..., weights_only=True)` reads what `torch.save` wrote.
        """
        state: dict[str, Any] = {
            "version": _STATE_VERSION,
            "batch_size": self._batch_size,
            "dtype": self._dtype,
            "count": 0,
            "mean": None,
            "squared_deviations": None,
            **(self._layout.state() if self._layout else NO_STATE),
        }
        if self._moments is not None:
            moments = self._moments.copy()  # so that the three belong together
            state["count"] = moments.count
            state["mean"] = torch.from_numpy(moments.mean())
            state["squared_deviations"] = torch.from_numpy(moments.squares())
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to a state, also to one that has no shapes and names yet.

        Raises:
            ValueError: If it is not a state, or one of another batch size or precision.
        """
        ours: dict[str, Any] = {
            "version": _STATE_VERSION,
            "batch_size": self._batch_size,
            "dtype": self._dtype,
        }
        keys = (*ours, "count", "mean", "squared_deviations", *NO_STATE)
        if isinstance(state, Mapping) and set(keys) - set(state) == set(NO_STATE):
            state = {**state, **NO_STATE}
        if not isinstance(state, Mapping) or set(state) != set(keys):
            got = sorted(state) if isinstance(state, Mapping) else type(state).__name__
            raise ValueError(f"state must have the keys {', '.join(keys)}, got {got}")
        for key, value in ours.items():
            given = state[key]
            if isinstance(value, int):
                given = whole(f"state's {key}", given)
            if not isinstance(given, type(value)) or given != value:
                raise ValueError(
                    f"state's {key} must be {value!r}, got {shown(state[key])}"
                )
        count = whole("state's count", state["count"], least=0, most=MAX_COUNT)
        mean, squares = state["mean"], state["squared_deviations"]
        if mean is None and squares is None and not count:
            self._moments = self._layout = None
            return
        mean = self._loaded("mean", mean)
        squares = self._loaded("squared_deviations", squares)
        if squares.shape != mean.shape:
            raise ValueError(
                f"state's squared_deviations must have the length of its mean, "
                f"{mean.size}, got {squares.size}"
            )
        if (squares < 0).any():
            raise ValueError(
                f"state's squared_deviations must not be negative, got {squares.min()}"
            )
        if not count and (mean.any() or squares.any()):
            raise ValueError("state's count must be at least 1 with a mean, got 0")
        layout = loaded(state, mean.size)
        self._moments, self._layout = Moments.from_state(count, mean, squares), layout

    def _loaded(self, key: str, values: Any) -> NDArray[Any]:
        """A flat array of a state that is to be loaded."""
        found = array(f"state's {key}", values)
        if found.ndim != 1 or found.dtype != np.dtype(self._dtype) or not found.size:
            raise ValueError(
                f"state's {key} must be a flat tensor of {self._dtype}, "
                f"got shape {tuple(found.shape)} of {found.dtype}"
            )
        return found

    def _scale(self, per_sample: bool) -> float:
        return float(self._batch_size) if per_sample else 1.0

    def _seen(self, name: str) -> Moments:
        if self._moments is None:
            raise ValueError(f"count must be at least 1 for {name}(), got 0")
        return self._moments
