"""The small models of the built-in workloads, without batch norm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Standardize(nn.Module):
    """Turn bytes 0 to 255, shape (batch, channels, height, width), into standard scores.

    Images stay bytes in memory; each batch is converted on its device.

    Args:
        mean: Per-channel mean of the training pixels, on the scale 0 to 1.
        std: Per-channel standard deviation of the training pixels, likewise.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        shape = (1, len(mean), 1, 1)
        deviation = torch.tensor(std).view(shape)
        self.register_buffer("scale", 1 / (255 * deviation))
        self.register_buffer("shift", torch.tensor(mean).view(shape) / deviation)

    def forward(self, images: Tensor) -> Tensor:
        """Return float32 standard scores of the same shape."""
        return images * self.scale - self.shift


def mlp(features: int, hidden: int, classes: int) -> nn.Sequential:
    """Return a perceptron with one hidden layer of ReLU units."""
    return nn.Sequential(
        nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes)
    )


def strided_cnn(
    mean: Sequence[float],
    std: Sequence[float],
    *,
    size: int,
    widths: tuple[int, int],
    hidden: int,
    classes: int,
) -> nn.Sequential:
    """Return two 4x4 convolutions of stride 2 and two linear layers, on square images.

    Strides instead of pooling: max pooling was 40% of a step on a CPU.
    """
    first, second = widths
    return nn.Sequential(
        Standardize(mean, std),
        nn.Conv2d(len(mean), first, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(first, second, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(second * (size // 4) ** 2, hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )
