"""The loop of one trial: decide, train, look, until the budget."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch

from batchramp.schedules.interface import Evidence, Progress, Settings
from batchramp.training import streams
from batchramp.training.clock import Clock
from batchramp.training.evaluation import mean_metric
from batchramp.training.keeping import state_kept
from batchramp.training.measures import Subject, measure
from batchramp.training.start import check_finite, make_start, undisturbed
from batchramp.training.step import check_settings
from batchramp.training.trial import Record, Row, Status, Trial
from batchramp.training.witness import Question
from batchramp.user_code.errors import told
from batchramp.workloads import Data


def run_trial(
    trial: Trial,
    data: Data,
    device: torch.device,
    on_look: Callable[[Row], None] = lambda _row: None,
) -> Record:
    """Train one trial to its budget and return its rows.

    A target never stops a trial; a loss that is not finite at a look does. Data are
    moved to the device before any clock runs. Whatever stops a trial otherwise, a
    schedule's impossible settings, an error or an exit in a user's own code, makes it a
    failed one, which keeps the rows it has. Global generators, torch's settings and its
    threads are as they were when it ends.

    Args:
        trial: What to train.
        data: The workload's data for the trial's seed.
        device: Where to train.
        on_look: Called with each row as it is recorded.
    """
    rows: list[Row] = []
    notes: dict[str, str] = {}

    def record(row: Row) -> None:
        rows.append(row)
        on_look(row)

    status: Status
    error = whole = None
    try:
        with undisturbed(trial.workload.name):
            race = _Race(trial, data.to(device), device, record, notes)
            status = race.run()
    except KeyboardInterrupt:
        raise
    except BaseException as raised:  # users' code may raise any, an exit too
        status, error = "failed", told(raised)
        whole = "".join(traceback.format_exception(raised))
    return Record(tuple(rows), status, error, whole, tuple(notes.values()))


@dataclass
class _Cursor:
    """Where a trial stands; `settings` are those of the next update.

    `asked` is what they were decided from; at the end it is of the last update.
    """

    position: int
    update: int
    samples: int
    settings: Settings
    state: Any
    asked: tuple[Progress, Evidence | None, Any]


class _Race:
    def __init__(
        self,
        trial: Trial,
        data: Data,
        device: torch.device,
        record: Callable[[Row], None],
        notes: dict[str, str],
    ) -> None:
        self._opened = time.perf_counter()
        self._trial = trial
        self._device = device
        self._record_row = record
        self._notes = notes
        self._last_position = -1
        self._train_clock, self._look_clock, self._compile_clock = (
            Clock(device) for _ in range(3)
        )
        self._evidence = trial.schedule.evidence
        start = make_start(trial, data)
        self._data, self._batches = start.data, start.batches
        self._model, self._step = start.model, start.step
        self._witness, self._horizon = start.witness, start.witness.horizon
        self._num_samples = self._horizon.num_samples

    def run(self) -> Status:
        state = self._witness.begin(self._trial.schedule)
        asked = (Progress(0, 0), None, state)
        cursor = _Cursor(0, 0, 0, Settings(0, 0.0, 0.0), state, asked)
        self._decide(cursor, None)
        with self._compile_clock:
            loss = self._step.warm_up(self._shapes(cursor), evidence=self._evidence)
        check_finite("loss in training mode", self._trial.workload, loss)
        self._record(cursor, None)
        with streams.seeded(self._trial.seed, "training"):
            while cursor.position < self._horizon.budget:
                samples = cursor.samples
                used = self._train(cursor, self._next_look(cursor.position))
                loss = self._step.take_loss(cursor.samples - samples)
                with streams.kept():
                    decision = (cursor.settings, cursor.state)
                    self._witness.check(Question(*cursor.asked), decision)
                    row = self._record(cursor, (used, loss))
                if not (math.isfinite(loss) and _finite(row.full_train_loss)):
                    return "diverged"
        self._check_plan(cursor)
        return "finished"

    def _train(self, cursor: _Cursor, until: int) -> Settings:
        """Make updates until the position `until`; return the last one's settings."""
        batches, step, device = self._batches, self._step, self._device
        on_cpu = device.type == "cpu"
        with self._train_clock:
            while True:
                used = cursor.settings
                indices = torch.from_numpy(
                    batches.take(cursor.position, used.batch_size)
                )
                if not on_cpu:
                    indices = indices.to(device, non_blocking=True)
                evidence = step.update(indices, used, evidence=self._evidence)
                cursor.position = batches.end(cursor.position, used.batch_size)
                cursor.update += 1
                cursor.samples += len(indices)
                if cursor.position < self._horizon.budget:
                    self._decide(cursor, evidence)
                if cursor.position >= until:
                    return used

    def _decide(self, cursor: _Cursor, evidence: Evidence | None) -> None:
        """Decide the settings of the next update, at its first position.

        Under `drop` a batch that does not fit in the rest of its pass is not made: the
        tail is skipped and the settings are decided anew where the next pass begins.
        """
        progress = Progress(cursor.position, cursor.update)
        decide = self._trial.schedule.decide
        settings, state = decide(progress, evidence, cursor.state)
        start = self._batches.start(cursor.position, settings.batch_size)
        if start != cursor.position:
            cursor.position = start
            if start >= self._horizon.budget:
                return
            progress = Progress(start, cursor.update)
            settings, state = decide(progress, evidence, cursor.state)
        check_settings(settings)
        cursor.asked = (progress, evidence, cursor.state)
        cursor.settings, cursor.state = settings, state

    def _shapes(self, cursor: _Cursor) -> set[int]:
        """The batch sizes that the trial can reach, short last batches included.

        An adaptive schedule's later sizes are not known beforehand; nothing is compiled
        or captured for a shape on this path, so that its first one stands for them.
        """
        plan = self._witness.plan
        if plan is None:
            return {cursor.settings.batch_size}
        sizes = {size for _, size in plan.runs}
        if self._trial.boundary == "keep":
            for start, size in plan.runs:
                first_rest = -start % self._num_samples
                sizes |= {first_rest % size, self._num_samples % size}
        return sizes - {0}

    def _next_look(self, position: int) -> int:
        spacing = self._trial.cadence * self._num_samples
        look = math.ceil((position // spacing + 1) * spacing)
        return min(look, self._horizon.budget)

    def _record(self, cursor: _Cursor, last: tuple[Settings, float] | None) -> Row:
        trial = self._trial
        before, self._last_position = self._last_position, cursor.position
        settings, train_loss = last or (None, None)
        size = settings.batch_size if settings else None
        with self._look_clock:
            streams.begin(trial.seed, "look")
            with state_kept(self._model):
                metric = mean_metric(self._model, trial.workload, self._data.test)
            measured, failed = measure(
                Subject(
                    self._model, trial.workload, self._data.train, trial.seed, size
                ),
                self._due(before, cursor.position),
            )
        if last is None:
            loss = measured.get("full_train_loss", 0.0)
            check_finite("full training loss", trial.workload, loss)
            if math.isnan(metric):
                check_finite("metric", trial.workload, metric)
        for name, why in failed.items():
            note = (
                f"{name} was not measured (first at position {cursor.position}): {why}"
            )
            self._notes.setdefault(name, note)
        row = Row(
            updates=cursor.update,
            samples=cursor.samples,
            position=cursor.position,
            epoch=cursor.position / self._num_samples,
            train_seconds=self._train_clock.seconds,
            total_seconds=time.perf_counter() - self._opened,
            evaluation_seconds=self._look_clock.seconds,
            compile_seconds=self._compile_clock.seconds,
            batch_size=size,
            lr=settings.lr if settings else None,
            momentum=settings.momentum if settings else None,
            train_loss=train_loss,
            metric=metric,
            **measured,
        )
        self._record_row(row)
        return row

    def _due(self, before: int, position: int) -> set[str]:
        """The measures of which a cadence's multiple lies in (before, position]."""
        if position >= self._horizon.budget:
            return {"full_train_loss", "gradient_norm", *self._trial.measures}
        spacings = {
            name: Fraction(cadence) * self._num_samples
            for name, cadence in self._trial.measures.items()
        }
        return {
            name
            for name, spacing in spacings.items()
            if before // spacing < position // spacing
        }

    def _check_plan(self, cursor: _Cursor) -> None:
        plan = self._witness.plan
        if plan is not None and cursor.update != plan.updates:
            raise ValueError(
                f"schedule {self._trial.schedule.name} made {cursor.update} updates "
                f"where its plan has {plan.updates}: its batch size may change only at "
                "the positions that its events() declare"
            )


def _finite(value: float | None) -> bool:
    return value is None or math.isfinite(value)
