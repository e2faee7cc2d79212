"""Inputs and targets of some samples, and how a model and a loss are called with them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor, nn

Inputs: TypeAlias = "Tensor | Sequence[Any] | Mapping[str, Any]"
"""`model(inputs)`, `model(*inputs)` of a sequence, or `model(**inputs)` of a mapping."""

Targets: TypeAlias = "Tensor | Sequence[Any] | Mapping[str, Any] | None"
"""What the loss takes beside the outputs; None where the inputs hold it."""

Loss: TypeAlias = Callable[[Any, Any], Tensor]
"""`(outputs, targets) -> (batch,)`, one loss a sample."""


@dataclass(frozen=True)
class Samples:
    """Some samples: each tensor's first dimension is theirs.

    Attributes:
        inputs: A tensor, a tuple, or a dict, which may hold further ones, and lists;
            what in them is no tensor, as a flag, goes to the model as it is.
        targets: Likewise, or None.
    """

    inputs: Tensor | tuple[Any, ...] | dict[str, Any]
    targets: Tensor | tuple[Any, ...] | dict[str, Any] | None

    @classmethod
    def of(cls, inputs: Inputs, targets: Targets) -> Samples:
        """Returns what a caller gave, checked.

        Raises:
            ValueError: If there is no tensor, or they are not of the same length, at
                least 2.
        """
        found = cls(_plain("inputs", inputs), _plain("targets", targets, none=True))
        lengths = [len(tensor) if tensor.ndim else 0 for tensor in found.tensors]
        for name, part in (("inputs", found.inputs), ("targets", found.targets)):
            if part is not None and not _tensors(part):
                raise ValueError(f"{name} must hold a tensor, got none")
        if len(set(lengths)) != 1 or lengths[0] < 2:
            told = " and ".join(map(str, lengths))
            shared = (
                "; what all samples share is held in the model, or is a plain number"
                if len(set(lengths)) > 1 and {0, 1} & set(lengths)
                else ""
            )
            raise ValueError(
                "inputs and targets must have the same length, at least 2, got "
                f"{told}{shared}"
            )
        if any(tensor.is_inference() for tensor in found.tensors):
            # These cannot be kept for a backward pass.
            return found.holding([tensor.clone() for tensor in found.tensors])
        return found

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors, in a fixed order."""
        return (*_tensors(self.inputs), *_tensors(self.targets))

    def holding(self, tensors: Sequence[Tensor]) -> Samples:
        """Returns the same with other tensors, in the order of `tensors`."""
        left = iter(tensors)
        return Samples(_holding(self.inputs, left), _holding(self.targets, left))

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, where: slice) -> Samples:
        return self.holding([tensor[where] for tensor in self.tensors])

    @property
    def kind(self) -> Hashable:
        """All that a model may see of them but their values."""
        tensors = tuple((t.shape, t.dtype, t.device) for t in self.tensors)
        return tensors, _form(self.inputs), _form(self.targets)

    def outputs(self, model: Callable[..., Any]) -> Any:
        """Returns what the model gives for them."""
        if isinstance(self.inputs, dict):
            return model(**self.inputs)
        if isinstance(self.inputs, tuple):
            return model(*self.inputs)
        return model(self.inputs)

    def losses(self, loss: Loss, outputs: Any) -> Tensor:
        """Returns the loss of each of them, of outputs.

        Raises:
            ValueError: If it is not one value a sample.
        """
        targets = self.inputs if self.targets is None else self.targets
        losses = loss(outputs, targets)
        count = len(self)
        shape = tuple(losses.shape) if isinstance(losses, Tensor) else losses
        if shape != (count,):
            raise ValueError(
                f"loss must give one value a sample, shape ({count},)"
                f"{' for one' if count == 1 else ''}, got {shape}"
            )
        return losses


def unwrapped(model: nn.Module) -> nn.Module:
    """Returns the model inside what data parallelism or `torch.compile` put around it."""
    while True:
        inner = getattr(
            model, "_orig_mod", None
        )  # compiled; its class loads for seconds
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _plain(name: str, values: Any, *, none: bool = False) -> Any:
    if isinstance(values, Tensor) or (none and values is None):
        return values
    if isinstance(values, Mapping):
        return dict(values)
    if isinstance(values, Sequence) and not isinstance(values, str | bytes):
        return tuple(values)
    raise ValueError(
        f"{name} must be a tensor, a sequence or a mapping of tensors, got "
        f"{type(values).__name__}"
    )


def _tensors(values: Any) -> list[Tensor]:
    if isinstance(values, Mapping):
        values = list(values.values())
    if isinstance(values, tuple | list):
        return [tensor for part in values for tensor in _tensors(part)]
    return [values] if isinstance(values, Tensor) else []


def _holding(values: Any, left: Any) -> Any:
    if isinstance(values, Mapping):
        return {name: _holding(part, left) for name, part in values.items()}
    if isinstance(values, tuple | list):
        parts = [_holding(part, left) for part in values]
        if hasattr(values, "_fields"):  # a named tuple takes them one by one
            return type(values)(*parts)
        return parts if isinstance(values, list) else tuple(parts)
    return next(left) if isinstance(values, Tensor) else values


def _form(values: Any) -> Hashable:
    if isinstance(values, Mapping):
        return tuple((name, _form(part)) for name, part in values.items())
    if isinstance(values, tuple | list):
        return tuple(_form(part) for part in values)
    return Tensor if isinstance(values, Tensor) else repr(values)
