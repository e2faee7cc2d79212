"""What a look measures for our curiosity: named, off the train clock, in columns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from batchramp._rust import Batches, derive_key
from batchramp.gradient_variance import per_example_statistics, squared_norm
from batchramp.training import streams
from batchramp.training.evaluation import (
    CHUNK,
    evaluation_mode,
    full_gradient,
    full_train_loss,
)
from batchramp.training.keeping import state_kept
from batchramp.training.sharpness import sharpness
from batchramp.user_code.errors import told
from batchramp.workloads import Split, Workload

DRAWS = 100
"""Batches that `batch_mean` draws at each measurement, at least, for either number."""


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes:
        model: The model, as it is at the look.
        workload: Gives the loss of each sample.
        train: The training set.
        seed: The trial's.
        batch_size: Of the last update; None before the first.
    """

    model: nn.Module
    workload: Workload
    train: Split
    seed: int
    batch_size: int | None


def measure(
    subject: Subject, names: Collection[str]
) -> tuple[dict[str, float], dict[str, str]]:
    """Return columns of a row, what `names` ask for and nothing else, and what failed.

    Everything is of the unaugmented training set, in evaluation mode, without weight
    decay. Each measure begins the stream "look" anew and leaves the model's state as it
    was, so that no column depends on what else is measured; to put the global
    generators back is the caller's.

    Args:
        subject: What is measured.
        names: Any of `full_train_loss`, `gradient_norm` (with the loss, which comes for
            free), `variance`, `noise_scale`, `sharpness` (with `sharpness_residual`) and
            `batch_mean` (`batch_variance` and `batch_bias`; nothing before the first
            update).

    Returns:
        The columns; and for each measure that failed, its error. It costs its own
        columns and no others: a loss that cannot be measured raises.
    """
    found: dict[str, float] = {}
    failed: dict[str, str] = {}
    for measured, act in _MEASURES:
        asked = measured & set(names)
        if not asked:
            continue
        try:
            streams.begin(subject.seed, "look")
            with state_kept(subject.model):
                found |= act(subject, asked)
        except Exception as error:
            failed |= dict.fromkeys(sorted(asked), told(error))
    if {"full_train_loss", "gradient_norm"} & set(names) - found.keys():
        streams.begin(subject.seed, "look")
        with state_kept(subject.model):
            found["full_train_loss"] = full_train_loss(
                subject.model, subject.workload, subject.train
            )
    return found, failed


def _gradient_norm(subject: Subject, _: set[str]) -> dict[str, float]:
    loss, norm = full_gradient(subject.model, subject.workload, subject.train)
    return {"full_train_loss": loss, "gradient_norm": norm}


def _noise(subject: Subject, asked: set[str]) -> dict[str, float]:
    if len(subject.train) < 2:
        return {}
    trace, signal = full_noise(subject.model, subject.workload, subject.train)
    found = {
        "variance": trace,
        "noise_scale": trace / signal if signal else float("inf"),
    }
    return {name: found[name] for name in asked}


def _sharpness(subject: Subject, _: set[str]) -> dict[str, float]:
    value, residual = sharpness(subject.model, subject.workload, subject.train)
    return {"sharpness": value, "sharpness_residual": residual}


def _batch_mean(subject: Subject, _: set[str]) -> dict[str, float]:
    if subject.batch_size is None:
        return {}
    variance, bias = batch_mean(subject, subject.batch_size)
    return {"batch_variance": variance, "batch_bias": bias}


# Measures that are made together, and the columns of those asked for.
_MEASURES: tuple[
    tuple[set[str], Callable[[Subject, set[str]], dict[str, float]]], ...
] = (
    ({"gradient_norm"}, _gradient_norm),
    ({"variance", "noise_scale"}, _noise),
    ({"sharpness"}, _sharpness),
    ({"batch_mean"}, _batch_mean),
)


def full_noise(
    model: nn.Module, workload: Workload, train: Split
) -> tuple[float, float]:
    """Return tr(Sigma) and |G|^2 of the whole training set, exactly, not estimated.

    Sigma is the covariance of the per-sample gradients with divisor N - 1, G their
    mean: the noise scale of McCandlish et al. (arXiv 1812.06162) is their quotient.
    Samples go through in chunks of `CHUNK` at most, none of which is of one alone.
    """
    count = len(train)
    squares = torch.zeros((), dtype=torch.float64, device=train.inputs.device)
    sums: list[Tensor] = []
    with evaluation_mode(model):
        for part in torch.arange(count).tensor_split(-(-count // CHUNK)):
            where = slice(int(part[0]), int(part[-1]) + 1)
            found = per_example_statistics(
                model,
                workload.loss,
                train.inputs[where],
                train.targets[where],
                ("sum_squared_norms",),
            )
            assert found.sum_squared_norms is not None
            squares += found.sum_squared_norms
            totals = [mean.double() * found.count for mean in found.mean]
            sums = (
                [a + b for a, b in zip(sums, totals, strict=True)] if sums else totals
            )
    signal = squared_norm(sums) / count**2
    return (float(squares) - count * signal) / (count - 1), signal


def batch_mean(subject: Subject, batch_size: int) -> tuple[float, float]:
    """Return how the mean gradient of a batch varies, and how far off it is on average.

    Batches are drawn at the model as it is, without replacement within a pass, as an
    update's are. With g_i their mean gradients and G the full gradient,

    Returns:
        The mean of |g_i - G|^2 over all whole batches of as many passes as hold
        `DRAWS` of them, whose expectation is tr(Sigma) (1/B - 1/N) for an unbiased batch
        (whole passes, because a few samples make most of the variance late in training,
        and a pass holds each just once). And, of the first batches of `DRAWS` more
        passes, with m the mean of their gradients, |m - G|^2 less what chance adds to
        it: the unbiased estimate of the bias's squared norm (0 for an unbiased batch,
        and as often below as above).
    """
    train, count = subject.train, len(subject.train)
    parameters = [p for p in subject.model.parameters() if p.requires_grad]
    batches = Batches(count, seed=derive_key(subject.seed, "batch mean"))
    batch_size = min(batch_size, count)

    def gradient(inputs: Tensor, targets: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=inputs.device)
        for start in range(0, len(inputs), CHUNK):
            where = slice(start, start + CHUNK)
            losses = subject.workload.loss(subject.model(inputs[where]), targets[where])
            parts = torch.autograd.grad(
                losses.sum(), parameters, allow_unused=True, materialize_grads=True
            )
            total = total + torch.cat([part.double().reshape(-1) for part in parts])
        return total / len(inputs)

    def distances(positions: Iterable[int]) -> Iterator[Tensor]:
        for position in positions:
            chosen = torch.from_numpy(batches.take(position, batch_size))
            chosen = chosen.to(train.inputs.device)
            yield gradient(train.inputs[chosen], train.targets[chosen]) - full

    each = count // batch_size
    passes = -(-DRAWS // each)
    whole = [
        turn * count + place * batch_size
        for turn in range(passes)
        for place in range(each)
    ]
    firsts = [turn * count for turn in range(passes, passes + DRAWS)]
    with evaluation_mode(subject.model), torch.enable_grad():
        full = gradient(train.inputs, train.targets)
        squares = torch.stack([distance @ distance for distance in distances(whole)])
        off = torch.zeros_like(full)
        spread = torch.zeros_like(full[0])
        for distance in distances(firsts):
            off += distance
            spread += distance @ distance
    off /= DRAWS
    squared_off = float(off @ off)
    chance = (float(spread) - DRAWS * squared_off) / (DRAWS - 1) / DRAWS
    return float(squares.mean()), squared_off - chance
