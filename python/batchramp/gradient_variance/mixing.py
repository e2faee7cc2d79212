"""Samples that mix: whether each has the loss and the gradient that it has alone.

Only then do gradients of single examples say what an update of many is made of. In-batch
negatives, weights normalised over a batch, and attention over the dimension of the batch
are mixed, and so is whatever else is not the same alone.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from batchramp.gradient_variance.draws import AtRest, draws_kept, moved, random_states
from batchramp.gradient_variance.examples import real
from batchramp.gradient_variance.objective import (
    Objective,
    full_precision,
    in_double,
    lowest_dtype,
)
from batchramp.gradient_variance.samples import Samples
from batchramp.gradient_variance.single import (
    NotMappable,
    Pass,
    Single,
    mapped,
    one_by_one,
)
from batchramp.gradient_variance.sums import squared_norm_on_device

COARSEST = 0.05
"""The most that is put down to rounding, of half precision, where no double tells."""

FINE = 0.01
"""What may be put down to rounding without asking a double."""


@dataclass(frozen=True)
class Alone:
    """Examples that were found not to mix.

    Attributes:
        source: Their gradients.
        squared_norms: Of each example's gradient, shape (K,), float64.
        why_slow: Why they run one by one; None where vmap runs them.
        tolerance: What rounding may change, of a norm.
    """

    source: Single
    squared_norms: Tensor
    why_slow: str | None
    tolerance: float


@dataclass(frozen=True)
class _Batch:
    """A plain pass over all samples: losses and the gradient of their mean."""

    losses: Tensor
    gradient: list[Tensor]
    dtype: torch.dtype
    random: bool


@dataclass(frozen=True)
class _Difference:
    """How far examples alone are from the same in their batch, of their size."""

    losses: float
    gradient: float
    tolerance: float

    @property
    def fits(self) -> bool:
        return max(self.losses, self.gradient) <= self.tolerance


def check_not_mixed(
    objective: Objective, samples: Samples, max_bytes: int, *, loop: bool = False
) -> Alone:
    """Runs each sample alone, and all in one batch, and compares all losses and gradients.

    All losses are compared, and the mean of the examples' gradients with the batch's
    own, each by its norm: to 50 eps of the coarsest dtype in use times sqrt(K). What is
    further off, or too coarse to be told, is decided by a copy in double precision
    where the model runs in it. Random numbers stand at rest meanwhile, and the global
    generators stay where they were.

    Args:
        objective: Gives the losses.
        samples: K of them, not on the device `meta`.
        max_bytes: The most bytes of gradients to hold at a time.
        loop: Whether to run them one by one, without trying vmap.

    Raises:
        ValueError: If samples mix, no loss reaches a parameter, or a single example
            cannot be run.
    """
    with draws_kept(objective.device):
        batch = _run_batch(objective, samples)
        _check_reached(objective, batch)
        by_itself = objective.reads_by_itself(samples)
        slow = "it was not tried" if loop else None
        if by_itself:
            slow = "its loss reads parameters by itself"
        trial = _Trial(objective, samples, max_bytes, at_rest=batch.random)
        if batch.random:
            batch = trial.batch()
        found = trial.alone(batch, slow)
        if found[1].fits and found[1].tolerance < FINE:
            return found[0]
        return _decide(trial, *found, copied=not by_itself)


def _decide(trial: _Trial, found: Alone, off: _Difference, *, copied: bool) -> Alone:
    """Looks again in double precision, and last one by one: vmap may be what is off.

    A copy tells nothing (`copied`) where the losses go on reading the original.
    """
    double = _in_double(trial) if copied else None
    if double is None:
        if off.fits:
            return found
        judge, batch = trial, trial.batch()
    else:
        judge, batch = double
        off = judge.alone(batch, slow=found.why_slow)[1]
        if off.fits:
            return found
    if found.why_slow is None:
        why = "its results are others there"
        off = judge.alone(batch, slow=why)[1]
        if off.fits:
            return trial.alone(trial.batch(), slow=why)[0]
    if _losses_off(judge.batch().losses, batch.losses) > off.tolerance:
        raise ValueError(
            "per-example statistics need a model that gives the same twice, and its "
            "losses differ from run to run: draw random numbers by torch (as dropout "
            "does), or use micro_batch_statistics (between micro-batches)"
        )
    raise ValueError(
        "per-example statistics need a model and a loss in which samples do not mix, and "
        f"alone they have other losses (off by {off.losses:.2g} of their norm) or another "
        f"mean gradient (by {off.gradient:.2g} of the examples' root mean square) than in "
        f"their batch of {len(trial.samples)}, where rounding explains "
        f"{off.tolerance:.1g}: use micro_batch_statistics (between micro-batches), or let "
        "no sample's loss depend on the others"
    )


def _in_double(trial: _Trial) -> tuple[_Trial, _Batch] | None:
    """None where there is no memory or no way for a copy, or it does not run in double."""
    try:
        judge = trial.in_double()
        return judge, judge.batch()
    except Exception:
        return None


class _Trial:
    """The samples alone and in one batch, in one precision."""

    def __init__(
        self,
        objective: Objective,
        samples: Samples,
        max_bytes: int,
        *,
        at_rest: bool,
        double: bool = False,
    ) -> None:
        self.samples = samples
        self._objective, self._max_bytes = objective, max_bytes
        self._at_rest, self._double = at_rest, double

    def in_double(self) -> _Trial:
        """With generators of the model's own at rest too: the second look is the last."""
        samples = self.samples.holding([in_double(t) for t in self.samples.tensors])
        objective = self._objective.in_double()
        return _Trial(objective, samples, self._max_bytes, at_rest=True, double=True)

    def batch(self) -> _Batch:
        with self._draws():
            return _run_batch(self._objective, self.samples)

    def alone(
        self, batch: _Batch, slow: str | None = None
    ) -> tuple[Alone, _Difference]:
        """Runs the samples by vmap, or in a loop where that fails or `slow` says why."""
        if slow is None:
            try:
                return self._alone(mapped(self._objective), batch, None)
            except NotMappable as error:
                slow = str(error)
        return self._alone(one_by_one(self._objective), batch, slow)

    def _alone(
        self, run: Pass, batch: _Batch, slow: str | None
    ) -> tuple[Alone, _Difference]:
        source = Single(self._objective, self.samples, run, self._max_bytes)
        count = len(self.samples)
        norms = torch.zeros(count, dtype=torch.float64, device=self._objective.device)
        totals: list[Tensor] = []
        with self._draws():
            for where, part in source.parts():
                with full_precision(norms.device):
                    fresh = [gradients.total() for gradients in part.values()]
                    for gradients in part.values():
                        norms[where] += gradients.squared_norms()
                if totals:
                    torch._foreach_add_(totals, fresh)
                else:
                    totals = fresh
        with torch.no_grad(), full_precision(norms.device):
            mean = [total / count for total in totals]
            off = [one - own for one, own in zip(mean, batch.gradient, strict=True)]
            sizes = (norms.mean().sqrt(), _norm(batch.gradient))
            gradient = _share(_norm(off), _norm(mean), *sizes)
        eps = torch.finfo(batch.dtype).eps
        if self._double:  # whose own eps a model near its minimum multiplies
            eps = max(eps, torch.finfo(torch.float32).eps)
        tolerance = min(50 * eps * math.sqrt(count), COARSEST)
        losses_off = _losses_off(torch.cat(source.losses), batch.losses)
        if self._at_rest:  # these are other gradients than those asked for
            source = Single(self._objective, self.samples, run, self._max_bytes)
        found = Alone(source, norms, slow, tolerance)
        return found, _Difference(losses_off, gradient, tolerance)

    def _draws(self) -> ExitStack:
        stack = ExitStack()
        if self._at_rest:
            stack.enter_context(AtRest())  # type: ignore[no-untyped-call]
        return stack


