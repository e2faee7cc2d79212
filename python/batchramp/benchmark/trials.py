"""From a suite to its trials: what each is, and the name its results file gets."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

import batchramp
from batchramp import schedules, workloads
from batchramp._rust import Batches, derive_key
from batchramp.benchmark.environment import device_name
from batchramp.benchmark.suite import (
    Entry,
    Panel,
    Suite,
    check_targets,
    exact,
    panel_targets,
    resolved_measures,
)
from batchramp.names import user_file
from batchramp.schedules import Schedule
from batchramp.training.step import IMPLEMENTATION
from batchramp.training.trial import Trial
from batchramp.user_code.errors import errors_named
from batchramp.workloads import Data, Workload, find_workload


@dataclass(frozen=True)
class PlannedTrial:
    """A trial of a suite, before it is run.

    Attributes:
        id: 16 hexadecimal digits, a hash of all that its curve follows from.
        label: Its entry's label.
        seed: Its seed.
        trial: What to train.
        identity: What `id` is the hash of.
    """

    id: str
    label: str
    seed: int
    trial: Trial
    identity: dict[str, Any]


class ResolvedSuite:
    """A suite with its workload, schedules and data: ready to be run.

    Args:
        suite: What was asked.
        folder: The folder that its own files are relative to.
        data_dir: Parent directory of the data sets.
        device: Where its trials run.

    Raises:
        ValueError: A workload, schedule, parameter or data set is not there or not
            valid; a batch size goes above the number of samples.
    """

    def __init__(
        self,
        suite: Suite,
        folder: Path | None,
        data_dir: Path | None,
        device: torch.device,
    ) -> None:
        self.suite = suite
        self.workload: Workload = find_workload(suite.workload, folder)
        self._folder = folder
        self._data_dir = data_dir
        self._device = device
        self._epochs = exact("epochs", suite.epochs)
        self._schedules = {
            entry.label: self._make_schedule(entry) for _, entry in suite.entries()
        }
        self.num_samples = len(self.data(suite.first_seed).train)
        check_targets(suite, self.workload.targets)
        self._measures = resolved_measures(suite)
        self.plans = {
            label: self._plan(label, schedule)
            for label, schedule in self._schedules.items()
        }

    def data(self, seed: int) -> Data:
        """Load the workload's data for one seed."""
        with errors_named(f"data of workload {self.workload.name!r}"):
            data = self.workload.load(self._data_dir, derive_key(seed, "split"))
        if not isinstance(data, Data):
            raise ValueError(
                f"load of workload {self.workload.name!r} must return a "
                f"batchramp.workloads.Data, got {type(data).__name__}"
            )
        return data

    def order(self) -> list[PlannedTrial]:
        """Return all trials seed by seed, shuffled within a seed.

        Drift of the machine then falls on all schedules alike.
        """
        entries = self.suite.entries()
        trials = []
        first = self.suite.first_seed
        for seed in range(first, first + self.suite.seeds):
            digest = self.data(seed).digest()
            key = derive_key(seed, "trial order")
            shuffled: list[int] = (
                Batches(len(entries), seed=key).take(0, len(entries)).tolist()
            )
            trials += [self._trial(*entries[i], seed, digest) for i in shuffled]
        return trials

    def to_toml(self, trials: list[PlannedTrial]) -> dict[str, Any]:
        """Return the suite as its results folder keeps it: all that tables need."""
        table = self.suite.to_dict()
        for panel, written in zip(self.suite.panels, table["panel"], strict=True):
            targets = panel_targets(panel, self.workload.targets)
            written["targets"] = [target.text for target in targets]
            labels = [entry.label for entry in panel.entries]
            written["missing_baselines"] = missing_baselines(
                [self._schedules[label] for label in labels],
                [self.plans[label] for label in labels],
                [entry.search is not None for entry in panel.entries],
            )
            for entry, written_entry in zip(
                panel.entries, written["entry"], strict=True
            ):
                written_entry |= self._resolved_entry(panel, entry)
        table["num_samples"] = self.num_samples
        table["trial"] = [
            {"id": trial.id, "label": trial.label, "seed": trial.seed}
            for trial in sorted(trials, key=lambda trial: (trial.seed, trial.label))
        ]
        return table

    def question(self) -> str:
        """Hash what makes this suite another one: not labels, targets, seeds or paths."""
        entries = [
            self._settings(panel, self._schedules[entry.label])
            for panel, entry in self.suite.entries()
        ]
        return _hash(sorted(json.dumps(entry, sort_keys=True) for entry in entries))

    def _make_schedule(self, entry: Entry) -> Schedule:
        with errors_named(f"entry {entry.label!r}"):
            if ":" in entry.schedule:
                return schedules.load(entry.schedule, self._folder, **entry.set)
            return schedules.make(entry.schedule, **entry.set)

    def _plan(self, label: str, schedule: Schedule) -> schedules.Plan | None:
        with errors_named(f"entry {label!r}"):
            if schedule.evidence:
                schedule.init(
                    schedules.Horizon.of(
                        self.num_samples, self._epochs, self.suite.boundary
                    )
                )
                return None
            return schedules.plan(
                schedule,
                num_samples=self.num_samples,
                epochs=self._epochs,
                boundary=self.suite.boundary,
            )

    def _resolved_entry(self, panel: Panel, entry: Entry) -> dict[str, Any]:
        schedule, plan = self._schedules[entry.label], self.plans[entry.label]
        resolved: dict[str, Any] = {
            "baseline": entry.baseline or panel.baseline,
            "tuning": entry.tuning,
            "parameters": {
                key: value
                for key, value in schedule.parameters().items()
                if value is not None
            },
        }
        if plan is not None:
            resolved["planned_updates"] = plan.updates
            if len(plan.stages) > 1:
                resolved["first_change"] = plan.stages[1].start
        return resolved

    def _trial(
        self, panel: Panel, entry: Entry, seed: int, data_digest: str
    ) -> PlannedTrial:
        schedule = self._schedules[entry.label]
        trial = Trial(
            workload=self.workload,
            schedule=schedule,
            seed=seed,
            epochs=self._epochs,
            boundary=self.suite.boundary,
            cadence=exact("cadence", self.suite.cadence),
            measures=self._measures,
            weight_decay=panel.weight_decay,
            nesterov=panel.nesterov,
            micro_batch=self.suite.micro_batch,
        )
        identity = self._settings(panel, schedule) | {
            "seed": seed,
            "data": data_digest,
            "source": self._source_digests(entry),
            "batchramp": _installed_digest(),
            "torch": torch.__version__,
            "device": device_name(self._device),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "optimizer": IMPLEMENTATION,
        }
        return PlannedTrial(
            id=_hash(identity)[:16],
            label=entry.label,
            seed=seed,
            trial=trial,
            identity=identity,
        )

    def _settings(self, panel: Panel, schedule: Schedule) -> dict[str, Any]:
        return {
            "workload": self.workload.name,
            "schedule": schedule.name,
            "parameters": schedule.parameters(),
            "epochs": str(self._epochs),
            "boundary": self.suite.boundary,
            "cadence": str(exact("cadence", self.suite.cadence)),
            "measures": {name: str(every) for name, every in self._measures.items()},
            "weight_decay": panel.weight_decay,
            "nesterov": panel.nesterov,
            "micro_batch": self.suite.micro_batch,
        }

    def _source_digests(self, entry: Entry) -> list[str]:
        """Hash the user's own files; what those import is not followed."""
        files = (
            user_file(self.suite.workload, workloads.ENTRY_POINTS, self._folder),
            user_file(entry.schedule, schedules.ENTRY_POINTS, self._folder),
        )
        return [hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f]


