"""The gradients of single examples, one parameter's at a time, in two forms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from batchramp.gradient_variance.coordinates import GradientVariance
from batchramp.gradient_variance.sums import inner_products, squared_norms_of_rows


def wide(dtype: torch.dtype) -> torch.dtype:
    """Returns the dtype that sums are safe in: single where this is half."""
    return torch.promote_types(dtype, torch.float32)


def real(tensor: Tensor) -> Tensor:
    """Returns a complex tensor as its real and imaginary parts, any other as it is."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


@dataclass(frozen=True)
class Moments:
    """Of some examples, in a parameter's shape.

    Attributes:
        count: How many examples.
        mean: The mean of their gradients.
        squares: Sum of the squared deviations from it, per coordinate: of the absolute
            values where that is complex, so that it is real.
    """

    count: int
    mean: Tensor
    squares: Tensor

    def merged(self, other: Moments) -> Moments:
        """Returns the moments of both (Chan, Golub and LeVeque)."""
        count = self.count + other.count
        difference = other.mean - self.mean
        mean = torch.add(self.mean, difference, alpha=other.count / count)
        if difference.is_complex():
            difference = difference.abs()
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
        """Returns their products with a tensor of the parameter's shape, (n,), float64.

        Of complex ones the real part of that with the conjugate.
        """

    def moments(self) -> Moments:
        """Returns their mean and squared deviations per coordinate."""


class Stacked:
    """Gradients as they are: shape (n, ...), the rest the parameter's."""

    def __init__(self, gradients: Tensor) -> None:
        # Half precision would lose the sums.
        gradients = gradients.to(wide(gradients.dtype))
        self._shape = gradients.shape[1:]
        self._complex = gradients.is_complex()
        self._rows = real(gradients.reshape(len(gradients), -1)).flatten(1)

    def total(self) -> Tensor:
        """Returns their sum, in the parameter's shape."""
        # A product with ones: torch's sum over the first dimension is 3x slower on a CPU.
        ones = self._rows.new_ones(len(self._rows))
        return self._shaped(ones @ self._rows)

    def squared_norms(self) -> Tensor:
        """Returns their squared norms, shape (n,), float64."""
        return squared_norms_of_rows(self._rows)

    def inner_products(self, direction: Tensor) -> Tensor:
        """Returns their products with a tensor of the parameter's shape."""
        return inner_products(self._rows, real(direction))

    def moments(self) -> Moments:
        """Returns their mean and squared deviations per coordinate."""
        count = len(self._rows)
        if count == 1 or not self._rows.numel():
            mean, squares = self._rows[0], torch.zeros_like(self._rows[0])
        elif self._rows.device.type == "cpu":  # where var_mean takes 20x the time
            dtype = "float64" if self._rows.dtype == torch.float64 else "float32"
            found = GradientVariance.from_stacked(self._rows, dtype=dtype)
            mean, squares = found.mean(), found.variance() * (count - 1)
        else:
            variance, mean = torch.var_mean(self._rows, 0, correction=0)
            squares = variance * count
        if self._complex:
            squares = squares.view(-1, 2).sum(1)
        return Moments(count, self._shaped(mean), squares.view(self._shape))

    def _shaped(self, values: Tensor) -> Tensor:
        if self._complex:
            values = torch.view_as_complex(values.view(-1, 2))
        return values.view(self._shape)


class Outer:
    """Gradients that are products of two vectors, as a linear layer's by its weight.

    Kept as those vectors, so that no gradient of a single example takes memory.

    Args:
        deltas: Gradients by the layer's outputs, shape (n, rows of the weight).
        inputs: The layer's inputs, shape (n, columns of the weight).
    """

    def __init__(self, deltas: Tensor, inputs: Tensor) -> None:
        # Half precision would lose the sums; autocast's deltas are, beside its inputs.
        dtype = wide(torch.promote_types(deltas.dtype, inputs.dtype))
        self._deltas, self._inputs = deltas.to(dtype), inputs.to(dtype)
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
