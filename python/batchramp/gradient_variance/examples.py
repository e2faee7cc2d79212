"""The gradients of single examples, one parameter's at a time, in two forms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from batchramp.gradient_variance.coordinates import GradientVariance
from batchramp.gradient_variance.sums import inner_products, squared_norms_of_rows


@dataclass(frozen=True)
class Moments:
    """Of some examples, in a parameter's shape.

    Attributes:
        count: How many examples.
        mean: The mean of their gradients.
        squares: Sum of the squared deviations from it, per coordinate.
    """

    count: int
    mean: Tensor
    squares: Tensor

    def merged(self, other: Moments) -> Moments:
        """Returns the moments of both (Chan, Golub and LeVeque)."""
        count = self.count + other.count
        difference = other.mean - self.mean
        mean = torch.add(self.mean, difference, alpha=other.count / count)
        squares = torch.addcmul(
            self.squares + other.squares,
            difference,
            difference,
            value=self.count * other.count / count,
        )
        return Moments(count, mean, squares)


class ExampleGradients(Protocol):
    """The gradients of n examples by one parameter."""

    def total(self) -> Tensor:
        """Returns their sum, in the parameter's shape."""

    def squared_norms(self) -> Tensor:
        """Returns their squared norms, shape (n,), float64."""

    def inner_products(self, direction: Tensor) -> Tensor:
        """Returns their products with a tensor of the parameter's shape, (n,), float64."""

    def moments(self) -> Moments:
        """Returns their mean and squared deviations per coordinate."""


class Stacked:
    """Gradients as they are: shape (n, ...), the rest the parameter's."""

    def __init__(self, gradients: Tensor) -> None:
        # Half precision would lose the sums.
        narrow = gradients.element_size() < 4
        gradients = gradients.float() if narrow else gradients
        self._shape = gradients.shape[1:]
        self._rows = gradients.reshape(len(gradients), -1)

    def total(self) -> Tensor:
        """Returns their sum, in the parameter's shape."""
        # A product with ones: torch's sum over the first dimension is 3x slower on a CPU.
        ones = self._rows.new_ones(len(self._rows))
        return (ones @ self._rows).view(self._shape)

    def squared_norms(self) -> Tensor:
        """Returns their squared norms, shape (n,), float64."""
        return squared_norms_of_rows(self._rows)

    def inner_products(self, direction: Tensor) -> Tensor:
        """Returns their products with a tensor of the parameter's shape."""
        return inner_products(self._rows, direction)

    def moments(self) -> Moments:
        """Returns their mean and squared deviations per coordinate."""
        count = len(self._rows)
        if count == 1:
            mean, squares = self._rows[0], torch.zeros_like(self._rows[0])
        elif self._rows.device.type == "cpu":  # where var_mean takes 20x the time
            dtype = "float64" if self._rows.dtype == torch.float64 else "float32"
            found = GradientVariance.from_stacked(self._rows, dtype=dtype)
            mean, squares = found.mean(), found.variance() * (count - 1)
        else:
            variance, mean = torch.var_mean(self._rows, 0, correction=0)
            squares = variance * count
        return Moments(count, mean.view(self._shape), squares.view(self._shape))


class Outer:
    """Gradients that are products of two vectors, as a linear layer's by its weight.

    Kept as those vectors, so that no gradient of a single example takes memory.

    Args:
        deltas: Gradients by the layer's outputs, shape (n, rows of the weight).
        inputs: The layer's inputs, shape (n, columns of the weight).
    """

    def __init__(self, deltas: Tensor, inputs: Tensor) -> None:
        narrow = deltas.element_size() < 4
        self._deltas = deltas.float() if narrow else deltas
        self._inputs = inputs.to(self._deltas.dtype)
        self._doubles: tuple[Tensor, Tensor] | None = None

    def total(self) -> Tensor:
        """Returns their sum, in the weight's shape."""
        return self._deltas.T @ self._inputs

    def squared_norms(self) -> Tensor:
        """Returns their squared norms, shape (n,), float64."""
        deltas, inputs = self._double()
        return deltas.square().sum(1) * inputs.square().sum(1)

    def inner_products(self, direction: Tensor) -> Tensor:
        """Returns their products with a tensor of the weight's shape."""
        deltas, inputs = self._double()
        return (deltas @ direction.double()).mul_(inputs).sum(1)

    def moments(self) -> Moments:
        """Returns their mean and squared deviations per coordinate, in float64.

        The sum of squares less the mean's is what single precision could not do.
        """
        deltas, inputs = self._double()
        count = len(deltas)
        mean = (deltas.T @ inputs).div_(count)
        squares = deltas.square().T @ inputs.square()
        squares = squares.addcmul_(mean, mean, value=-count).clamp_(min=0)
        return Moments(count, mean, squares)

    def _double(self) -> tuple[Tensor, Tensor]:
        if self._doubles is None:
            self._doubles = self._deltas.double(), self._inputs.double()
        return self._doubles
