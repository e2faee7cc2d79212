"""What stands ready before a trial's first update, and what is looked at in it.

Everything that would make a trial fail, or its numbers wrong, and can be known before
the first update is found out here, by name; a trial and a rehearsal begin alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from batchramp._rust import Batches, derive_key
from batchramp.training import streams
from batchramp.training.evaluation import (
    CHUNK,
    check_losses,
    check_scores,
    evaluation_mode,
)
from batchramp.training.keeping import state_kept
from batchramp.training.mixing import check_not_mixed
from batchramp.training.models import make_model
from batchramp.training.repeating import check_repeats
from batchramp.training.step import Step
from batchramp.training.torch_settings import settings_held
from batchramp.training.trial import Trial
from batchramp.training.witness import Witness
from batchramp.user_code.errors import errors_named
from batchramp.workloads import Data, Split, Workload


@dataclass(frozen=True)
class Start:
    """A trial before its first update.

    Attributes:
        data: The workload's data, on the device.
        batches: Which samples each batch holds.
        witness: Holds the plan, the horizon, and the schedule to its word.
        model: The model, new, on the device.
        step: Makes its updates.
    """

    data: Data
    batches: Batches
    witness: Witness
    model: nn.Module
    step: Step


@contextmanager
def undisturbed(workload: str) -> Iterator[None]:
    """Let a trial be a function of its inputs, and leave the process as it was.

    Args:
        workload: Whose code runs inside; for messages.

    Raises:
        ValueError: It changed torch's settings or threads.
    """
    with streams.kept(), settings_held(workload):
        # On a GPU too; cuDNN's default is not deterministic.
        before = torch.backends.cudnn.deterministic
        torch.backends.cudnn.deterministic = True
        try:
            yield
        finally:
            torch.backends.cudnn.deterministic = before


def make_start(trial: Trial, data: Data) -> Start:
    """Make everything that a trial needs, and look at it before it is trained.

    Args:
        trial: What to train.
        data: The workload's data for its seed, on the device that trains.

    Raises:
        ValueError: The schedule does not fit, the model cannot be trained, the loss or
            the metric gives no one value a sample, is not finite to begin with, or does
            not follow from the seed, or the loss mixes samples.
    """
    witness = Witness(trial, len(data.train))
    model = make_model(trial.workload, trial.seed, data.train.inputs.device)
    known = {id(parameter) for parameter in model.parameters()}
    with (
        streams.seeded(trial.seed, "look"),
        state_kept(model),
        evaluation_mode(model),
    ):
        _look(model, trial.workload, "train", data.train)
        _look(model, trial.workload, "test", data.test)
    _check_no_new_parameter(model, known, trial.workload)
    check_repeats(trial.workload, data)
    check_not_mixed(model, trial.workload, data.train, data.test)
    return Start(
        data=data,
        batches=Batches(
            len(data.train),
            seed=derive_key(trial.seed, "order"),
            boundary=trial.boundary,
        ),
        witness=witness,
        model=model,
        step=Step(
            model,
            trial.workload,
            data.train,
            weight_decay=trial.weight_decay,
            nesterov=trial.nesterov,
            micro_batch=trial.micro_batch,
        ),
    )


def check_finite(what: str, workload: Workload, value: float) -> None:
    """Refuse a value that is not finite before the first update.

    Raises:
        ValueError: It is not.
    """
    if not math.isfinite(value):
        raise ValueError(
            f"the {what} of workload {workload.name!r} is {value} before the first "
            "update"
        )


def _check_no_new_parameter(
    model: nn.Module, known: set[int], workload: Workload
) -> None:
    for name, parameter in model.named_parameters():
        if id(parameter) not in known:
            raise ValueError(
                f"the model of workload {workload.name!r} must have all parameters "
                f"where it is made, and its first call made {name}: make it in __init__"
            )


def _look(model: nn.Module, workload: Workload, name: str, split: Split) -> None:
    """Evaluate a first chunk, and the samples that are not finite themselves."""
    first = torch.arange(min(CHUNK, len(split)), device=split.inputs.device)
    wrong = _wrong(model, workload, name, split, first)
    for part, tensor in (("inputs", split.inputs), ("targets", split.targets)):
        strange = _not_finite(tensor)[:CHUNK]
        if len(strange) == 0:
            continue
        found = _wrong(model, workload, name, split, strange)
        if found is not None:
            index, _ = found
            kind = "nan" if tensor[index].isnan().any() else "inf"
            raise ValueError(f"{name} {part} hold {kind} at sample {index}")
    if wrong is not None:
        index, value = wrong
        what = f"{_function(name)} at {name} sample {index}"
        check_finite(what, workload, value)


def _function(name: str) -> str:
    return "loss" if name == "train" else "metric"


def _wrong(
    model: nn.Module, workload: Workload, name: str, split: Split, rows: Tensor
) -> tuple[int, float] | None:
    """The first of some samples with a loss that is not finite, or a score of NaN."""
    values = _values(model, workload, name, split, rows)
    wrong = (~values.isfinite() if name == "train" else values.isnan()).nonzero()
    if len(wrong) == 0:
        return None
    return int(rows[wrong[0, 0]]), float(values[wrong[0, 0]])


def _values(
    model: nn.Module, workload: Workload, name: str, split: Split, rows: Tensor
) -> Tensor:
    """Each sample's loss (train) or score (test); a score of NaN outputs is NaN."""
    inputs, targets = split.inputs[rows], split.targets[rows]
    versions = inputs._version, targets._version
    given = (
        f"model of workload {workload.name!r} on {name} inputs of shape "
        f"{tuple(split.inputs.shape)}"
    )
    with torch.set_grad_enabled(name == "train"):
        with errors_named(given):
            outputs = model(inputs)
        with errors_named(f"{_function(name)} of workload {workload.name!r}"):
            if name == "train":
                losses = workload.loss(outputs, targets)
            else:
                scores = workload.metric(outputs, targets)
    if (inputs._version, targets._version) != versions:
        raise ValueError(
            f"the model, the loss and the metric of workload {workload.name!r} must not "
            f"change {name} data in place, which later looks and trials have too: is "
            "there an inplace=True, an x += ... or a method with a trailing underscore?"
        )
    if name == "train":
        losses = check_losses(workload, losses, outputs, targets)
        if not losses.requires_grad:
            raise ValueError(
                f"the loss of workload {workload.name!r} must depend on the model's "
                "parameters, and no gradient reaches them: is there a torch.no_grad() "
                "or a .detach() on the way?"
            )
        return losses.detach()
    values = check_scores(workload, scores, outputs, targets).double()
    # The largest of NaN outputs has an index too, so that their score looks like any.
    if isinstance(outputs, Tensor) and outputs.is_floating_point():
        strange = outputs.reshape(len(outputs), -1).isnan().any(dim=1)
        values = values.masked_fill(strange, math.nan)
    return values


def _not_finite(tensor: Tensor) -> Tensor:
    """The samples, in order, that hold a value that is not finite; shape (found,)."""
    none = torch.zeros(0, dtype=torch.int64, device=tensor.device)
    if (
        not tensor.is_floating_point() or tensor.element_size() == 1
    ):  # float8 has no isinf
        return none
    # The extremes are found in one pass and no memory; NaN is one wherever it is.
    if tensor.numel() == 0 or torch.stack(tensor.aminmax()).isfinite().all():
        return none
    return (~tensor.reshape(len(tensor), -1).isfinite()).any(dim=1).nonzero()[:, 0]
