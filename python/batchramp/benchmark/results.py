"""A results folder: `suite.toml` and one Parquet file a trial.

Reads and writes files and Polars frames only; needs no torch.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import tomli_w

from batchramp.benchmark.trial_files import (
    COLUMNS,
    FORMAT,
    canonical,
    read_trial,
    trial_file,
    write_whole,
)
from batchramp.names import user_path

ENTRY_COLUMNS: dict[str, Any] = {
    "panel": pl.Int64,
    "schedule": pl.String,
    "schedule_name": pl.String,
    "baseline": pl.String,
    "tuning": pl.String,
    "planned_updates": pl.Int64,
    "first_change": pl.Int64,
    "targets": pl.List(pl.String),
    "seeds": pl.Int64,
}


class DamagedSuiteError(ValueError):
    """`suite.toml` of a results folder is not what was written."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """Every trial of one run folder.

    Attributes:
        rows: One row per trial and look: `trial`, `panel`, `schedule` (its label) and
            `COLUMNS`.
        entries: One row per entry of the suite: `panel`, `schedule` (label),
            `schedule_name`, `baseline` (label), `tuning`, `planned_updates` (null:
            adaptive), `first_change` (first position where batch size or stepped rate
            changes; null: never), `targets`, `seeds` (asked for, or there).
        suite: `suite.toml`, as resolved.
        metadata: Each trial's `status`, `error`, `traceback`, `notes`, `identity` and
            `environment`, by trial id.
        others: Trial files in the folder that belong to no current entry.
    """

    rows: pl.DataFrame
    entries: pl.DataFrame
    suite: dict[str, Any]
    metadata: dict[str, dict[str, Any]]
    others: int = 0


def write_suite(folder: Path, table: Mapping[str, Any]) -> None:
    """Write `suite.toml`, all or nothing, with its checksum.

    Raises:
        OSError: It cannot be written.
    """
    held = {"format": FORMAT, **table}
    held["checksum"] = _checksum(held)
    write_whole(folder / "suite.toml", tomli_w.dumps(held).encode())


def read_suite(folder: Path) -> dict[str, Any]:
    """Return the resolved suite of a results folder.

    Raises:
        DamagedSuiteError: Its `suite.toml` is not what was written.
        ValueError: The folder is no results folder, or of another format.
        OSError: It cannot be read.
    """
    path = folder / "suite.toml"
    if not path.is_file():
        raise ValueError(f"{folder} must be a results folder, and holds no suite.toml")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise OSError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        suite = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise DamagedSuiteError(_damaged(path)) from error
    written = suite.pop("checksum", None)
    if isinstance(suite.get("format"), int) and suite["format"] != FORMAT:
        raise ValueError(
            f"{folder} must be of results format {FORMAT}, got "
            f"{suite['format']} (written by batchramp "
            f"{suite.get('batchramp', 'of an unknown version')}): read it with that "
            "version, or run the suite into another folder, with --out"
        )
    if written != _checksum(suite):
        raise DamagedSuiteError(_damaged(path))
    return suite


def read_results(folder: str | Path) -> Results:
    """Read a results folder; only trials of its current suite count.

    Each file is verified: its checksum, and that it is the trial its name says.

    Args:
        folder: What `batchramp run` wrote into; `~` is the home directory.

    Raises:
        ValueError: It is no results folder, is of another format, or a file in it is
            damaged.
        OSError: A file in it cannot be read.
    """
    folder = user_path(folder)
    return results_of(folder, read_suite(folder))


def results_of(folder: Path, suite: dict[str, Any]) -> Results:
    """Read those trials of a folder that a resolved suite names; see `read_results`."""
    entries = _entries(suite)
    frames, metadata = [], {}
    for trial in suite["trial"]:
        path = trial_file(folder, trial["id"])
        if not path.exists():
            continue
        stored = read_trial(path)
        metadata[trial["id"]] = stored.metadata
        frames.append(
            stored.rows.with_columns(
                trial=pl.lit(trial["id"]), schedule=pl.lit(trial["label"])
            )
        )
    empty = pl.DataFrame(schema={**COLUMNS, "trial": pl.String, "schedule": pl.String})
    rows = pl.concat([empty, *frames], how="vertical")
    rows = rows.join(entries.select("schedule", "panel"), on="schedule", how="left")
    first = ["trial", "workload", "panel", "schedule"]
    named = {trial["id"] for trial in suite["trial"]}
    return Results(
        rows=rows.select(*first, pl.exclude(first)),
        entries=entries,
        suite=suite,
        metadata=metadata,
        others=len(trial_ids(folder) - named),
    )


def trial_ids(folder: Path) -> set[str]:
    """Return the ids of all trial files in a results folder."""
    trials = folder / "trials"
    if not trials.is_dir():
        return set()
    return {path.stem for path in trials.iterdir() if path.suffix == ".parquet"}


def _entries(suite: Mapping[str, Any]) -> pl.DataFrame:
    seeds = max(suite["seeds"], len({trial["seed"] for trial in suite["trial"]}))
    entries = [
        {
            "panel": number,
            "schedule": entry["label"],
            "schedule_name": entry["schedule"],
            "baseline": entry["baseline"],
            "tuning": entry["tuning"],
            "planned_updates": entry.get("planned_updates"),
            "first_change": entry.get("first_change"),
            "targets": panel["targets"],
            "seeds": seeds,
        }
        for number, panel in enumerate(suite["panel"])
        for entry in panel["entry"]
    ]
    return pl.DataFrame(entries, schema=ENTRY_COLUMNS)


def _checksum(table: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(table)).hexdigest()


def _damaged(path: Path) -> str:
    return (
        f"{path} is damaged: run the suite again into this folder; its trials are kept, "
        "and it is written anew"
    )
