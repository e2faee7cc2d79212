"""Squared norms of gradients on the CPU, each of them read once."""

import torch

from batchramp._rust import GradientSum
from batchramp._rust import squared_norm as _squared_norm
from batchramp.gradient_variance.gradients import Gradient, parts, read
from batchramp.gradient_variance.layout import Layout, joined
from batchramp.values import shown


def squared_norm(gradient: Gradient) -> float:
    """Returns the sum of squares of a gradient, added in double precision.

    Args:
        gradient: As of `GradientVariance.update`; parameters in a sequence are taken as
            any other tensors, so that it is their weights' norm.

    Raises:
        ValueError: If a part is None, sparse or not real, or if there is no coordinate.
    """
    return _squared_norm(parts(gradient), threads=torch.get_num_threads())


class GradientNorms:
    """What the noise scale needs of K gradients, each of them read once.

    The sum of their squared norms, and the squared norm of their mean: taken and added
    in double precision, whatever `dtype` is. They make `NoiseScale.update_micro_batches`
    whole, and are all that a norm test needs.

    Args:
        dtype: Precision of the running sum, `float32` (4 bytes a coordinate) or
            `float64`. The first rounds the mean: a trace from both numbers has three
            right digits where the gradients deviate from it by a hundredth of it, and
            none at 1e-5.

    Raises:
        ValueError: If `dtype` is neither.
    """

    def __init__(self, *, dtype: str = "float32") -> None:
        if dtype not in ("float32", "float64"):
            raise ValueError(f"dtype must be float32 or float64, got {shown(dtype)}")
        self._dtype = dtype
        self._sum: GradientSum | None = None
        self._layout: Layout | None = None

    def update(self, gradient: Gradient) -> float:
        """Takes one more gradient and returns its squared norm.

        Args:
            gradient: As of `GradientVariance.update`.

        Raises:
            ValueError: As of `GradientVariance.update`.
        """
        arrays, layout = read(gradient)
        layout = joined(self._layout, layout)
        if self._sum is None:
            self._sum = GradientSum(sum(a.size for a in arrays), dtype=self._dtype)
        norm = self._sum.add(arrays, threads=torch.get_num_threads())
        self._layout = layout
        return norm

    def reset(self) -> None:
        """Forgets the gradients; the memory is kept for the next ones."""
        self._layout = None
        if self._sum is not None:
            self._sum.reset()

    @property
    def count(self) -> int:
        """Number of gradients taken, K."""
        return 0 if self._sum is None else self._sum.count

    @property
    def sum_squared_norms(self) -> float:
        """Sum of the gradients' squared norms."""
        return 0.0 if self._sum is None else self._sum.sum_squared_norms

    @property
    def squared_norm_of_mean(self) -> float:
        """Squared norm of the gradients' mean; NaN of none."""
        return float("nan") if self._sum is None else self._sum.squared_norm_of_mean
