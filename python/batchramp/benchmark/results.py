"""A results folder: `suite.toml` and one Parquet file a trial, written atomically.

Reads and writes files and Polars frames only; needs no torch.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import tomli_w

FORMAT = 2
"""Version of the folder's layout; another one is refused, not guessed at."""

COLUMNS: dict[str, type[pl.DataType]] = {
    "workload": pl.String,
    "seed": pl.Int64,
    "status": pl.String,
    "updates": pl.Int64,
    "samples": pl.Int64,
    "position": pl.Int64,
    "epoch": pl.Float64,
    "train_seconds": pl.Float64,
    "total_seconds": pl.Float64,
    "evaluation_seconds": pl.Float64,
    "compile_seconds": pl.Float64,
    "batch_size": pl.Int64,
    "lr": pl.Float64,
    "momentum": pl.Float64,
    "train_loss": pl.Float64,
    "full_train_loss": pl.Float64,
    "metric": pl.Float64,
    "gradient_norm": pl.Float64,
    "variance": pl.Float64,
    "noise_scale": pl.Float64,
    "sharpness": pl.Float64,
    "sharpness_residual": pl.Float64,
    "batch_variance": pl.Float64,
    "batch_bias": pl.Float64,
}
"""Columns of a trial's file; `training.trial.Row` says what each means. `trial`,
`panel` and `schedule` (the label) are joined from `suite.toml` on reading, so that a
relabelled suite needs no new run."""

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


@dataclass(frozen=True, kw_only=True)
class Results:
    """Every trial of one run folder.

    Attributes:
        rows: One row per trial and look: `trial`, `panel`, `schedule` (its label) and
            `COLUMNS`.
        entries: One row per entry of the suite: `panel`, `schedule` (label),
            `schedule_name`, `baseline` (label), `tuning`, `planned_updates` (null:
            adaptive), `first_change` (first position where batch size or stepped rate
            changes; null: never), `targets`, `seeds` (as asked).
        suite: `suite.toml`, as resolved.
        metadata: Each trial's identity, environment and error, by trial id.
    """

    rows: pl.DataFrame
    entries: pl.DataFrame
    suite: dict[str, Any]
    metadata: dict[str, dict[str, Any]]


def trial_file(folder: Path, trial_id: str) -> Path:
    """Return the path of a trial's results."""
    return folder / "trials" / f"{trial_id}.parquet"


def write_trial(
    folder: Path,
    trial_id: str,
    rows: Iterable[Mapping[str, Any]],
    metadata: Mapping[str, Any],
) -> None:
    """Write one trial's rows, `COLUMNS` each, and its metadata, all or nothing."""
    frame = pl.DataFrame(list(rows), schema=COLUMNS)
    path = trial_file(folder, trial_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(path) as temporary:
        frame.write_parquet(temporary, metadata={"batchramp": json.dumps(metadata)})


def read_status(folder: Path, trial_id: str) -> str | None:
    """Return how a recorded trial ended; None if it is absent or cannot be read."""
    path = trial_file(folder, trial_id)
    if not path.is_file():
        return None
    try:
        _, metadata = _read_trial(path)
    except ValueError:
        return None
    return str(metadata["status"])


def write_suite(folder: Path, table: Mapping[str, Any]) -> None:
    """Write `suite.toml` atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    with _replacing(folder / "suite.toml") as temporary:
        text = tomli_w.dumps({"format": FORMAT, **table})
        temporary.write_text(text, encoding="utf-8")


def read_suite(folder: Path) -> dict[str, Any]:
    """Return the resolved suite of a results folder.

    Raises:
        ValueError: The folder is no results folder, or of another format.
    """
    path = folder / "suite.toml"
    if not path.is_file():
        raise ValueError(f"{folder} must be a results folder, and holds no suite.toml")
    try:
        suite = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if suite.get("format") != FORMAT:
        raise ValueError(
            f"{folder} must be of results format {FORMAT}, got "
            f"{suite.get('format')} (written by batchramp "
            f"{suite.get('batchramp', 'of an unknown version')}): read it with that "
            "version, or run the suite into another folder"
        )
    missing = {"name", "question", "panel", "trial"} - suite.keys()
    if missing:
        raise ValueError(f"{path} is damaged: it lacks {', '.join(sorted(missing))}")
    return suite


def read_results(folder: str | Path) -> Results:
    """Read a results folder; only trials of its current suite count.

    Args:
        folder: What `batchramp run` wrote into.

    Raises:
        ValueError: It is no results folder, is of another format, or a file in it is
            damaged.
    """
    folder = Path(folder)
    suite = read_suite(folder)
    try:
        entries = _entries(suite)
        trials = [(trial["id"], trial["label"]) for trial in suite["trial"]]
    except (KeyError, TypeError) as error:
        path = folder / "suite.toml"
        raise ValueError(f"{path} is damaged: it lacks {error}") from error
    frames, metadata = [], {}
    for trial_id, label in trials:
        path = trial_file(folder, trial_id)
        if not path.is_file():
            continue
        frame, metadata[trial_id] = _read_trial(path)
        frames.append(
            frame.with_columns(trial=pl.lit(trial_id), schedule=pl.lit(label))
        )
    empty = pl.DataFrame(schema={**COLUMNS, "trial": pl.String, "schedule": pl.String})
    rows = pl.concat([empty, *frames], how="vertical")
    rows = rows.join(entries.select("schedule", "panel"), on="schedule", how="left")
    first = ["trial", "workload", "panel", "schedule"]
    return Results(
        rows=rows.select(*first, pl.exclude(first)),
        entries=entries,
        suite=suite,
        metadata=metadata,
    )


def _entries(suite: Mapping[str, Any]) -> pl.DataFrame:
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
            "seeds": suite["seeds"],
        }
        for number, panel in enumerate(suite["panel"])
        for entry in panel["entry"]
    ]
    return pl.DataFrame(entries, schema=ENTRY_COLUMNS)


def _read_trial(path: Path) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Read all of a trial's file: the footer of a damaged one may still be whole."""
    try:
        frame = pl.read_parquet(path)
        metadata = json.loads(pl.read_parquet_metadata(path)["batchramp"])
        whole = frame.schema == COLUMNS and "status" in metadata
    except _UNREADABLE as error:
        raise ValueError(_damaged(path)) from error
    if not whole:
        raise ValueError(_damaged(path))
    return frame, metadata


_UNREADABLE = (
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
    OSError,
    ValueError,
    KeyError,
    TypeError,
)
"""What reading a file that does not hold what was written may raise."""


def _damaged(path: Path) -> str:
    return f"{path} is damaged: run the suite again, and only this trial is redone"


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that takes its place once all is written."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
