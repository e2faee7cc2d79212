"""Where a trial ran: versions, hardware, commit and build profile."""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import psutil
import torch

from batchramp import _rust

GIT_SECONDS = 10.0
"""How long git may take; a repository on a slow network drive holds up no run."""


def describe_environment(device: torch.device, *, jobs: int = 1) -> dict[str, str]:
    """Return what a reader needs to judge or repeat a time; all values are text.

    Cheap enough for every trial: what does not change while a process lives is found
    once, the commit too, which is that of the first call in a folder.

    Args:
        device: Where the trial trains.
        jobs: Trials at a time.

    Returns:
        Among others `threads`, as torch has them now, and `load`: the processes that
        ran or waited on this machine in the last minute, on average, or `unknown`.
    """
    return {
        "recorded_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "batchramp": _rust.__version__,
        "build_profile": _rust.BUILD_PROFILE,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "none",
        "numpy": np.__version__,
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": str(os.cpu_count()),
        "memory_bytes": str(psutil.virtual_memory().total),
        "device": device_name(device),
        "threads": str(torch.get_num_threads()),
        "jobs": str(jobs),
        "load": _load(),
        "commit": _commit(_folder()),
    }


def device_name(device: torch.device) -> str:
    """Return the GPU's product name, or `cpu`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return device.type


@cache
def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if "model name" in line)
    return next(names, platform.processor())


def _load() -> str:
    try:
        return f"{os.getloadavg()[0]:.2f}"
    except (AttributeError, OSError):  # Windows has none; a container may hide it
        return "unknown"


def _folder() -> Path | None:
    try:
        return Path.cwd()
    except OSError:  # it was removed
        return None


@cache
def _commit(folder: Path | None) -> str:
    """The commit of the repository that holds `folder`, `+` where it differs."""
    if folder is None:
        return "unknown"
    commit = _git(folder, "describe", "--always", "--abbrev=12")
    # Not by `describe --dirty`, which rewrites the index whatever it is told of locks.
    changed = commit and _git(folder, "status", "--porcelain", "--untracked-files=no")
    if not commit or changed is None:
        return "unknown"
    return f"{commit}+" if changed else commit


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says; None if it fails. It writes, asks and fetches nothing."""
    quiet = {
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_LAZY_FETCH": "1",
    }
    # Into a file: a pipe is waited for until the last child of a killed git closes it.
    with tempfile.TemporaryFile() as told:
        try:
            done = subprocess.run(
                ["git", *arguments],
                cwd=folder,
                env={**os.environ, **quiet},
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=subprocess.DEVNULL,
                timeout=GIT_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        told.seek(0)
        return (
            told.read().decode(errors="replace").strip()
            if not done.returncode
            else None
        )
