"""A trial's file: one Parquet file, written whole and verified when it is read.

Its metadata hold the format, how the trial ended, its identity and environment, and the
SHA-256 of all of that and of every column. Its name is the hash of its identity.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

FORMAT = 3
"""Version of a results folder's layout; another one is refused, not guessed at."""

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

ENDED = ("finished", "diverged")
"""How a trial ends for good; a failed one is tried again."""

_KEYS = ("format", "status", "error", "traceback", "identity", "environment")


@dataclass(frozen=True)
class StoredTrial:
    """What a trial's file holds, verified.

    Attributes:
        rows: `COLUMNS`, one row a look.
        metadata: `status`, `error`, `traceback`, `notes`, `identity`, `environment`.
    """

    rows: pl.DataFrame
    metadata: dict[str, Any]


class DamagedTrialError(ValueError):
    """A trial's file does not hold what was written."""


def identify(identity: Mapping[str, Any]) -> str:
    """Return the id of a trial: 16 hexadecimal digits of its identity's SHA-256."""
    return hashlib.sha256(canonical(identity)).hexdigest()[:16]


def trial_file(folder: Path, trial_id: str) -> Path:
    """Return the path of a trial's results."""
    return folder / "trials" / f"{trial_id}.parquet"


def write_trial(
    folder: Path,
    trial_id: str,
    rows: Iterable[Mapping[str, Any]],
    metadata: Mapping[str, Any],
) -> bool:
    """Write one trial's rows, `COLUMNS` each, and its metadata, all or nothing.

    Returns:
        Whether it was written: a failed trial never takes an ended one's place.

    Raises:
        OSError: It cannot be written, for want of room or of permission.
    """
    path = trial_file(folder, trial_id)
    if metadata["status"] not in ENDED and read_status(folder, trial_id) in ENDED:
        return False
    frame = pl.DataFrame(list(rows), schema=COLUMNS)
    held = {"format": FORMAT, **metadata}
    held["checksum"] = checksum(frame, held)
    content = io.BytesIO()  # so that a full disk is met by us, and not by Polars
    frame.write_parquet(content, metadata={"batchramp": json.dumps(held)})
    write_whole(path, content.getvalue())
    return True


def read_trial(path: Path) -> StoredTrial:
    """Read and verify a trial's file.

    Raises:
        DamagedTrialError: It is of this format and not what was written, or another
            trial's under this name.
        ValueError: It is of another format.
        OSError: It is not there, or cannot be read.
    """
    content = _content(path)
    try:
        frame = pl.read_parquet(io.BytesIO(content))
        held = json.loads(pl.read_parquet_metadata(io.BytesIO(content))["batchramp"])
        if not isinstance(held, dict):
            raise TypeError("metadata are no object")
        written = held.pop("checksum", None)
    except _UNPARSABLE as error:
        _check_polars(path)
        raise DamagedTrialError(_damaged(path)) from error
    whole = (
        all(key in held for key in _KEYS)
        and frame.schema == COLUMNS
        and written == checksum(frame, held)
        and identify(held["identity"]) == path.stem
    )
    if not whole:
        if isinstance(held.get("format"), int) and held["format"] != FORMAT:
            raise ValueError(
                f"{path} must be of results format {FORMAT}, got {held['format']}: read "
                "it with the version of batchramp that wrote it"
            )
        raise DamagedTrialError(_damaged(path))
    return StoredTrial(frame, held)


def read_status(folder: Path, trial_id: str) -> str | None:
    """Return how a recorded trial ended; None where it is absent or damaged.

    Raises:
        OSError: Its file cannot be read, which does not make it a damaged one.
        ValueError: It is of another format.
    """
    path = trial_file(folder, trial_id)
    if not path.exists():
        return None
    try:
        return str(read_trial(path).metadata["status"])
    except DamagedTrialError:
        return None


def checksum(frame: pl.DataFrame, metadata: Mapping[str, Any]) -> str:
    """Return the SHA-256 of metadata and of each column.

    Of a column count its name, dtype, nulls (one byte a row) and little-endian values
    (0 where null; text as UTF-8 behind its length), so that it is the same whatever
    wrote the Parquet file, and however it was compressed.
    """
    digest = hashlib.sha256(canonical(metadata))
    for column in frame:
        digest.update(f"\n{column.name} {column.dtype} {len(column)}\n".encode())
        digest.update(column.is_null().to_numpy().astype(np.uint8).tobytes())
        if column.dtype == pl.String:
            for text in column.fill_null(""):
                digest.update(f"{len(text)} {text}".encode())
        else:
            values = column.fill_null(0).to_numpy()
            digest.update(values.astype(values.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def canonical(value: Any) -> bytes:
    """Return JSON values in their one form: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that at any moment the old or the new one is there, whole.

    It is flushed to the disk before it takes the other's place, and so is its folder.

    Raises:
        OSError: It cannot be written; nothing is left of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if os.name == "posix":  # elsewhere a folder cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that takes its place once all is written."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


_UNPARSABLE = (
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    RecursionError,
    OverflowError,
)
"""What parsing bytes that are not what was written may raise."""


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise OSError(f"{path} cannot be read: {error.strerror or error}") from error


def _check_polars(path: Path) -> None:
    """Tell a file that is damaged from a Polars that fails on a whole one, too.

    Raises:
        OSError: Polars cannot read back what it writes now.
    """
    try:
        frame = pl.DataFrame({"number": [1.0, math.inf], "text": ["a", None]})
        content = io.BytesIO()
        frame.write_parquet(content, metadata={"batchramp": "{}"})
        content.seek(0)
        works = pl.read_parquet(content).equals(frame)
    except Exception as error:
        raise OSError(f"{path} cannot be read: Polars fails: {error}") from error
    if not works:
        raise OSError(f"{path} cannot be read: Polars reads back something else")


def _damaged(path: Path) -> str:
    return f"{path} is damaged: run the suite again, and only this trial is redone"