def missing_baselines(
    made: list[Schedule], plans: list[schedules.Plan | None], tuned: list[bool]
) -> list[str]:
    """Say which of the two baselines of an honest comparison a panel lacks.

    Args:
        made: A panel's schedules.
        plans: Their plans; None for an adaptive one, whose `lr` counts as its rate.
        tuned: Whether each has a tuning search.
    """
    rates = [
        {rate for stage in plan.stages for rate in (stage.lr, stage.lr_end)}
        if plan
        else {float(schedule.parameters().get("lr", 0))}
        for schedule, plan in zip(made, plans, strict=True)
    ]
    held = [plan is not None and len(plan.runs) == 1 for plan in plans]
    largest = max(set().union(*rates))
    missing = []
    if not any(flat and of == {largest} for flat, of in zip(held, rates, strict=True)):
        missing.append(
            f"this panel has no constant batch at its largest rate, {largest:g}, so "
            "part of a difference may be the rate's"
        )
    cosines = [
        searched
        for flat, schedule, searched in zip(held, made, tuned, strict=True)
        if flat
        and (
            schedule.name == "constant-cosine"
            or schedule.parameters().get("decay") == "cosine"
        )
    ]
    if not cosines:
        missing.append("this panel has no constant batch with a cosine")
    elif not any(cosines):
        missing.append("this panel's constant batch with a cosine was not tuned")
    return missing


@cache
def _installed_digest() -> str:
    """Hash the package's own files: another version never continues a race."""
    folder = Path(batchramp.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".py", ".so", ".pyd"):
            digest.update(file.relative_to(folder).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
