"""Two runs, or several a side, laid side by side: schedule by schedule, seed by seed.

Trials are paired by label and seed, whatever their ids, where they were asked the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import polars as pl

from batchramp.benchmark.comparability import Difference, differences
from batchramp.benchmark.passages import passages
from batchramp.benchmark.results import Results
from batchramp.benchmark.targets import Target, parse_target

TO_TARGET: tuple[Literal["updates", "samples", "train_seconds"], ...] = (
    "updates",
    "samples",
    "train_seconds",
)
"""Quantities that have a target."""

_ENDED = ("finished", "diverged")

TargetKey = tuple[str, str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """One trial, as its run left it."""

    seed: int
    status: str
    metric: float | None
    train_seconds: float | None
    metadata: Mapping[str, Any]


class Run:
    """One run, by label and seed.

    Args:
        name: What sentences call it, such as `base` or `new 2`.
        results: What it left.

    Attributes:
        entries: The rows of `results.entries`, by label.
        trials: The trials, by label and seed.
        measured: What no two measurements share: of each trial its id, its seconds to
            the last bit, and when it was recorded.
    """

    def __init__(self, name: str, results: Results) -> None:
        self.name = name
        self.entries: dict[str, dict[str, Any]] = {
            entry["schedule"]: entry for entry in results.entries.iter_rows(named=True)
        }
        self.trials: dict[str, dict[int, Seen]] = {label: {} for label in self.entries}
        self.measured: set[tuple[str, float, str]] = set()
        ends = (
            results.rows.sort("position")
            .group_by("trial")
            .agg(pl.col("schedule", "seed", "status", "metric", "train_seconds").last())
            .sort("seed")
        )
        for end in ends.iter_rows(named=True):
            self.trials[end["schedule"]][end["seed"]] = Seen(
                seed=end["seed"],
                status=end["status"],
                metric=end["metric"],
                train_seconds=end["train_seconds"],
                metadata=results.metadata.get(end["trial"], {}),
            )
            if end["train_seconds"]:
                there = results.metadata.get(end["trial"], {}).get("environment", {})
                at = str(there.get("recorded_at"))
                self.measured.add((end["trial"], end["train_seconds"], at))
        self._passed = {
            (row["schedule"], row["target"], row["seed"]): row
            for row in passages(results)
            .select("schedule", "target", "seed", *TO_TARGET)
            .iter_rows(named=True)
        }

    def targets(self, label: str) -> dict[TargetKey, Target]:
        """The targets of a schedule by value, so that 0.020 and 0.02 are one."""
        targets = map(parse_target, self.entries[label]["targets"])
        return {
            (target.column, target.direction, target.value): target
            for target in targets
        }

    def values(
        self, label: str, quantity: str, key: TargetKey | None
    ) -> dict[int, float]:
        """One quantity by seed, of trials that finished or diverged; `inf` for a miss.

        A diverged trial never ends, and has no metric; nor has one whose metric is NaN.
        Trials that did not measure a target have no passage to it.
        """
        ended = [t for t in self.trials[label].values() if t.status in _ENDED]
        if key is not None:
            text = self.targets(label)[key].text
            passed = {t.seed: self._passed.get((label, text, t.seed)) for t in ended}
            return {seed: row[quantity] for seed, row in passed.items() if row}
        column = "metric" if quantity == "metric" else "train_seconds"
        return {
            trial.seed: _finite(getattr(trial, column))
            if trial.status == "finished"
            else math.inf
            for trial in ended
        }


@dataclass(frozen=True)
class Pairing:
    """One schedule in every run of both sides."""

    label: str
    base: Sequence[Run]
    new: Sequence[Run]

    @property
    def runs(self) -> tuple[Run, ...]:
        """The base's runs, then the new side's."""
        return (*self.base, *self.new)

    @cached_property
    def differences(self) -> dict[int, list[tuple[Run, Difference]]]:
        """What each seed's trials differ in from the first run's, failed ones too.

        Seeds that some run lacks are left out.
        """
        found: dict[int, list[tuple[Run, Difference]]] = {}
        first, *others = self.runs
        for seed, trial in first.trials[self.label].items():
            theirs = [run.trials[self.label].get(seed) for run in others]
            if all(theirs):
                found[seed] = [
                    (run, difference)
                    for run, other in zip(others, theirs, strict=True)
                    if other
                    for difference in differences(
                        trial.metadata, other.metadata
                    ).values()
                ]
        return found

    @cached_property
    def alike(self) -> tuple[int, ...]:
        """Seeds that every run has and that were asked the same in all of them."""
        return tuple(
            seed
            for seed, found in self.differences.items()
            if not any(difference.kind == "question" for _, difference in found)
        )

    @cached_property
    def pairs(self) -> tuple[int, ...]:
        """Those of them that finished or diverged in every run."""
        return tuple(
            seed
            for seed in self.alike
            if all(run.trials[self.label][seed].status in _ENDED for run in self.runs)
        )

    @cached_property
    def seeds(self) -> int:
        """Seeds that any run has, or was asked for."""
        asked = max(run.entries[self.label]["seeds"] for run in self.runs)
        there = set().union(*(run.trials[self.label] for run in self.runs))
        return max(int(asked), len(there))

    def unrepeated(self) -> tuple[int, ...]:
        """Pairs of trials of one identity that do not end at one metric."""
        first, *others = (
            [r.trials[self.label][s] for s in self.pairs] for r in self.runs
        )
        return tuple(
            trial.seed
            for trial, *same in zip(first, *others, strict=True)
            if any(
                other.metadata.get("identity") == trial.metadata.get("identity")
                and _finite(other.metric) != _finite(trial.metric)
                for other in same
            )
        )

    def other_clock(self) -> str:
        """What the pairs' clocks differ in, such as `threads`; empty if in nothing."""
        keys = dict.fromkeys(
            difference.key
            for seed in self.pairs
            for _, difference in self.differences[seed]
            if difference.kind == "clock"
        )
        return ", ".join(keys)

    def all_diverged(self, seeds: Sequence[int]) -> bool:
        """Whether these seeds diverged in every run."""
        return all(
            run.trials[self.label][seed].status == "diverged"
            for run in self.runs
            for seed in seeds
        )

    def pairs_at_same_looks(self, column: str) -> tuple[int, ...]:
        """The pairs that measured a target's column equally often."""
        key = f"measures.{column}"
        return tuple(
            seed
            for seed in self.pairs
            if all(difference.key != key for _, difference in self.differences[seed])
        )

    def targets(self) -> list[TargetKey]:
        """Targets that every run has, in the first one's order."""
        return [
            key
            for key in self.runs[0].targets(self.label)
            if all(key in run.targets(self.label) for run in self.runs)
        ]

    def metric_directions(self) -> set[str]:
        """Which way the metric is better, `>=` or `<=`, by the targets on it."""
        return {
            direction
            for run in self.runs
            for column, direction, _ in run.targets(self.label)
            if column == "metric"
        }


def _finite(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else math.inf
