"""From a suite to its trials: what each is, and the name its results file gets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from batchramp import schedules
from batchramp._rust import Batches, derive_key
from batchramp.benchmark.baselines import missing_baselines
from batchramp.benchmark.identity import entry_identity, suite_identity
from batchramp.benchmark.suite import (
    Entry,
    Suite,
    check_targets,
    exact,
    panel_targets,
    resolved_measures,
)
from batchramp.benchmark.trial_files import identify
from batchramp.schedules import Schedule
from batchramp.training.streams import seeded
from batchramp.training.torch_settings import torch_settings
from batchramp.training.trial import Trial
from batchramp.user_code.errors import errors_named
from batchramp.user_code.loading import UserCode
from batchramp.workloads import Data, Workload, find_workload


@dataclass(frozen=True)
class PlannedTrial:
    """A trial of a suite, before it is run.

    Attributes:
        id: 16 hexadecimal digits, a hash of all that its curve follows from.
        label: Its entry's label.
        seed: Its seed.
        identity: What `id` is the hash of.
    """

    id: str
    label: str
    seed: int
    identity: dict[str, Any]


class ResolvedSuite:
    """A suite with its workload, schedules and data: ready to be run.

    Args:
        suite: What was asked.
        code: The users' files that it names.
        data_dir: Parent directory of the data sets.
        device: Where its trials run.

    Attributes:
        workload: The suite's workload.
        num_samples: Training samples of its first seed's data.
        plans: By label; None for an adaptive schedule.

    Raises:
        ValueError: A workload, schedule, parameter or data set is not there or not
            valid; a batch size goes above the number of samples.
    """

    def __init__(
        self, suite: Suite, code: UserCode, data_dir: Path | None, device: torch.device
    ) -> None:
        self.suite = suite
        self._code = code
        self._data_dir = data_dir
        self._epochs = exact("epochs", suite.epochs)
        self._measures = resolved_measures(suite)
        self.workload: Workload = find_workload(suite.workload, code)
        check_targets(suite, self.workload.targets)
        self._panels = {e.label: panel for panel, e in suite.entries()}
        self._entries = {entry.label: entry for _, entry in suite.entries()}
        made = {
            label: self._make_schedule(entry) for label, entry in self._entries.items()
        }
        self._parameters = {label: of.parameters() for label, of in made.items()}
        self._common = suite_identity(suite, self.workload, code, device)
        self._identities = {
            label: entry_identity(self._panels[label], entry, made[label], code)
            for label, entry in self._entries.items()
        }
        self._digests: dict[int, str] = {}
        self._held: tuple[int, Data] | None = None
        self.num_samples = len(self._load(suite.first_seed).train)
        self.plans = {label: self._plan(label, of) for label, of in made.items()}

    def check_imports(self) -> None:
        """Refuse modules of users' own that run and have no part in an identity.

        Raises:
            ValueError: There is one; it is named.
        """
        self._code.check_imports()

    def data(self, seed: int, digest: str) -> Data:
        """Load the workload's data for one seed, and hold them until the next seed's.

        Raises:
            ValueError: They are not those that `digest` was taken of.
        """
        if self._held is None or self._held[0] != seed:
            self._held = None  # first, so that two seeds never lie in memory
            data = self._load(seed)
            if data.digest() != digest:
                raise ValueError(
                    f"load of workload {self.workload.name!r} must give the same data "
                    f"for the same seed, and gave others when seed {seed} was loaded "
                    "again: draw only from the seed that it is given, or from torch's, "
                    "NumPy's or Python's global generators, which are set from it"
                )
            self._held = (seed, data)
        return self._held[1]

    def seeds(self) -> range:
        """Return the seeds that were asked for."""
        return range(self.suite.first_seed, self.suite.first_seed + self.suite.seeds)

    def order(
        self,
        seeds: Iterable[int] | None = None,
        on_seed: Callable[[], None] = lambda: None,
    ) -> list[PlannedTrial]:
        """Return all trials seed by seed, shuffled within a seed.

        Drift of the machine then falls on all schedules alike.

        Args:
            seeds: Which; None is those asked for.
            on_seed: Called when the data of one more seed have been hashed.
        """
        labels = list(self._entries)
        trials = []
        for seed in self.seeds() if seeds is None else seeds:
            if seed not in self._digests:
                self._load(seed)
            on_seed()
            key = derive_key(seed, "trial order")
            shuffled: list[int] = (
                Batches(len(labels), seed=key).take(0, len(labels)).tolist()
            )
            trials += [self.planned(labels[i], seed) for i in shuffled]
        return trials

    def planned(self, label: str, seed: int) -> PlannedTrial:
        """Return a trial as it is in this process, once its seed's data were loaded."""
        identity = self._common | self._identities[label]
        identity |= {"seed": seed, "data": self._digests[seed]}
        return PlannedTrial(identify(identity), label, seed, identity)

    def trial(self, planned: PlannedTrial) -> Trial:
        """Return what to train, with a schedule of its own that nothing else has used."""
        panel = self._panels[planned.label]
        return Trial(
            workload=self.workload,
            schedule=self._make_schedule(self._entries[planned.label]),
            seed=planned.seed,
            epochs=self._epochs,
            boundary=self.suite.boundary,
            cadence=exact("cadence", self.suite.cadence),
            measures=self._measures,
            weight_decay=panel.weight_decay,
            nesterov=panel.nesterov,
            micro_batch=self.suite.micro_batch,
        )

    def to_toml(self, trials: Iterable[PlannedTrial]) -> dict[str, Any]:
        """Return the suite as its results folder keeps it: all that tables need."""
        table = self.suite.to_dict()
        for panel, written in zip(self.suite.panels, table["panel"], strict=True):
            targets = panel_targets(panel, self.workload.targets)
            written["targets"] = [target.text for target in targets]
            labels = [entry.label for entry in panel.entries]
            written["missing_baselines"] = missing_baselines(
                [self._make_schedule(self._entries[label]) for label in labels],
                [self.plans[label] for label in labels],
                [entry.search is not None for entry in panel.entries],
            )
            for entry, written_entry in zip(
                panel.entries, written["entry"], strict=True
            ):
                written_entry["baseline"] = entry.baseline or panel.baseline
                written_entry |= self._resolved_entry(entry)
        table["workload_name"] = self.workload.name
        table["num_samples"] = self.num_samples
        table["threads"] = self._common["threads"]
        table["trial"] = [
            {"id": trial.id, "label": trial.label, "seed": trial.seed}
            for trial in sorted(trials, key=lambda trial: (trial.seed, trial.label))
        ]
        return table

    def _load(self, seed: int) -> Data:
        settings = torch_settings()
        with (
            errors_named(f"data of workload {self.workload.name!r}"),
            seeded(seed, "split"),
        ):
            data = self.workload.load(self._data_dir, derive_key(seed, "split"))
        for name, value in torch_settings().items():
            if value != settings[name]:
                raise ValueError(
                    f"load of workload {self.workload.name!r} must not change torch's "
                    f"{name}, and set {value}: set it where the file is loaded"
                )
        if not isinstance(data, Data):
            raise ValueError(
                f"load of workload {self.workload.name!r} must return a "
                f"batchramp.workloads.Data, got {type(data).__name__}"
            )
        if seed != self.suite.first_seed and len(data.train) != self.num_samples:
            raise ValueError(
                f"load of workload {self.workload.name!r} must give as many training "
                f"samples for every seed, so that plans and budgets are common, got "
                f"{self.num_samples} and, for seed {seed}, {len(data.train)}"
            )
        self._digests.setdefault(seed, data.digest())
        return data

    def _make_schedule(self, entry: Entry) -> Schedule:
        with errors_named(f"entry {entry.label!r}"):
            if ":" in entry.schedule:
                return schedules.load(entry.schedule, self._code, **entry.set)
            return schedules.make(entry.schedule, **entry.set)

    def _plan(self, label: str, schedule: Schedule) -> schedules.Plan | None:
        with errors_named(f"entry {label!r}"):
            if schedule.evidence:
                schedules.first_settings(
                    schedule,
                    schedules.Horizon.of(
                        self.num_samples, self._epochs, self.suite.boundary
                    ),
                )
                return None
            return schedules.plan(
                schedule,
                num_samples=self.num_samples,
                epochs=self._epochs,
                boundary=self.suite.boundary,
            )

    def _resolved_entry(self, entry: Entry) -> dict[str, Any]:
        plan = self.plans[entry.label]
        resolved: dict[str, Any] = {
            "tuning": entry.tuning,
            "parameters": {
                key: value
                for key, value in self._parameters[entry.label].items()
                if value is not None
            },
        }
        if plan is not None:
            resolved["planned_updates"] = plan.updates
            if len(plan.stages) > 1:
                resolved["first_change"] = plan.stages[1].start
        return resolved
