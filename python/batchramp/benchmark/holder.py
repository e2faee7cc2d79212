"""One run at a time in a results folder: who holds it, and what a dead one left."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import filelock


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold a results folder, so that no trial is trained twice.

    The system lets go of the lock when its process ends, however it ends. Half-written
    files that lie there are then nobody's, and removed.

    Raises:
        ValueError: Another process holds it; the message says which.
        OSError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock", timeout=0)
        lock.acquire()
    except filelock.Timeout:
        raise ValueError(
            f"{folder} is held by {_told_holder(folder)}: wait for it, or choose "
            "another folder with --out"
        ) from None
    except OSError as error:
        message = f"{folder} cannot be written: {error.strerror or error}"
        raise OSError(message) from error
    try:
        _begin(folder)
        yield
    finally:
        with suppress(OSError):
            _holder_file(folder).unlink(missing_ok=True)
        lock.release()


def _begin(folder: Path) -> None:
    """Say who holds the folder, and remove what a dead run left half written."""
    holder = {
        "host": platform.node(),
        "process": os.getpid(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    try:
        _holder_file(folder).write_text(json.dumps(holder), encoding="utf-8")
        for left in (*folder.iterdir(), *_children(folder / "trials")):
            if left.suffix == ".partial":
                left.unlink(missing_ok=True)
    except OSError as error:
        message = f"{error.filename} cannot be written: {error.strerror}"
        raise OSError(message) from error


def _children(folder: Path) -> Iterator[Path]:
    return folder.iterdir() if folder.is_dir() else iter(())


def _holder_file(folder: Path) -> Path:
    return folder / ".holder.json"


def _told_holder(folder: Path) -> str:
    try:
        holder = json.loads(_holder_file(folder).read_text(encoding="utf-8"))
        return (
            f"process {holder['process']} on {holder['host']}, since {holder['since']}"
        )
    except (OSError, ValueError, KeyError, TypeError):  # it has only just begun
        return "another run"
