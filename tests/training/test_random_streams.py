"""A curve that draws random numbers follows from its seed: nothing else moves it."""

# ruff: noqa: NPY002

import random
from dataclasses import asdict, replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from batchramp.schedules import make
from batchramp.training.loop import run_trial
from batchramp.training.rehearsal import rehearse
from batchramp.training.trial import Trial
from batchramp.workloads import Data, Split, Workload, cross_entropy

CPU = torch.device("cpu")
N = 60


def data():
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(N + 30, 4, generator=generator)
    targets = (inputs.sum(1) > 0).long()
    return Data(Split(inputs[:N], targets[:N]), Split(inputs[N:], targets[N:]))


def network():
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 2))


def plain():
    return nn.Linear(4, 2)


DRAWS = {
    "torch": lambda: float(torch.rand(())),
    "numpy": np.random.rand,
    "random": random.random,
}


def noisy_loss(draw):
    return lambda outputs, targets: cross_entropy(outputs, targets) * (0.5 + draw())


def noisy_metric(outputs, targets):
    return (outputs.argmax(1) == targets).float() * torch.rand(len(targets))


def workload(name):
    given = {"name": name, "load": lambda folder, seed: None, "model": plain}
    if name == "dropout":
        return Workload(**given | {"model": network})
    if name == "metric":
        return Workload(**given | {"metric": noisy_metric, "model": network})
    return Workload(**given, loss=noisy_loss(DRAWS[name]))


NAMES = ("dropout", "metric", *DRAWS)


def run(name, *, seed=0, schedule=None, **changes):
    given = {"epochs": Fraction(4), "cadence": Fraction(1)}
    schedule = schedule or make("constant", batch_size=8, lr=0.1)
    trial = Trial(
        workload=workload(name), schedule=schedule, seed=seed, **(given | changes)
    )
    record = run_trial(trial, data(), CPU)
    assert record.status == "finished", record.error
    return {
        row.position: {
            key: value
            for key, value in asdict(row).items()
            if not key.endswith("_seconds") and value is not None
        }
        for row in record.rows
    }


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_equal_whatever_ran_before(name):
    first = run(name)
    assert run(name, seed=1) != first
    for draw in DRAWS.values():
        draw()
    assert run(name) == first


@pytest.mark.parametrize("name", NAMES)
def test_looks_and_measures_do_not_move_the_curve(name):
    measures = {
        measure: Fraction(1, 2)
        for measure in ("full_train_loss", "gradient_norm", "batch_mean", "sharpness")
    }
    rare = run(name, cadence=Fraction(2))
    often = run(name, cadence=Fraction(1, 3), measures=measures)
    alone = run(name, cadence=Fraction(1), measures={"full_train_loss": Fraction(1)})
    for position in rare:
        for other in (often[position], alone[position]):
            for column, value in rare[position].items():
                if column != "train_loss":  # since the row before, which is another
                    assert other[column] == value, column
    for position, row in alone.items():
        assert often[position]["full_train_loss"] == row["full_train_loss"]


@pytest.mark.parametrize("name", NAMES)
def test_a_second_seed_in_a_row_is_what_it_is_alone(name):
    run(name)
    after = run(name, seed=1)
    assert after == run(name, seed=1)


def test_an_adaptive_schedule_follows_from_its_seed_too():
    schedule = {"batch_size": 4, "max_batch_size": 32, "lr": 0.1}
    first, again = (
        run("dropout", schedule=make("noise-scale", **schedule)) for _ in range(2)
    )
    assert first == again


def states():
    return (
        torch.get_rng_state().tolist(),
        [str(part) for part in np.random.get_state(legacy=False)["state"]["key"]],
        random.getstate(),
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_trial_and_a_rehearsal_leave_every_generator_as_it_was(name):
    before = states()
    run(name)
    assert states() == before
    trial = Trial(
        workload=workload(name),
        schedule=make("constant", batch_size=8, lr=0.1),
        seed=0,
        epochs=Fraction(1),
    )
    rehearse(trial, data(), CPU)
    assert states() == before

    def loss(outputs, targets):
        random.random()
        raise KeyError("x")

    failed = run_trial(
        replace(trial, workload=replace(trial.workload, loss=loss)), data(), CPU
    )
    assert failed.status == "failed"
    assert states() == before
