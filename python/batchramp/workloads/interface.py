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

from batchramp.workloads.checking import (
    check_factory,
    check_function,
    check_per_sample,
    check_tensor,
    check_texts,
)


@dataclass(frozen=True)
class Split:
    """Samples and what they should give.

    Attributes:
        inputs: Shape (samples, ...), any dtype that the model takes; dense, without a
            gradient.
        targets: Shape (samples, ...), as the loss and the metric take them; likewise.

    Raises:
        ValueError: Either is no such tensor, or they differ in length or are empty.
    """

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        check_tensor("inputs", self.inputs)
        check_tensor("targets", self.targets)
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
    """The training and the test samples of one trial.

    Raises:
        ValueError: Either is no `Split`.
    """

    train: Split
    test: Split

    def __post_init__(self) -> None:
        for name, split in (("train", self.train), ("test", self.test)):
            if not isinstance(split, Split):
                raise ValueError(
                    f"{name} of Data must be a Split, got {type(split).__name__}: write "
                    f"{name}=Split(inputs, targets)"
                )

    def to(self, device: torch.device) -> Data:
        """Return both splits on a device."""
        return Data(self.train.to(device), self.test.to(device))

    def digest(self) -> str:
        """Hash every byte of the data; part of a trial's identity.

        Raises:
            ValueError: A tensor is not on the CPU, or has been changed to what no split
                may hold.
        """
        digest = hashlib.sha256()
        for name, split in (("train", self.train), ("test", self.test)):
            for part, tensor in (("inputs", split.inputs), ("targets", split.targets)):
                check_tensor(part, tensor)
                if tensor.device.type != "cpu":
                    raise ValueError(
                        f"{name} {part} must be loaded on the CPU, got "
                        f"{tensor.device}: write .cpu() (a trial moves its data to the "
                        "device it trains on)"
                    )
                digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
                # As bytes, for NumPy knows not every dtype.
                flat = tensor.resolve_conj().resolve_neg().contiguous().reshape(-1)
                digest.update(flat.view(torch.uint8).numpy().data)
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

    Raises:
        ValueError: The name is empty, `targets` no tuple of strings, or a function
            cannot be called so or is known to give something else.
    """

    name: str
    load: Callable[[Path | None, int], Data]
    model: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy
    metric: Callable[[Tensor, Tensor], Tensor] = accuracy
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise ValueError(f"name of a workload must be a text, got {self.name!r}")

        def called(field: str) -> str:
            return f"{field} of workload {self.name!r}"

        check_texts(called("targets"), self.targets)
        check_factory(called("model"), self.model)
        check_function(called("load"), self.load, ("data_dir", "seed"))
        check_function(called("model"), self.model, ())
        for field, value in (("loss", self.loss), ("metric", self.metric)):
            check_per_sample(called(field), value)
            check_function(called(field), value, ("outputs", "targets"))
