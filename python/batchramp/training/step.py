"""One update: micro-batches, exact accumulation, evidence, and SGD."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from batchramp.gradient_variance import micro_batch_statistics
from batchramp.schedules.interface import MICRO_BATCHES, MicroBatchEvidence, Settings
from batchramp.training import streams
from batchramp.training.evaluation import check_losses
from batchramp.workloads import Split, Workload

NORMS = ("sum_squared_norms", "squared_norm_of_mean")
"""What all evidence carries."""

IMPLEMENTATION = "torch.optim.sgd.sgd(fused=True)"
"""Part of a trial's identity: fused and unfused SGD differ in their last bits."""

# The functional form: the optimizer class costs 28 us more a step on a small model, and
# its first use imports torch's compiler, which takes seconds.


class Step:
    """Makes updates of one model from batches of one training set.

    The gradient of an update is the mean over its batch's samples, however the batch is
    split: each sample's loss is weighted by one over the batch size. SGD is torch's:
    `v = momentum * v + gradient + weight_decay * w`, `w -= lr * v`, v beginning at 0
    (with Nesterov's look-ahead where asked for).

    Args:
        model: The model, on the device of the data; it is trained in place.
        workload: Gives the loss of each sample.
        train: The training set, on the device.
        weight_decay: Coefficient of the squared norm's half, added to the gradient.
        nesterov: Nesterov's momentum instead of the heavy ball's.
        micro_batch: The most samples of one forward and backward pass; None is no cap.

    Attributes:
        loss_sum: Sum of all samples' losses since `take_loss`, float64, on the device.
    """

    def __init__(
        self,
        model: nn.Module,
        workload: Workload,
        train: Split,
        *,
        weight_decay: float,
        nesterov: bool,
        micro_batch: int | None,
    ) -> None:
        self._model = model
        self._workload = workload
        self._train = train
        self._weight_decay = weight_decay
        self._nesterov = nesterov
        self._micro_batch = micro_batch
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._velocities = [torch.zeros_like(p) for p in self._parameters]
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=train.inputs.device)

    def update(
        self,
        indices: Tensor,
        settings: Settings,
        *,
        evidence: Collection[str] = (),
    ) -> MicroBatchEvidence | None:
        """Make one update from the samples at `indices`, int64 on the data's device.

        Args:
            indices: Shape (samples of this batch,); may be fewer than the batch size.
            settings: Learning rate and momentum to use.
            evidence: What an adaptive schedule needs. It is of K >= 2 equal
                micro-batches: a batch that fits in one is split in two, and one that
                cannot be split equally gives none.
        """
        micro_batches = self._split(indices, evidence=bool(evidence))
        for parameter in self._parameters:
            parameter.grad = None
        found = None
        if evidence and len(micro_batches) > 1 and _equal(micro_batches):
            found = self._accumulate_with_evidence(micro_batches, evidence)
        else:
            for part in micro_batches:
                share = self._share(part, len(indices))
                self.loss_sum.add_(share.detach(), alpha=len(indices))
                share.backward()  # type: ignore[no-untyped-call]
        self._descend(settings)
        return found

    def take_loss(self, samples: int) -> float:
        """Return the mean loss of the last `samples` samples, and start a new sum."""
        mean = float(self.loss_sum) / samples
        self.loss_sum.zero_()
        return mean

    def warm_up(
        self, batch_sizes: Iterable[int], *, evidence: Collection[str]
    ) -> float:
        """Run every given batch size once on a copy, so that no update is a first one.

        Allocations, kernel loading and the libraries' own tuning at a new shape happen
        here, off the train clock; the model and all generators are left untouched.

        Returns:
            The mean loss of the samples used, in the model's training mode.
        """
        with streams.kept():
            scratch = Step(
                copy.deepcopy(self._model),
                self._workload,
                self._train,
                weight_decay=self._weight_decay,
                nesterov=self._nesterov,
                micro_batch=self._micro_batch,
            )
            sizes = sorted(set(batch_sizes))
            for size in sizes:
                indices = torch.arange(size, device=self.loss_sum.device)
                settings = Settings(batch_size=size, lr=0.0, momentum=0.5)
                scratch.update(indices, settings, evidence=evidence)
        return scratch.take_loss(sum(sizes))

    @torch.no_grad()
    def _descend(self, settings: Settings) -> None:
        used = [
            (parameter, parameter.grad, velocity)
            for parameter, velocity in zip(
                self._parameters, self._velocities, strict=True
            )
            if parameter.grad is not None
        ]
        if not used:
            raise ValueError(
                f"the model of workload {self._workload.name!r} must have a parameter "
                "that the loss reaches, also in a copy of the model (copy.deepcopy, "
                "which a scripted model does not bear), and has none"
            )
        parameters, gradients, velocities = map(list, zip(*used, strict=True))
        sgd(
            parameters,
            gradients,
            velocities,
            fused=True,
            grad_scale=None,
            found_inf=None,
            weight_decay=self._weight_decay,
            momentum=settings.momentum,
            lr=settings.lr,
            dampening=0.0,
            nesterov=self._nesterov and settings.momentum > 0,
            maximize=False,
        )

    def _split(self, indices: Tensor, *, evidence: bool) -> Sequence[Tensor]:
        size = len(indices)
        parts = 1 if self._micro_batch is None else -(-size // self._micro_batch)
        if evidence and parts == 1 and size > 1:
            parts = 2
        return indices.tensor_split(parts) if parts > 1 else (indices,)

    def _share(self, indices: Tensor, batch_size: int) -> Tensor:
        """Return what these samples add to the mean loss of a batch of that size."""
        outputs = self._model(self._train.inputs.index_select(0, indices))
        targets = self._train.targets.index_select(0, indices)
        losses = self._workload.loss(outputs, targets)
        if losses.shape != indices.shape:
            check_losses(self._workload, losses, outputs, targets)
        return losses.dot(losses.new_full(losses.shape, 1 / batch_size))

    def _accumulate_with_evidence(
        self, parts: Sequence[Tensor], evidence: Collection[str]
    ) -> MicroBatchEvidence:
        def gradients() -> Iterator[Sequence[Tensor]]:
            for part in parts:
                mean_loss = self._share(part, len(part))
                self.loss_sum.add_(mean_loss.detach(), alpha=len(part))
                yield torch.autograd.grad(
                    mean_loss,
                    self._parameters,
                    allow_unused=True,
                    materialize_grads=True,
                )

        vectors = sorted(set(evidence) - {MICRO_BATCHES})
        found = micro_batch_statistics(
            gradients(),
            {*NORMS, *vectors},
            batch_size=len(parts[0]),
        )
        for parameter, mean in zip(self._parameters, found.mean, strict=True):
            parameter.grad = mean.to(parameter.dtype)
        # One transfer for all numbers: the schedule needs them to decide.
        tensors = [getattr(found, name).reshape(-1) for name in (*NORMS, *vectors)]
        total, of_mean, *rest = torch.cat(tensors).tolist()
        values = iter(rest)
        return MicroBatchEvidence(
            count=found.count,
            batch_size=found.batch_size,
            sum_squared_norms=total,
            squared_norm_of_mean=of_mean,
            **{name: tuple(islice(values, found.count)) for name in vectors},
        )


def _equal(parts: Sequence[Tensor]) -> bool:
    return len(parts[0]) == len(parts[-1])


def check_settings(settings: Settings) -> None:
    """Refuse a rate or a momentum that a schedule must not give.

    Raises:
        ValueError: `lr` is not finite or negative, or `momentum` is not in [0, 1).
    """
    if not (settings.lr >= 0 and math.isfinite(settings.lr)):
        raise ValueError(
            f"lr of a schedule must be finite and at least 0, got {settings.lr}"
        )
    if not 0 <= settings.momentum < 1:
        raise ValueError(
            f"momentum of a schedule must be in [0, 1), got {settings.momentum}"
        )
