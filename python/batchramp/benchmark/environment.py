"""Where a trial ran: versions, hardware, commit and build profile."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil
import torch

from batchramp import _rust


def describe_environment(device: torch.device) -> dict[str, str]:
    """Return what a reader needs to judge or repeat a time; all values are text."""
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
        "commit": _commit(),
    }


def device_name(device: torch.device) -> str:
    """Return the GPU's product name, or `cpu`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return device.type


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if "model name" in line)
    return next(names, platform.processor())


def _commit() -> str:
    """The commit of the repository that the run was started in, `+` where it differs."""
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return found.stdout.strip() or "unknown"
