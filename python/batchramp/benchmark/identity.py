"""What a trial's curve follows from, and what of it makes a folder another question."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

import batchramp
from batchramp import schedules, workloads
from batchramp.benchmark.environment import device_name
from batchramp.benchmark.suite import Entry, Panel, Suite, exact, resolved_measures
from batchramp.schedules import Schedule
from batchramp.training.step import IMPLEMENTATION
from batchramp.training.torch_settings import torch_settings
from batchramp.user_code.loading import UserCode
from batchramp.workloads import Workload


def suite_identity(
    suite: Suite, workload: Workload, code: UserCode, device: torch.device
) -> dict[str, Any]:
    """Return what all trials of a suite have in common.

    It holds what was asked, not what it was called: of a user's workload the name in its
    file and the bytes of each module that it imports, never a path.
    """
    return {
        "workload": workload.name,
        "workload_asked": asked(suite.workload),
        "workload_sources": code.sources(suite.workload, workloads.ENTRY_POINTS),
        "extra_sources": code.extra_sources(),
        "epochs": str(exact("epochs", suite.epochs)),
        "boundary": suite.boundary,
        "cadence": str(exact("cadence", suite.cadence)),
        "measures": {n: str(every) for n, every in resolved_measures(suite).items()},
        "micro_batch": suite.micro_batch,
        "batchramp": _installed_digest(),
        "torch": torch.__version__,
        "torch_settings": torch_settings(),
        "device": device_name(device),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "optimizer": IMPLEMENTATION,
    }


def entry_identity(
    panel: Panel, entry: Entry, schedule: Schedule, code: UserCode
) -> dict[str, Any]:
    """Return what an entry adds: its schedule, as asked and as resolved."""
    return {
        "schedule": schedule.name,
        "schedule_asked": asked(entry.schedule),
        "schedule_sources": code.sources(entry.schedule, schedules.ENTRY_POINTS),
        "set": entry.set,
        "parameters": schedule.parameters(),
        "weight_decay": panel.weight_decay,
        "nesterov": panel.nesterov,
    }


def asked(name: str) -> str:
    """Return what of a workload's or schedule's name is not a path."""
    return name.rpartition(":")[2]


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    """Say in what two identities differ, but for the seed and its data.

    Args:
        there: Of a trial that lies in a results folder.
        here: Of one that is asked for now.
    """
    for key in sorted(there.keys() | here.keys()):
        old, new = there.get(key), here.get(key)
        if old == new or key in ("seed", "data"):
            continue
        if key.endswith("_sources"):
            before, now = dict(old or {}), dict(new or {})
            names = sorted(n for n in before | now if before.get(n) != now.get(n))
            files = ", ".join(name or "the file itself" for name in names)
            yield f"the {key.removesuffix('_sources')}'s source ({files})"
        elif key == "batchramp":
            yield "batchramp's own files"
        else:
            yield f"{key.replace('_', ' ')} {_short(old)} there, {_short(new)} here"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@cache
def _installed_digest() -> str:
    """Hash the package's own files: another version never continues a race."""
    folder = Path(batchramp.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".py", ".so", ".pyd"):
            digest.update(file.relative_to(folder).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()
