"""The losses of samples as a function of a model's trainable parameters."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from batchramp.gradient_variance.samples import Loss, Samples

_PLAIN = (bool, int, str, type(None))


class Objective:
    """A model and a loss.

    Args:
        model: Neither its buffers nor its parameters' `.grad` are changed.
        loss: One value a sample.

    Raises:
        ValueError: If the model has nothing to train, only shards of its parameters, or
            a part that would wait for other processes.
    """

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        self.model, self.loss = model, loss
        self.named = {n: p for n, p in model.named_parameters() if p.requires_grad}
        if not self.named:
            raise ValueError("model must have a trainable parameter, got none")
        self.parameters = list(self.named.values())
        self._renormed = [
            f"{name}.weight" if name else "weight"
            for name, module in model.named_modules()
            if isinstance(module, nn.Embedding | nn.EmbeddingBag)
            and module.max_norm is not None
        ]
        sharded = any(type(p).__name__ == "DTensor" for p in self.parameters)
        if sharded or any("FullySharded" in type(m).__name__ for m in model.modules()):
            raise ValueError(
                "model must hold whole parameters, got shards of them (FSDP or tensor "
                "parallel): use micro_batch_statistics, or a model that is not sharded"
            )
        for name, module in model.named_modules():
            if isinstance(module, nn.parallel.DistributedDataParallel):
                raise ValueError(
                    "model must not hold DistributedDataParallel inside, got it at "
                    f"{name} of {type(model).__name__}: hand over what that wraps (as "
                    "model.module), under the autocast that it runs in"
                )

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.parameters[0].device

    def losses(self, parameters: Mapping[str, Tensor], samples: Samples) -> Tensor:
        """Returns the loss of each sample, shape (K,).

        Args:
            parameters: What stands in for the model's own.
            samples: K of them.

        Raises:
            ValueError: If the loss gives something else.
        """
        # A forward pass that counts, averages or renormalises does so in copies.
        tensors = {n: b.clone() for n, b in self.model.named_buffers()}
        tensors |= parameters
        for name in self._renormed:
            own = tensors.get(name)
            own = self.model.get_parameter(name) if own is None else own
            tensors[name] = own.clone()

        def run(*args: Any, **kwargs: Any) -> Any:
            if not tensors:
                return self.model(*args, **kwargs)
            return functional_call(self.model, tensors, args, kwargs)

        return samples.losses(self.loss, samples.outputs(run))

    def gradients(self, samples: Samples) -> tuple[Tensor, list[Tensor | None]]:
        """Returns all losses, and the gradients of their sum; None where there is none.

        Raises:
            ValueError: If the loss gives something else than one value a sample.
        """
        with torch.enable_grad():
            losses = self.losses({}, samples)
            if not losses.requires_grad:
                return losses, [None] * len(self.parameters)
            try:
                found = torch.autograd.grad(
                    losses.sum(), self.parameters, allow_unused=True
                )
            except RuntimeError as error:
                if "use_reentrant" not in str(error):
                    raise
                return self._by_backward(samples)
        return losses, list(map(_dense, found))

    def _by_backward(self, samples: Samples) -> tuple[Tensor, list[Tensor | None]]:
        """For what accumulates into `.grad` alone, as reentrant checkpoints do.

        Into leaves of its own: what waits for a gradient in `.grad`, as an optimizer in
        the backward pass does, is not woken.
        """
        leaves = self._leaves()
        for parameter, leaf in zip(self.parameters, leaves.values(), strict=True):
            _take_hooks(leaf, parameter)
        losses = functional_call(
            _Backward(self), {f"model.{n}": leaf for n, leaf in leaves.items()}, samples
        )
        return losses, [_dense(leaf.grad) for leaf in leaves.values()]

    def reads_by_itself(self, samples: Samples) -> bool:
        """Says whether the losses use parameters other than through the model's modules.

        As a penalty does that the loss takes of `model.parameters()`: what stands in for
        the parameters, in vmap or a copy, does not reach it.
        """
        with torch.enable_grad():
            uses = parameter_uses(self.losses(self._leaves(), samples))
        return any(uses[id(parameter)] for parameter in self.parameters)

    def _leaves(self) -> dict[str, Tensor]:
        return {n: p.detach().requires_grad_() for n, p in self.named.items()}

    def in_double(self) -> Objective:
        """Returns a copy in double precision, its loss included where that is a module."""
        loss = self.loss
        if isinstance(loss, nn.Module):
            loss = _module_in_double(loss)
        model = _module_in_double(self.model)
        for copied, own in zip(
            model.parameters(), self.model.parameters(), strict=True
        ):
            _take_hooks(copied, own)
        return Objective(model, loss)

    @property
    def state(self) -> Hashable:
        """What of model and loss may change how samples go through: modes and flags.

        Flags, whole numbers and names in attributes of modules; not what lies in a
        function's surroundings.
        """
        settings = []
        for part in (self.model, self.loss):
            for module in part.modules() if isinstance(part, nn.Module) else ():
                plain = [
                    (name, value)
                    for name, value in vars(module).items()
                    if type(value) in _PLAIN
                ]
                hooks = len(module._forward_hooks), len(module._forward_pre_hooks)
                settings.append((type(module), hooks, tuple(plain)))
        trained = tuple(
            (p.requires_grad, len(p._backward_hooks or ()))
            for p in self.model.parameters()
        )
        autocast = None
        if has_autocast(self.device):
            autocast = torch.get_autocast_dtype(self.device.type)
        return hash(tuple(settings)), trained, self.parameters[0].dtype, autocast


class _Backward(nn.Module):
    """A backward pass within the call, so that recomputing finds the same parameters."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.model = objective.model
        self._losses = objective.losses

    def forward(self, *samples: Samples) -> Tensor:
        losses = self._losses({}, samples[0])
        losses.sum().backward()  # type: ignore[no-untyped-call]
        return losses


