"""What a training that is to be killed draws, and what it writes down of its updates."""

import json
import os
import signal
from pathlib import Path

import batchramp

PLAN = batchramp.plan(
    "smith-increase", num_samples=40, epochs=4, batch_size=4, max_batch_size=16
)
"""Its passes have 10, 4, 3 and 3 batches."""


class Trained:
    """A file of JSON lines, an update each, that outlives the process.

    Args:
        path: The file; a process that goes on from a checkpoint has another.
        dies_at: The update after whose line this process kills itself, with SIGKILL; None
            lets it live.
    """

    plan = PLAN

    def __init__(self, path, dies_at=None):
        self.path = Path(path)
        self.dies_at = dies_at

    def __call__(self, update, samples):
        """Writes down an update, from the training's first on, and its samples."""
        with self.path.open("a") as file:
            file.write(json.dumps([int(update), list(samples)]) + "\n")
        if update == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def new_sampler(self, **ranks):
        return batchramp.VariableBatchSampler(
            self.plan.horizon.num_samples, schedule=self.plan, **ranks
        )

    def lines(self):
        return [json.loads(line) for line in self.path.read_text().splitlines()]
