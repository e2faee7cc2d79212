"""What a reader of a run's tables must be told before them, in words."""

from __future__ import annotations

from collections import Counter

import polars as pl

from batchramp.benchmark.errors import listed
from batchramp.benchmark.results import Results

_CLOCKS = {
    "jobs": "numbers of jobs",
    "threads": "threads",
    "device": "devices",
    "cpu": "processors",
    "cores": "numbers of cores",
    "platform": "systems",
    "python": "versions of Python",
    "torch": "versions of torch",
    "cuda": "versions of CUDA",
    "build_profile": "builds of batchramp",
}
"""What seconds depend on, of a trial's environment, and what it is called."""

BUSY = 1.5
"""Load average, as a multiple of the cores, from which a trial waited for others."""

MOST_NOTED = 4
"""Different notes of trials themselves that are repeated."""


def run_notes(results: Results) -> tuple[str, ...]:
    """What a run's tables cannot show: mixed clocks, lost looks, missing trials.

    A sentence each, without a full stop; empty where there is nothing to take care of.
    """
    trials = _trials(results)
    counted = trials.filter(pl.col("status") != "failed")
    return (
        *_missing(results, trials),
        *_others(results.others),
        *_mixed(results, counted),
        *_jobs(results, counted),
        *_busy(results, counted),
        *_lost_metrics(results),
        *_of_trials(results, trials),
    )


def _trials(results: Results) -> pl.DataFrame:
    """One row per trial: `trial`, `panel`, `schedule`, `status`."""
    columns = ("trial", "panel", "schedule", "status")
    return results.rows.select(columns).unique(maintain_order=True)


def _missing(results: Results, trials: pl.DataFrame) -> list[str]:
    asked = int(results.entries["seeds"].sum())
    failed = trials.filter(status="failed").height
    counts = {"failed": failed, "not run": max(asked - trials.height, 0)}
    told = [f"{number} {what}" for what, number in counts.items() if number]
    if not told:
        return []
    return [
        f"of {asked} trials {listed(told)}: missing from the tables, and not counted"
    ]


def _others(others: int) -> list[str]:
    if not others:
        return []
    files = _count(others, "trial file")
    belong = "belongs" if others == 1 else "belong"
    return [
        f"{files} in this folder {belong} to no current entry, and {_are(others)} "
        "not counted"
    ]


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _mixed(results: Results, trials: pl.DataFrame) -> list[str]:
    panels = results.entries["panel"].unique(maintain_order=True).to_list()
    notes = []
    for panel in panels:
        mine = trials.filter(panel=panel)
        place = f"panel {panel + 1}: " if len(panels) > 1 else ""
        for key, name in _CLOCKS.items():
            values = _values(results, mine, key)
            if len(values) < 2:
                continue
            labels = [
                f"'{label}'"
                for label in mine["schedule"].unique(maintain_order=True)
                if len(_values(results, mine.filter(schedule=label), key)) > 1
            ]
            where = (
                f"the medians of {listed(labels, 4)} mix them"
                if labels
                else "no median mixes them, but they differ between schedules"
            )
            told = [
                f"{value} in {_count(number, 'trial')}"
                for value, number in values.most_common()
            ]
            notes.append(
                f"{place}seconds are of different {name} ({listed(told, 4)}): {where}"
            )
    return notes


def _values(results: Results, trials: pl.DataFrame, key: str) -> Counter[str]:
    """How many of some trials have which value of their environment."""
    environments = (results.metadata[trial]["environment"] for trial in trials["trial"])
    return Counter(str(found[key]) for found in environments if key in found)


def _jobs(results: Results, trials: pl.DataFrame) -> list[str]:
    jobs = _values(results, trials, "jobs")
    shared = {value: number for value, number in jobs.items() if value != "1"}
    if not shared:
        return []
    told = [
        f"{_count(number, 'trial')} ran {value} at a time"
        for value, number in shared.items()
    ]
    return [
        f"{listed(told)}: they disturb each other's clocks, so take seconds for a rough "
        "guide; updates and metrics are exact"
    ]


def _busy(results: Results, trials: pl.DataFrame) -> list[str]:
    busy = []
    for trial in trials["trial"]:
        environment = results.metadata[trial]["environment"]
        try:
            load, cores = float(environment["load"]), int(environment["cores"])
        except (KeyError, ValueError):  # not known there
            continue
        if load > BUSY * cores:
            busy.append((load, cores))
    if not busy:
        return []
    load, cores = max(busy)
    return [
        f"{_count(len(busy), 'trial')} began on a busy machine (a load of up to "
        f"{load:.3g} on {_count(cores, 'core')}): {'its' if len(busy) == 1 else 'their'} "
        "seconds may hold waiting"
    ]


def _lost_metrics(results: Results) -> list[str]:
    # A diverged trial's last look is expected to be lost.
    last = pl.col("position") == pl.col("position").max().over("trial", "schedule")
    lost = results.rows.filter(
        pl.col("metric").is_nan(),
        pl.col("status") != "failed",
        ~((pl.col("status") == "diverged") & last),
    )
    if lost.is_empty():
        return []
    labels = lost["schedule"].unique(maintain_order=True)
    told = [
        f"'{label}' at {_count(looks.height, 'look')} of "
        f"{_count(looks['trial'].n_unique(), 'trial')}"
        for label in labels
        for looks in (lost.filter(schedule=label),)
    ]
    return [
        f"the metric was not a number for {listed(told, 4)}: such a look reaches no "
        "target, and an end without a number is in no mean"
    ]


def _of_trials(results: Results, trials: pl.DataFrame) -> list[str]:
    """What trials noted themselves, each sentence once."""
    noted = Counter(
        note
        for trial in trials["trial"]
        for note in results.metadata[trial].get("notes", ())
    )
    told = [
        f"{note} ({_count(number, 'trial')})"
        for note, number in noted.most_common(MOST_NOTED)
    ]
    if rest := len(noted) - len(told):
        told.append(f"{rest} more of what trials noted: in their metadata")
    return told


def _count(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"
