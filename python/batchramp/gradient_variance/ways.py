"""Which of three ways gives the gradients of single examples, and what is known of it."""

from __future__ import annotations

import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from inspect import ismethod
from typing import Any, Literal, TypeAlias

from torch import nn

from batchramp.gradient_variance.draws import draws_kept
from batchramp.gradient_variance.layers import Layers, run_layers
from batchramp.gradient_variance.mixing import check_not_mixed
from batchramp.gradient_variance.objective import Objective
from batchramp.gradient_variance.samples import Loss, Samples
from batchramp.gradient_variance.single import Single, mapped, one_by_one

Way: TypeAlias = Literal["layers", "vmap", "one by one"]
Source: TypeAlias = Layers | Single

REMEMBERED = 64
"""The most kinds of samples that are remembered of a model, the latest ones."""

_COARSE = 1e-3
"""Of the norms: what rounding may do in the linear way, where another dimension that is
taken for the examples' changes all."""


_LOOPED = 4096
"""The most samples times parameters that a check of the linear way runs one by one."""


class OneByOneWarning(UserWarning):
    """A model's examples run one by one, which is slow; said once a model."""


class _Memory:
    """What is known of one model: the way for a loss and a kind of samples."""

    def __init__(self) -> None:
        self.told = False
        self._ways: OrderedDict[Hashable, tuple[Callable[[], Any], Way]] = OrderedDict()

    def get(self, loss: Loss, kind: Hashable) -> Way | None:
        found = self._ways.get((_identity(loss), kind))
        # An identity is given anew once its object is gone.
        return found[1] if found is not None and found[0]() == loss else None

    def set(self, loss: Loss, kind: Hashable, way: Way) -> None:
        self._ways[_identity(loss), kind] = _reference(loss), way
        self._ways.move_to_end((_identity(loss), kind))
        while len(self._ways) > REMEMBERED:
            self._ways.popitem(last=False)


_MEMORIES: weakref.WeakKeyDictionary[nn.Module, _Memory] = weakref.WeakKeyDictionary()


def choose(objective: Objective, samples: Samples, max_bytes: int) -> Source:
    """Returns the gradients of single examples, by the fastest way that is right.

    The first time that a model, its modes and flags, a loss and a kind of samples (shapes,
    dtypes, devices) come together, it is checked that samples do not mix; that comparison
    waits for the device. What has no values, on the device `meta`, is not checked.

    Raises:
        ValueError: As of `check_not_mixed`.
    """
    memory = _MEMORIES.setdefault(objective.model, _Memory())
    kind = samples.kind, objective.state
    way = memory.get(objective.loss, kind)
    if objective.device.type == "meta":
        way = "layers"
    if way == "layers":
        layers = _run_layers(objective, samples, max_bytes)
        if layers is not None:
            return layers
        way = "vmap" if objective.device.type == "meta" else None
    if way == "vmap":
        return Single(objective, samples, mapped(objective), max_bytes)
    if way == "one by one":
        return go_one_by_one(objective, samples, max_bytes, "")
    layers = _run_layers(objective, samples, max_bytes)
    if layers is not None:
        # vmap's first call loads packages for seconds, which this way needs nowhere else.
        loop = len(samples) * len(objective.parameters) <= _LOOPED
        alone = check_not_mixed(objective, samples, max_bytes, loop=loop)
        off = (layers.squared_norms().sqrt() - alone.squared_norms.sqrt()).norm()
        tolerance = max(alone.tolerance, _COARSE)
        if not bool(off > tolerance * alone.squared_norms.sum().sqrt()):
            memory.set(objective.loss, kind, "layers")
            return layers
    alone = check_not_mixed(objective, samples, max_bytes)
    if alone.why_slow is not None:
        return go_one_by_one(objective, samples, max_bytes, alone.why_slow)
    memory.set(objective.loss, kind, "vmap")
    return alone.source


def go_one_by_one(
    objective: Objective, samples: Samples, max_bytes: int, why: str
) -> Single:
    """Returns the gradients from a loop, and remembers that; says so once a model."""
    memory = _MEMORIES.setdefault(objective.model, _Memory())
    memory.set(objective.loss, (samples.kind, objective.state), "one by one")
    if not memory.told:
        memory.told = True
        warnings.warn(
            f"the examples of {type(objective.model).__name__} run one by one, which is "
            f"slower, because torch.func's vmap(grad) does not run it ({why})",
            OneByOneWarning,
            stacklevel=4,
        )
    return Single(objective, samples, one_by_one(objective), max_bytes)


def _run_layers(
    objective: Objective, samples: Samples, max_bytes: int
) -> Layers | None:
    """What is drawn is put back: whichever way is taken draws from there."""
    with draws_kept(objective.device):
        return run_layers(objective, samples, max_bytes)


def _identity(loss: Loss) -> Hashable:
    if ismethod(loss):
        return id(loss.__self__), id(loss.__func__)
    return id(loss)


def _reference(loss: Loss) -> Callable[[], Any]:
    try:
        return weakref.WeakMethod(loss) if ismethod(loss) else weakref.ref(loss)
    except TypeError:  # it cannot be referred to weakly, and lives on
        return lambda: loss
