"""The random numbers of a forward pass: repeated, kept, or put at rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def random_states(device: torch.device) -> list[Tensor]:
    """Returns the state of the CPU's generator, and of the device's if that is a GPU."""
    states = [torch.random.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def set_random_states(states: list[Tensor], device: torch.device) -> None:
    """Puts generators back to what `random_states` gave."""
    torch.random.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state, device)


def moved(states: list[Tensor], device: torch.device) -> bool:
    """Says whether a number was drawn since `random_states` gave these."""
    pairs = zip(random_states(device), states, strict=True)
    return not all(torch.equal(now, then) for now, then in pairs)


@contextmanager
def draws_kept(device: torch.device) -> Iterator[None]:
    """Leaves the generators as they were, whatever is drawn inside."""
    states = random_states(device)
    try:
        yield
    finally:
        set_random_states(states, device)


class AtRest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Stands the same numbers in for all that torch draws, whatever the shape.

    Each draw is its distribution's middle, so that a dropout passes everything on; a
    permutation turns the order round. What a sample gives then does not depend on how
    many numbers were drawn before it, and samples that mix still do.
    """

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Runs an operation, with what it draws replaced."""
        given = dict(kwargs or {})
        arguments = list(args)
        schema = getattr(func, "_schema", None)
        if schema is None:  # an operation made of others, which come here too
            return func(*args, **given)
        names = [argument.name for argument in schema.arguments]
        for place, name in enumerate(names):
            if name in ("dropout_p", "dropout"):  # inside a fused kernel
                if place < len(arguments):
                    arguments[place] = 0.0
                elif name in given:
                    given[name] = 0.0
        packet = func.overloadpacket._qualified_op_name.removeprefix("aten::")
        if packet in ("rrelu_with_noise", "rrelu_with_noise_") and len(arguments) > 3:
            arguments[2] = arguments[3] = (arguments[2] + arguments[3]) / 2
        found = func(*arguments, **given)
        if packet in _MIDDLES:
            named = dict(zip(names, arguments, strict=False)) | given
            middle = _MIDDLES[packet](named)
            found.copy_(middle) if isinstance(middle, Tensor) else found.fill_(middle)
        elif packet == "native_dropout":
            outputs, mask = found
            keep = 1 - (arguments[1] or 0.0)
            outputs.copy_(arguments[0]).mul_(1 / keep if keep else 0.0)
            mask.fill_(value=True)
        elif packet == "randperm":
            found.copy_(torch.arange(len(found) - 1, -1, -1, device=found.device))
        return found


_Named = dict[str, Any]

# What an operation draws is filled with, by its arguments' names.
_MIDDLES: dict[str, Callable[[_Named], Any]] = {
    "bernoulli": lambda named: named.get("p", named["self"]),
    "bernoulli_": lambda named: named.get("p", 0.5),
    "uniform": lambda named: (named.get("from", 0) + named.get("to", 1)) / 2,
    "uniform_": lambda named: (named.get("from", 0) + named.get("to", 1)) / 2,
    "normal": lambda named: named.get("mean", 0.0),
    "normal_": lambda named: named.get("mean", 0.0),
    "normal_functional": lambda named: named.get("mean", 0.0),
    "rand": lambda _: 0.5,
    "rand_like": lambda _: 0.5,
    "randn": lambda _: 0.0,
    "randn_like": lambda _: 0.0,
    "randint": lambda named: named.get("low", 0),
    "randint_like": lambda named: named.get("low", 0),
    "random_": lambda named: named.get("from") or 0,
    "exponential_": lambda named: 1 / named.get("lambd", 1.0),
    "cauchy_": lambda named: named.get("median", 0.0),
    "log_normal_": lambda named: named.get("mean", 1.0),
    "geometric_": lambda _: 1,
    "poisson": lambda named: named["self"],
    "binomial": lambda named: named["count"] * named["prob"],
    "_standard_gamma": lambda named: named["self"],
    "_sample_dirichlet": lambda named: named["self"] / named["self"].sum(-1, True),
    "multinomial": lambda _: 0,
}
