"""A trial's file: one Parquet file, written whole and verified when it is read.

Its metadata hold the format, how the trial ended, its identity and environment, and the
SHA-256 of all of that and of every column. Its name is the hash of its identity. The
bytes are sealed as well, so that no parser meets others.
"""

from __future__ import annotations

import hashlib
import io
import json
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
    write_whole(path, _sealed(content.getvalue()))
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
    if not _is_whole(content):
        raise DamagedTrialError(_damaged(path))
    try:
        held = json.loads(pl.read_parquet_metadata(io.BytesIO(content))["batchramp"])
        if held["format"] != FORMAT:
            raise ValueError(
                f"{path} must be of results format {FORMAT}, got {held['format']}: read "
                "it with the version of batchramp that wrote it"
            )
        frame = pl.read_parquet(io.BytesIO(content))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise OSError(f"{path} cannot be read, though whole: {error}") from error
    written = held.pop("checksum")
    if written != checksum(frame, held) or identify(held["identity"]) != path.stem:
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
    # All columns at once: a call for each takes ten times as long.
    nulls = frame.select(pl.all().is_null())
    filled = frame.select(
        pl.col(pl.String).fill_null(""), pl.exclude(pl.String).fill_null(0)
    )
    for name, dtype in frame.schema.items():
        digest.update(f"\n{name} {dtype} {frame.height}\n".encode())
        digest.update(nulls[name].to_numpy().astype(np.uint8).tobytes())
        if dtype == pl.String:
            for text in filled[name].to_list():
                digest.update(f"{len(text)} {text}".encode())
        else:
            values = filled[name].to_numpy()
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


def _content(path: Path) -> bytes:
    try:
        if path.is_fifo():  # which would be waited for
            raise OSError(f"{path} cannot be read: it is no file")
        return path.read_bytes()
    except OSError as error:
        if error.strerror is None:
            raise
        raise OSError(f"{path} cannot be read: {error.strerror or error}") from error


def _sealed(content: bytes) -> bytes:
    """Put the SHA-256 of a Parquet file's bytes before its footer, where no reader looks.

    So that bytes that are not what was written never come to a parser: Polars ends the
    whole process on some of them.
    """
    footer = _footer(content)
    return content[:footer] + hashlib.sha256(content).digest() + content[footer:]


def _is_whole(content: bytes) -> bool:
    footer = _footer(content)
    seal = footer - hashlib.sha256().digest_size
    if seal < 0:
        return False
    bare = content[:seal] + content[footer:]
    return hashlib.sha256(bare).digest() == content[seal:footer]


def _footer(content: bytes) -> int:
    """Where a Parquet file's footer begins: its length stands before the last 4 bytes."""
    return len(content) - 8 - int.from_bytes(content[-8:-4], "little")


def _damaged(path: Path) -> str:
    return f"{path} is damaged: run the suite again, and only this trial is redone"
