"""State outside the seed: a loss that counts its calls, a generator of a user's own.

It carries over from trial to trial, so that a trial's numbers would follow from what its
process ran before.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from batchramp.training import streams
from batchramp.training.evaluation import full_train_loss, mean_metric
from batchramp.training.keeping import state_kept
from batchramp.training.models import Living, make_model
from batchramp.workloads import Data, Split, Workload

SAMPLES = 64
"""Samples of the batches that are run: enough that some untrained scores are not 0."""

TOLERANCE = 1e-5
"""Relative, for gradients, and for all on a GPU, whose sums may change their order."""

_LOOKED_AT = Living()


def check_repeats(workload: Workload, data: Data) -> None:
    """Refuse what does not follow from the seed; once per workload and process.

    Two new models of one seed must have the same loss and gradient in training mode, and
    the same metric and loss in evaluation mode, on the CPU to the bit; and a third the
    same after a look as those had without one. What cannot be run on a few samples is
    not looked at, nor is state that begins to tell only after more calls.

    Args:
        workload: Gives the models, the loss and the metric.
        data: The workload's data, on the device that trains.

    Raises:
        ValueError: They differ.
    """
    if workload in _LOOKED_AT:
        return
    device = data.train.inputs.device
    train, test = _first(data.train), _first(data.test)
    models = [make_model(workload, 0, device) for _ in range(3)]
    try:
        trained, again = (_trained(model, workload, train) for model in models[:2])
        looked, looked_again = (
            _looked(model, workload, train, test) for model in models[:2]
        )
        _looked(models[2], workload, train, test)
        after = _trained(models[2], workload, train)
    except Exception:  # a user's own code may want other batches: this is a question
        return
    exact = 0.0 if device.type == "cpu" else TOLERANCE
    tolerances = (exact, TOLERANCE)
    if not _same(trained, again, tolerances):
        _refuse(workload, "loss")
    if not _same(looked[:1], looked_again[:1], (exact,)):
        _refuse(workload, "metric")
    if not _same(looked[1:], looked_again[1:], (exact,)):
        _refuse(workload, "loss")
    if not _same(trained, after, tolerances):
        raise ValueError(
            f"the model of workload {workload.name!r} must train after a look as it "
            "would without one, and does not: keep what it counts in attributes or "
            "buffers, which a look puts back, and draw only from torch's, NumPy's and "
            "Python's global generators"
        )
    _LOOKED_AT.add(workload)


def _first(split: Split) -> Split:
    return Split(split.inputs[:SAMPLES], split.targets[:SAMPLES])


def _trained(model: nn.Module, workload: Workload, train: Split) -> tuple[float, float]:
    """The mean loss in training mode, and the norm of its gradient."""
    with streams.seeded(0, "training"), torch.enable_grad():
        loss = workload.loss(model(train.inputs), train.targets).double().mean()
        loss.backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    squares = [gradient.double().square().sum() for gradient in gradients]
    return float(loss.detach()), math.sqrt(float(torch.stack(squares).sum()))


def _looked(
    model: nn.Module, workload: Workload, train: Split, test: Split
) -> tuple[float, float]:
    """The mean metric and the mean loss, as a look measures them."""
    with streams.seeded(0, "look"), state_kept(model):
        return mean_metric(model, workload, test), full_train_loss(
            model, workload, train
        )


def _same(
    one: tuple[float, ...], other: tuple[float, ...], tolerances: tuple[float, ...]
) -> bool:
    return all(
        math.isclose(a, b, rel_tol=tolerance) or (math.isnan(a) and math.isnan(b))
        for a, b, tolerance in zip(one, other, tolerances, strict=True)
    )


def _refuse(workload: Workload, function: str) -> None:
    raise ValueError(
        f"the model and the {function} of workload {workload.name!r} must give the same "
        "again from the same seed, and do not: draw only from torch's, NumPy's and "
        "Python's global generators, which are set from it, and count nothing outside "
        "the model"
    )
