"""Why trials failed: each distinct error of a run once, with the trials that met it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from batchramp.benchmark.results import Results

_UNKNOWN = "no reason was recorded"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialError:
    """One error, and where a run met it."""

    error: str
    """One line: its type, its message and the user's own innermost line."""
    traceback: str | None
    """All of it, of the first trial that met it; None where none was kept."""
    where: tuple[tuple[str, tuple[int, ...]], ...]
    """Each schedule's label, with the seeds of its trials."""

    @property
    def trials(self) -> int:
        """How many trials failed by it."""
        return sum(len(seeds) for _, seeds in self.where)

    @property
    def place(self) -> str:
        """Which they are, in words: `3 trials: a, seeds 0 and 2; b, seed 1`."""
        number = "1 trial" if self.trials == 1 else f"{self.trials} trials"
        where = [f"{label}, {seeds_told(seeds)}" for label, seeds in self.where]
        return f"{number}: {'; '.join(_cut(where, 8))}"

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON values; `where` is a list of `schedule` and `seeds`."""
        where = [{"schedule": label, "seeds": [*seeds]} for label, seeds in self.where]
        return asdict(self) | {"trials": self.trials, "where": where}


def trial_errors(results: Results) -> tuple[TrialError, ...]:
    """The distinct errors of a run's failed trials, the one of most trials first."""
    found: dict[str, dict[str, list[int]]] = {}
    tracebacks: dict[str, str | None] = {}
    trials = (
        results.rows.filter(pl.col("status") == "failed")
        .select("trial", "schedule", "seed")
        .unique(maintain_order=True)
    )
    for trial, label, seed in trials.iter_rows():
        metadata = results.metadata[trial]
        error = metadata.get("error") or _UNKNOWN
        found.setdefault(error, {}).setdefault(label, []).append(seed)
        tracebacks[error] = tracebacks.get(error) or metadata.get("traceback")
    labels = results.entries["schedule"].to_list()
    errors = [
        TrialError(
            error=error,
            traceback=tracebacks[error],
            where=tuple(
                (label, tuple(sorted(at[label]))) for label in labels if label in at
            ),
        )
        for error, at in found.items()
    ]
    return tuple(sorted(errors, key=lambda error: -error.trials))


def seeds_told(seeds: Iterable[int]) -> str:
    """Sorted seeds in words: `seeds 0 to 5 and 7`; `seed 3`."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    parts = [
        part
        for run in runs
        for part in (
            [f"{run[0]} to {run[-1]}"] if len(run) > 2 else [str(seed) for seed in run]
        )
    ]
    name = "seed" if sum(map(len, runs)) == 1 else "seeds"
    return f"{name} {listed(parts)}"


def listed(parts: Iterable[str], most: int = 8) -> str:
    """Some words as a list: `a, b and c`; of many, the first and how many more."""
    *head, last = _cut(list(parts), most)
    return f"{', '.join(head)} and {last}" if head else last


def _cut(parts: list[str], most: int) -> list[str]:
    if len(parts) <= most:
        return parts
    return [*parts[: most - 1], f"{len(parts) - most + 1} more"]
