"""What a person sees while a run goes on: how much is done, and how long it will take."""

from __future__ import annotations

import time
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from batchramp.benchmark.monitor import Monitor, Outcome
from batchramp.training.trial import Row

LINE_EVERY_SECONDS = 10.0
"""Between two lines where there is no terminal to draw a bar on."""


class ProgressMonitor(Monitor):
    """Draws a bar with the time left on a terminal; elsewhere a line now and then.

    Args:
        console: Where to; standard error, so that tables can be piped.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("trials"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._done = 0.0
        self._ended = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, trials: int, work: float) -> None:
        """Start the bar."""
        self._started = self._printed = time.monotonic()
        self._trials, self._work = trials, work
        self._bar = self._progress.add_task("preparing", total=trials)

    def look(self, label: str, seed: int, row: Row) -> None:
        """Show which trial is under way."""
        description = f"{label} seed {seed} epoch {row.epoch:.1f}"
        self._progress.update(self._bar, description=description)

    def end(self, outcome: Outcome, work: float) -> None:
        """Count a trial; name the one that did not finish."""
        self._ended += 1
        self._done += work
        self._progress.update(self._bar, completed=self._ended)
        if outcome.status == "failed":
            self._say(f"{outcome.label} seed {outcome.seed} failed: {outcome.error}")
        now = time.monotonic()
        if not self._console.is_terminal and now - self._printed > LINE_EVERY_SECONDS:
            self._printed = now
            left = (now - self._started) * (self._work / self._done - 1)
            self._say(
                f"{self._ended} of {self._trials} trials, about {left:.0f} s left"
            )

    def _say(self, message: str) -> None:
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)
