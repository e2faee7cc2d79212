"""The gradients of single examples, each from a pass of its own: by vmap, or in a loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from textwrap import shorten
from typing import TypeAlias

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from batchramp.gradient_variance.draws import random_states, set_random_states
from batchramp.gradient_variance.examples import ExampleGradients, Stacked
from batchramp.gradient_variance.objective import Objective
from batchramp.gradient_variance.samples import Samples

Part: TypeAlias = tuple[slice, dict[int, ExampleGradients]]
"""Some examples, and their gradients by some parameters, by the parameters' indices."""

Pass: TypeAlias = Callable[[Samples], tuple[Tensor, list[Tensor]]]
"""The losses of n samples, (n,), and their gradients by each parameter, (n, ...)."""


_MOST = 200
"""Characters of another error that are repeated."""


class NotMappable(Exception):
    """vmap cannot run the model; the message is one line."""


class Single:
    """Gradients of single examples, some at a time.

    Args:
        objective: Gives each example's loss.
        samples: The examples.
        run: Runs some of them.
        max_bytes: The most bytes of gradients to hold at a time, or one example's.
    """

    def __init__(
        self, objective: Objective, samples: Samples, run: Pass, max_bytes: int
    ) -> None:
        parameters = objective.parameters
        self._samples, self._run, self._device = samples, run, objective.device
        each = sum(p.numel() * p.element_size() for p in parameters)
        self._size = max(1, max_bytes // max(1, each))
        self._kept: list[Part] | None = None
        self._generators: list[Tensor] | None = None
        self.losses: list[Tensor] = []

    def parts(self) -> Iterator[Part]:
        """Yields all gradients, some examples at a time; the same ones each time."""
        if self._kept is not None:
            yield from self._kept
            return
        if self._size >= len(self._samples):
            self._kept = list(self._compute())
            yield from self._kept
            return
        self._repeat_random_numbers()
        yield from self._compute()

    def _compute(self) -> Iterator[Part]:
        self.losses = []
        for start in range(0, len(self._samples), self._size):
            where = slice(start, start + self._size)
            losses, found = self._run(self._samples[where])
            self.losses.append(losses)
            yield where, {i: Stacked(part) for i, part in enumerate(found)}

    def _repeat_random_numbers(self) -> None:
        """A second pass draws the dropouts of the first, and ends where that ended."""
        if self._generators is None:
            self._generators = random_states(self._device)
        else:
            set_random_states(self._generators, self._device)


def mapped(objective: Objective) -> Pass:
    """Returns a pass that runs examples together, each alone to the model.

    It raises `NotMappable` where torch.func's vmap(grad) does not work.
    """
    parameters = {name: p.detach() for name, p in objective.named.items()}

    def run(samples: Samples) -> tuple[Tensor, list[Tensor]]:
        def loss_of_one(own: dict[str, Tensor], *tensors: Tensor) -> Tensor:
            one = samples.holding([tensor[None] for tensor in tensors])
            return objective.losses(own, one)[0]

        tensors = samples.tensors
        over = (None, *(0 for _ in tensors))
        try:
            gradients, losses = vmap(
                grad_and_value(loss_of_one), over, randomness="different"
            )(parameters, *tensors)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise NotMappable(told(error)) from error
        return losses, list(gradients.values())

    return run


def one_by_one(objective: Objective) -> Pass:
    """Returns a pass that runs one example at a time, as an update of batch size 1 does.

    It raises ValueError where the model cannot run a single example.
    """

    def run(samples: Samples) -> tuple[Tensor, list[Tensor]]:
        count = len(samples)
        rows = [p.new_zeros((count, *p.shape)) for p in objective.parameters]
        losses = []
        for example in range(count):
            try:
                loss, found = objective.gradients(samples[example : example + 1])
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                raise ValueError(
                    "model and loss must run on a single example, and do not "
                    f"({told(error)}): use micro_batch_statistics (between "
                    "micro-batches)"
                ) from error
            losses.append(loss.detach())
            for row, gradient in zip(rows, found, strict=True):
                if gradient is not None:
                    row[example] = gradient
        return torch.cat(losses), rows

    return run


def told(error: Exception) -> str:
    """Returns an error in one line: its type and the first line of its message."""
    lines = str(error).splitlines() or [""]
    kind = type(error).__name__
    return shorten(
        f"{kind}: {lines[0]}" if lines[0] else kind, _MOST, placeholder=" ..."
    )
