"""One schedule raced to one target: what the pytest fixture measures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchramp.benchmark.passages import passages
from batchramp.benchmark.results import read_results
from batchramp.benchmark.runner import Monitor, make_race
from batchramp.benchmark.suite import make_suite
from batchramp.names import suggest

PANEL_OPTIONS = ("nesterov", "weight_decay")
SUITE_OPTIONS = ("boundary", "cadence", "measures", "micro_batch", "threads")
RACE_OPTIONS = ("data", "device")


@dataclass(frozen=True)
class RaceSummary:
    """First passages of one schedule's seeds to one target.

    Attributes:
        train_seconds: Of each seed, in order; infinite where it missed.
        updates: Likewise.
        spent_seconds: As `train_seconds`, but what the whole budget took for a miss.
        spent_updates: As `updates`, but what the whole budget took for a miss.
        planned_updates: Of the whole budget; None for an adaptive schedule.
        question: What was raced, for the benchmark's records; JSON-able.
    """

    train_seconds: tuple[float, ...]
    updates: tuple[float, ...]
    spent_seconds: tuple[float, ...]
    spent_updates: tuple[float, ...]
    planned_updates: int | None
    question: Mapping[str, Any]

    @property
    def misses(self) -> int:
        """Seeds that never reached the target."""
        return sum(map(math.isinf, self.updates))

    def describe(self) -> dict[str, Any]:
        """Return JSON-able facts to keep beside the figures; a miss is null."""
        reached = [None if math.isinf(value) else int(value) for value in self.updates]
        return {
            **self.question,
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
    set: dict[str, Any],
    folder: Path,
    first_only: bool = False,
    **options: Any,
) -> RaceSummary:
    """Train one schedule's seeds in `folder` and find each one's first passage.

    The arguments are those of `TimeToAccuracy.__call__`; with `first_only` they are
    checked alike, and one seed is trained.

    Raises:
        ValueError: An argument is not valid.
        RuntimeError: A trial failed.
    """
    known = (*PANEL_OPTIONS, *SUITE_OPTIONS, *RACE_OPTIONS)
    for name in options:
        if name not in known:
            raise ValueError(suggest("option", name, known))

    def chosen(names: tuple[str, ...]) -> dict[str, Any]:
        return {name: options[name] for name in names if name in options}

    entry = {"label": schedule, "schedule": schedule, "set": set}
    panel = {"entry": [entry], "baseline": schedule, "targets": [target]}
    suite = {
        "name": "race",
        "workload": workload,
        "panel": [panel | chosen(PANEL_OPTIONS)],
        "epochs": epochs,
        "seeds": seeds,
        **chosen(SUITE_OPTIONS),
    }
    question = {
        "workload": workload,
        "schedule": schedule,
        "set": set,
        "target": target,
        "epochs": epochs,
        **chosen(PANEL_OPTIONS + SUITE_OPTIONS),
    }
    race = make_race(
        make_suite(suite),
        out=folder,
        seeds=1 if first_only else None,
        **chosen(RACE_OPTIONS),
    )
    for outcome in race.run(Monitor()):
        if outcome.status == "failed":
            raise RuntimeError(f"seed {outcome.seed} failed: {outcome.error}")
    return _summarize(folder, question)


def _summarize(folder: Path, question: dict[str, Any]) -> RaceSummary:
    results = read_results(folder)
    found = passages(results).sort("seed")
    ends = results.rows.sort("position").group_by("seed").last().sort("seed")
    seconds, updates = found["train_seconds"].to_list(), found["updates"].to_list()

    def spent(values: list[float], at_end: list[float]) -> tuple[float, ...]:
        pairs = zip(values, at_end, strict=True)
        return tuple(end if math.isinf(value) else value for value, end in pairs)

    return RaceSummary(
        train_seconds=tuple(seconds),
        updates=tuple(updates),
        spent_seconds=spent(seconds, ends["train_seconds"].to_list()),
        spent_updates=spent(updates, ends["updates"].cast(float).to_list()),
        planned_updates=results.entries["planned_updates"].item(),
        question=question,
    )
