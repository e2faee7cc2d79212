"""A rehearsal: what would make every trial of an entry fail, known in a second."""

from __future__ import annotations

import torch

from batchramp.schedules.interface import Progress
from batchramp.training import streams
from batchramp.training.start import check_finite, make_start, undisturbed
from batchramp.training.step import check_settings
from batchramp.training.trial import Trial
from batchramp.user_code.errors import told
from batchramp.workloads import Data


def rehearse(trial: Trial, data: Data, device: torch.device) -> None:
    """Make all that a trial needs and one update of it, and leave everything as it was.

    The model is a new one and thrown away. Loss and metric are evaluated on a first
    chunk of their data, the update is of the trial's first batch at its first settings.

    Args:
        trial: What would be trained.
        data: The workload's data for the trial's seed.
        device: Where it would be trained.

    Raises:
        ValueError: What would make the trial fail at its start, with the user's own
            line where there is one.
    """
    try:
        with undisturbed(trial.workload.name):
            _rehearse(trial, data.to(device))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # users' code may raise any, an exit too
        raise ValueError(told(error)) from error


def _rehearse(trial: Trial, data: Data) -> None:
    start = make_start(trial, data)
    state = start.witness.begin(trial.schedule)
    settings, _ = trial.schedule.decide(Progress(0, 0), None, state)
    check_settings(settings)
    start.step.warm_up({settings.batch_size}, evidence=trial.schedule.evidence)
    indices = torch.from_numpy(start.batches.take(0, settings.batch_size))
    with streams.seeded(trial.seed, "training"):
        start.step.update(
            indices.to(data.train.inputs.device),
            settings,
            evidence=trial.schedule.evidence,
        )
    loss = start.step.take_loss(len(indices))
    check_finite("loss in training mode", trial.workload, loss)
