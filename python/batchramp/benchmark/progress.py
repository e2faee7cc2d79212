"""What a person sees while a run goes on: how much is done, and how long it will take."""

from __future__ import annotations

import time
from collections import Counter
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from batchramp.benchmark.escaping import printable
from batchramp.benchmark.monitor import Monitor, Outcome
from batchramp.benchmark.terminal import as_text, draws
from batchramp.training.trial import Row

LINE_EVERY_SECONDS = 10.0
"""Between two lines where there is no terminal to draw a bar on."""


class ProgressMonitor(Monitor):
    """Draws a bar with the time left on a terminal; elsewhere a line now and then.

    An error is told when it is first met; after that, failed trials are counted.

    Args:
        console: Where to; standard error, so that tables can be piped.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar_drawn = draws(console)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not self._bar_drawn,
        )
        self._errors = Counter[str | None]()
        self._reading: TaskID | None = None
        self._done = 0.0
        self._ended = 0
        self._printed = time.monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def prepare(self, done: int, total: int) -> None:
        """Show how far the reading of data is; elsewhere say it, if it takes long."""
        if self._reading is None:
            name = "reading data"
            self._reading = self._progress.add_task(name, total=total, unit="seeds")
        self._progress.update(self._reading, completed=done, visible=done < total)
        if not self._bar_drawn and self._is_due():
            self._say(f"{done} of {total} seeds prepared")

    def note(self, message: str) -> None:
        """Print it."""
        self._say(message)

    def begin(self, trials: int, work: float) -> None:
        """Start the bar."""
        self._started = self._printed = time.monotonic()
        self._trials, self._work = trials, work
        self._bar = self._progress.add_task("preparing", total=trials, unit="trials")

    def look(self, label: str, seed: int, row: Row) -> None:
        """Show which trial is under way."""
        description = f"{printable(label)} seed {seed} epoch {row.epoch:.1f}"
        self._progress.update(self._bar, description=description)

    def end(self, outcome: Outcome, work: float) -> None:
        """Count a trial; name the first of each error."""
        self._ended += 1
        self._done += work
        if outcome.status == "failed":
            self._errors[outcome.error] += 1
            if self._errors[outcome.error] == 1:
                place = f"{outcome.label} seed {outcome.seed}"
                self._say(f"{place} failed: {outcome.error}")
        failed = self._errors.total()
        told = f"trials, {failed} failed" if failed else "trials"
        self._progress.update(self._bar, completed=self._ended, unit=told)
        if not self._bar_drawn and self._is_due():
            left = (time.monotonic() - self._started) * (self._work / self._done - 1)
            self._say(
                f"{self._ended} of {self._trials} {told}, about {left:.0f} s left"
            )

    def _is_due(self) -> bool:
        now = time.monotonic()
        due = now - self._printed > LINE_EVERY_SECONDS
        if due:
            self._printed = now
        return due

    def _say(self, message: str) -> None:
        self._console.print(as_text(message), highlight=False, soft_wrap=True)
