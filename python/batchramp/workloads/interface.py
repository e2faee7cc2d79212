"""What a workload is: model, data, loss, metric and targets.

A user's own workload is one `Workload` value in a file, named `file.py:name` on the
command line and in suites.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Split:
    """Samples and what they should give.

    Attributes:
        inputs: Shape (samples, ...), any dtype that the model takes.
        targets: Shape (samples, ...), as the loss and the metric take them.
    """

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets) or len(self.inputs) == 0:
            raise ValueError(
                "inputs and targets of a split must have the same length, at least 1, "
                f"got {len(self.inputs)} and {len(self.targets)}"
            )

    def __len__(self) -> int:
        return len(self.inputs)

    def to(self, device: torch.device) -> Split:
        """Return the split on a device; the data of a trial stays there."""
        return Split(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True)
class Data:
    """The training and the test samples of one trial."""

    train: Split
    test: Split

    def to(self, device: torch.device) -> Data:
        """Return both splits on a device."""
        return Data(self.train.to(device), self.test.to(device))

    def digest(self) -> str:
        """Hash every byte of the data; part of a trial's identity."""
        digest = hashlib.sha256()
        for split in (self.train, self.test):
            for tensor in (split.inputs, split.targets):
                digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
                digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return each sample's cross-entropy in nats; outputs (batch, classes)."""
    return functional.cross_entropy(outputs, targets, reduction="none")


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return 1 where the largest of outputs (batch, classes) is the target, else 0."""
    return (outputs.argmax(dim=1) == targets).float()


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Model, data, loss, metric and targets.

    Attributes:
        name: What results call it.
        load: `(data_dir, seed) -> Data`. `data_dir` is the directory the user named, or
            None; a workload that draws its test set at random draws it from `seed`.
        model: Makes a new model; its initial parameters come from torch's global
            generator, which the trial seeds.
        loss: `(outputs, targets) -> (batch,)`, one loss a sample: the trainer weights
            them, so that every mean over an update is exact.
        metric: `(outputs, targets) -> (batch,)`, one score a sample; its mean over the
            test set is the column `metric`.
        targets: Targets for those who name none, such as `"metric >= 0.9"`.
    """

    name: str
    load: Callable[[Path | None, int], Data]
    model: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy
    metric: Callable[[Tensor, Tensor], Tensor] = accuracy
    targets: tuple[str, ...] = ()
