"""A trial's model: made anew from the trial's seed, and one that can be trained."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from batchramp.training import streams
from batchramp.workloads import Workload


class Living:
    """Objects by identity, for as long as they live; equal ones are not the same."""

    def __init__(self) -> None:
        self._references: dict[int, weakref.ref[Any]] = {}

    def __contains__(self, value: object) -> bool:
        reference = self._references.get(id(value))
        return reference is not None and reference() is value

    def add(self, value: object) -> None:
        """Remember an object that weak references can be made to."""
        key = id(value)
        self._references[key] = weakref.ref(
            value, lambda _: self._references.pop(key, None)
        )


# Memory of all models made so far, which a new model must not begin in; and the factories
# whose models have been compared.
_MEMORY, _COMPARED = Living(), Living()


def make_model(workload: Workload, seed: int, device: torch.device) -> nn.Module:
    """Return a new model in training mode on a device.

    Its initial parameters come from the stream `model` of the seed. The first model of a
    factory in a process is made twice, and both must have the same values in memory of
    their own. What is not trained (a table, a frozen part) may be shared between
    models; the trial then gets a copy of it.

    Raises:
        ValueError: The factory returns no module, one that was made before or that
            differs from call to call, or one that cannot be trained as it stands.
    """
    model = _make(workload, seed)
    shares = _claim(model, workload)
    if workload.model not in _COMPARED:
        again = _make(workload, seed)
        shares |= _claim(again, workload)
        _compare(model, again, workload)
        _COMPARED.add(workload.model)
    if shares:
        model = copy.deepcopy(model)
    return model.to(device).train()


def _make(workload: Workload, seed: int) -> nn.Module:
    with streams.seeded(seed, "model"):
        model = workload.model()
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"model of workload {workload.name!r} must return a torch.nn.Module, got "
            f"{type(model).__name__}"
        )
    _check(model, f"the model of workload {workload.name!r}")
    return model


def _check(model: nn.Module, name: str) -> None:
    for place, tensor in (*model.named_parameters(), *model.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            raise ValueError(
                f"{name} must know its shapes, and {place} has none yet: name the "
                "number of inputs instead of a lazy layer, or call the model on a "
                "sample where it is made"
            )
    for place, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ValueError(
                f"{name} must have no batch norm, whose statistics would follow the "
                f"batch size that is compared, got {type(module).__name__} at "
                f"{place or 'the top'}: use group norm"
            )
    _check_nothing_hidden(model, name)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        frozen = sum(1 for _ in model.parameters())
        raise ValueError(
            f"{name} must have a parameter to train, got "
            f"{f'{frozen}, all with requires_grad=False' if frozen else 'none'}"
        )


def _check_nothing_hidden(model: nn.Module, name: str) -> None:
    """Refuse parameters that torch does not see, and would never train."""
    known = {id(parameter) for parameter in model.parameters()}
    known |= {id(module) for module in model.modules()}
    for place, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute in ("_parameters", "_buffers", "_modules"):
                continue
            for found in _held(value, set()):
                if id(found) in known or not _trains(found):
                    continue
                where = f"{place}.{attribute}" if place else attribute
                tensors = isinstance(found, Tensor)
                if found is value:
                    cure = "wrap it in nn.Parameter"
                elif isinstance(value, dict):
                    cure = f"use nn.{'Parameter' if tensors else 'Module'}Dict"
                else:
                    cure = f"use nn.{'Parameter' if tensors else 'Module'}List"
                raise ValueError(
                    f"{name} holds {type(found).__name__} in {where}, "
                    f"{_article(type(value).__name__)}, where torch does not see its "
                    f"parameters: {cure}"
                )


def _article(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def _held(value: object, inside: set[int]) -> Iterator[nn.Module | Tensor]:
    """Modules and tensors in plain containers, nested ones included."""
    if isinstance(value, nn.Module | Tensor):
        yield value
    elif isinstance(value, dict | list | tuple | set | frozenset):
        if id(value) in inside:  # it holds itself
            return
        inside.add(id(value))
        for part in value.values() if isinstance(value, dict) else value:
            yield from _held(part, inside)


def _trains(found: nn.Module | Tensor) -> bool:
    if isinstance(found, nn.Module):
        return any(parameter.requires_grad for parameter in found.parameters())
    return found.requires_grad and found.is_leaf


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _claim(model: nn.Module, workload: Workload) -> bool:
    """Remember a model's memory; say whether what it does not train was seen before.

    Raises:
        ValueError: A parameter to train was seen before.
    """
    shares = False
    for name, tensor in _tensors(model):
        if tensor.untyped_storage() in _MEMORY:
            if tensor.requires_grad:
                raise ValueError(
                    f"model of workload {workload.name!r} must make a new model at each "
                    f"call, and its parameter {name} is that of an earlier one, whose "
                    "trained values this trial would begin with: make the layers inside "
                    "the function"
                )
            shares = True
    for _, tensor in _tensors(model):
        _MEMORY.add(tensor.untyped_storage())
    return shares


def _compare(model: nn.Module, again: nn.Module, workload: Workload) -> None:
    first, second = dict(_tensors(model)), dict(_tensors(again))
    differs = sorted(first.keys() ^ second.keys()) or [
        name for name in first if _bytes(first[name]) != _bytes(second[name])
    ]
    if differs:
        raise ValueError(
            f"model of workload {workload.name!r} must give equal models for one seed, "
            f"and two of them differ in {differs[0]}: draw initial values from torch's "
            "global generator (or NumPy's, or random's), and leave no memory empty"
        )


def _bytes(tensor: Tensor) -> bytes:
    values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return f"{tensor.dtype}{tuple(tensor.shape)}".encode() + values.numpy().tobytes()