def _run_batch(objective: Objective, samples: Samples) -> _Batch:
    states = random_states(objective.device)
    losses, found = objective.gradients(samples)
    count = len(samples)
    with torch.no_grad(), full_precision(objective.device):
        gradient = [
            torch.zeros_like(parameter) if own is None else own / count
            for parameter, own in zip(objective.parameters, found, strict=True)
        ]
    dtype = lowest_dtype(losses)
    random = moved(states, objective.device)
    reached = any(own is not None for own in found)
    return _Batch(losses.detach(), gradient if reached else [], dtype, random)


def _check_reached(objective: Objective, batch: _Batch) -> None:
    if not batch.gradient:
        name = next(iter(objective.named))
        raise ValueError(
            "loss must depend on a trainable parameter, and reaches none of "
            f"{len(objective.parameters)} (as {name!r}): is something detached, or run "
            "under torch.no_grad(), on its way?"
        )


def _norm(tensors: list[Tensor]) -> Tensor:
    return squared_norm_on_device([real(tensor) for tensor in tensors]).sqrt()


def _losses_off(alone: Tensor, batch: Tensor) -> float:
    alone, batch = alone.double(), batch.double()
    same = (alone == batch) | (alone.isnan() & batch.isnan())
    zero = torch.zeros_like(alone)
    off = torch.where(same, zero, alone - batch).norm()
    finite = [torch.where(v.isfinite(), v, zero).norm() for v in (alone, batch)]
    if not math.isfinite(float(off)):
        return math.inf
    return _share(off, *finite)


def _share(off: Tensor, *sizes: Tensor) -> float:
    """How much a difference is of the largest size; 0 where no size is finite."""
    difference, *found = torch.stack([off, *sizes]).tolist()
    if not any(map(math.isfinite, found)):
        return 0.0
    if not all(map(math.isfinite, (difference, *found))):
        return math.inf
    largest = max(found)
    return difference / largest if difference else 0.0