def _take_hooks(tensor: Tensor, parameter: nn.Parameter) -> None:
    """Has the hooks that may change a parameter's gradient change another's too."""
    for hook in (parameter._backward_hooks or {}).values():
        tensor.register_hook(hook)  # type: ignore[no-untyped-call]


def _dense(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else gradient.to_dense()


def parameter_uses(losses: Tensor) -> Counter[int]:
    """Returns how often the graph behind the losses uses each leaf, by its id."""
    uses: Counter[int] = Counter()
    seen, left = set(), [losses.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for following, _ in node.next_functions:
            leaf = getattr(following, "variable", None)
            if leaf is not None:
                uses[id(leaf)] += 1
            left.append(following)
    return uses


def _module_in_double(module: nn.Module) -> nn.Module:
    copied = copy.deepcopy(module)
    copied._apply(in_double)  # type: ignore[no-untyped-call]
    return copied


def in_double(tensor: Tensor) -> Tensor:
    """Returns a tensor in double precision, if it is not one of whole numbers."""
    if tensor.is_floating_point():
        return tensor.double()
    return tensor.to(torch.complex128) if tensor.is_complex() else tensor


def has_autocast(device: torch.device) -> bool:
    """Says whether the caller put autocast around all of this."""
    return device.type != "meta" and torch.is_autocast_enabled(device.type)


@contextmanager
def attributes_kept(model: nn.Module) -> Iterator[None]:
    """Puts the attributes of all modules back: a pass under vmap leaves no tensor there.

    Of generators among them the state.
    """
    held = [(module, vars(module).copy()) for module in model.modules()]
    generators = [
        (value, value.get_state())
        for _, attributes in held
        for value in attributes.values()
        if isinstance(value, torch.Generator)
    ]
    try:
        yield
    finally:
        for generator, state in generators:
            generator.set_state(state)
        for module, attributes in held:
            for name in vars(module).keys() - attributes.keys():
                del vars(module)[name]
            vars(module).update(attributes)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Our own sums are in the precision that they are written in, under autocast too."""
    on = has_autocast(device)
    with torch.autocast(device.type, enabled=False) if on else nullcontext():
        yield


def lowest_dtype(losses: Tensor) -> torch.dtype:
    """Returns the coarsest floating dtype on the way to the losses, autocast's included."""
    lowest, seen, left = losses.dtype, set(), [losses.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for metadata in getattr(node, "_input_metadata", ()):
            dtype = metadata.dtype
            floating = dtype.is_floating_point or dtype.is_complex
            if floating and torch.finfo(dtype).eps > torch.finfo(lowest).eps:
                lowest = dtype
        left.extend(following for following, _ in node.next_functions)
    return lowest
