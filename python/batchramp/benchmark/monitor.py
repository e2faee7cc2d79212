"""What is told of a run while it goes on."""

from __future__ import annotations

from dataclasses import dataclass

from batchramp.training.trial import Row


@dataclass(frozen=True)
class Outcome:
    """How one trial ended: its label, seed, status, and the error of a failed one."""

    label: str
    seed: int
    status: str
    error: str | None = None


class Monitor:
    """Is told how a run goes; this one listens to nothing."""

    def prepare(self, done: int, total: int) -> None:
        """The data of so many seeds have been hashed, of all that are asked for."""

    def note(self, message: str) -> None:
        """Something about the results folder that a person should know."""

    def begin(self, trials: int, work: float) -> None:
        """The trials to run, and the work they are together, in its own unit."""

    def look(self, label: str, seed: int, row: Row) -> None:
        """A trial of this process recorded a row."""

    def end(self, outcome: Outcome, work: float) -> None:
        """A trial ended, `work` of the whole."""
