"""One schedule raced to one target: what the pytest fixture measures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from batchramp.benchmark.monitor import Monitor
from batchramp.benchmark.passages import passages
from batchramp.benchmark.race import Race
from batchramp.benchmark.results import Results
from batchramp.benchmark.runner import make_race
from batchramp.benchmark.suite import make_suite
from batchramp.benchmark.tracing import run_untraced
from batchramp.names import suggest

PANEL_OPTIONS = ("nesterov", "weight_decay")
SUITE_OPTIONS = ("boundary", "cadence", "measures", "micro_batch", "threads")
RACE_OPTIONS = ("data", "device")


ENVIRONMENT = ("batchramp", "torch", "device", "cpu", "cpu_capability")
"""What is kept of where the trials ran, beside the threads."""


@dataclass(frozen=True)
class RaceSummary:
    """First passages of one schedule's seeds to one target.

    Attributes:
        train_seconds: Of each seed, in order; infinite where it missed.
        updates: Likewise.
        spent_seconds: As `train_seconds`, but a miss counts what the whole budget took:
            this seed's own, or for a diverged one the most that any seed's took; still
            infinite where none trained its whole budget.
        spent_updates: As `updates`, with misses counted likewise.
        planned_updates: Of the whole budget; None for an adaptive schedule.
        question: What was raced, for the benchmark's records; JSON-able.
        environment: Where it ran: `ENVIRONMENT`, `threads`, and `traced_by`, what may
            have watched the training and slowed its clock. JSON-able.
    """

    train_seconds: tuple[float, ...]
    updates: tuple[float, ...]
    spent_seconds: tuple[float, ...]
    spent_updates: tuple[float, ...]
    planned_updates: int | None
    question: Mapping[str, Any]
    environment: Mapping[str, Any]

    @property
    def misses(self) -> int:
        """Seeds that never reached the target."""
        return sum(map(math.isinf, self.updates))

    def describe(self) -> dict[str, Any]:
        """Return JSON-able facts to keep beside the figures; a miss is null."""
        reached = [None if math.isinf(value) else int(value) for value in self.updates]
        return {
            **self.question,
            **self.environment,
            "planned_updates": self.planned_updates,
            "updates_to_target": reached,
            "misses": self.misses,
        }


def race_once(
    workload: str,
    schedule: str,
    *,
    target: str,
    epochs: float | str,
    seeds: int,
    set: Mapping[str, Any] | None,
    out: Path,
    folder: Path,
    first_only: bool = False,
    **options: Any,
) -> RaceSummary:
    """Train one schedule's seeds in `out` and find each one's first passage.

    The arguments are those of `TimeToAccuracy.__call__`; `file.py:name` is relative to
    `folder`. With `first_only` all are checked alike, but one seed is trained, and
    tracers are left alone, since nobody keeps its seconds.

    Raises:
        ValueError: An argument is not valid.
        RuntimeError: A trial failed, or had too few looks to confirm the target.
    """
    known = (*PANEL_OPTIONS, *SUITE_OPTIONS, *RACE_OPTIONS)
    for name in options:
        if name not in known:
            raise ValueError(suggest("option", name, known))
    asked = {"workload": workload, "schedule": schedule, "target": target}
    for name, value in (asked | _chosen(options, RACE_OPTIONS)).items():
        kinds = (str, PathLike) if name == "data" else (str,)
        if not isinstance(value, kinds):
            raise ValueError(f"{name} must be of type str, got {value!r}")

    parameters = _parameters({} if set is None else set)
    entry = {"label": schedule, "schedule": schedule, "set": parameters}
    panel = {"entry": [entry], "baseline": schedule, "targets": [target]}
    suite = {
        "name": "race",
        "workload": workload,
        "panel": [panel | _chosen(options, PANEL_OPTIONS)],
        "epochs": epochs,
        "seeds": seeds,
        **_chosen(options, SUITE_OPTIONS),
    }
    question = {
        **asked,
        "set": parameters,
        "epochs": epochs,
        "seeds": seeds,
        **_chosen(options, PANEL_OPTIONS + SUITE_OPTIONS),
    }
    race = make_race(
        make_suite(suite),
        out=out,
        seeds=1 if first_only else None,
        folder=folder,
        **_chosen(options, RACE_OPTIONS),
    )
    if first_only:
        return _summarize(_train(race), question, ())
    results, traced_by = run_untraced(lambda: _train(race))
    return _summarize(results, question, traced_by)


def _chosen(options: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return those of the options that have one of the names and were not None."""
    return {name: options[name] for name in names if options.get(name) is not None}


def _parameters(set: object) -> dict[str, Any]:
    """Return a schedule's parameters as JSON can say them, NumPy's numbers as Python's.

    Raises:
        ValueError: They are no such mapping.
    """
    if not isinstance(set, Mapping) or not all(isinstance(name, str) for name in set):
        raise ValueError(f"set must map parameters' names to values, got {set!r}")
    parameters = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in set.items()
    }
    try:
        json.dumps(parameters)
    except TypeError as error:
        raise ValueError(f"set must hold plain values, got {set!r}: {error}") from error
    return parameters


def _train(race: Race) -> Results:
    done = race.run(Monitor())
    failed = [outcome for outcome in done.outcomes if outcome.status == "failed"]
    if failed:
        told = RuntimeError(f"seed {failed[0].seed} failed: {failed[0].error}")
        for trial in done.results.metadata.values():
            if trial["error"] == failed[0].error and trial.get("traceback"):
                told.add_note(trial["traceback"])  # the folder will be gone
                break
        raise told
    return done.results


def _summarize(
    results: Results, question: dict[str, Any], traced_by: tuple[str, ...]
) -> RaceSummary:
    found = passages(results).sort("seed")
    ends = results.rows.sort("position").group_by("seed").last().sort("seed")
    if found.height < ends.height:
        raise RuntimeError(
            f"target {question['target']!r} needs two looks at its measure in each "
            "trial, and a seed had fewer: let it have more epochs, or smaller batches"
        )
    seconds, updates = found["train_seconds"].to_list(), found["updates"].to_list()

    def spent(values: list[float], column: str) -> tuple[float, ...]:
        whole = ends[column].cast(float).to_list()
        finished = (ends["status"] == "finished").to_list()
        # A trial that diverges ends early: its own end would make it look fast.
        most = max(
            (end for end, done in zip(whole, finished, strict=True) if done),
            default=math.inf,
        )
        return tuple(
            (end if done else most) if math.isinf(value) else value
            for value, end, done in zip(values, whole, finished, strict=True)
        )

    ran = next(iter(results.metadata.values()))["environment"]
    return RaceSummary(
        train_seconds=tuple(seconds),
        updates=tuple(updates),
        spent_seconds=spent(seconds, "train_seconds"),
        spent_updates=spent(updates, "updates"),
        planned_updates=results.entries["planned_updates"].item(),
        question=question,
        environment={name: ran[name] for name in ENVIRONMENT}
        | {"threads": int(ran["threads"]), "traced_by": list(traced_by)},
    )
