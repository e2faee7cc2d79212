"""Workloads: the built-in ones, and a user's own from `file.py:name`.

What needs torch is imported on first use, so that naming the workloads does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from batchramp.names import find_entry_point, suggest
from batchramp.user_code.loading import UserCode

if TYPE_CHECKING:
    from batchramp.workloads.interface import (
        Data,
        Split,
        Workload,
        accuracy,
        cross_entropy,
    )

__all__ = [
    "BUILT_IN",
    "ENTRY_POINTS",
    "Data",
    "Split",
    "Workload",
    "accuracy",
    "cross_entropy",
    "find_workload",
]

ENTRY_POINTS = "batchramp.workloads"
"""The group under which an installed package registers workloads of its own."""

BUILT_IN = {
    "digits": "8x8 digits of scikit-learn, an MLP; needs no download",
    "fashion_mnist": "Fashion-MNIST, a small CNN; --data: the four gzipped IDX files",
    "cifar10": "CIFAR-10, a small CNN; --data: Hugging Face's Parquet or torchvision's",
}
"""The workloads that come with the package: name to summary. `WORKLOAD` in the module of
that name is the workload."""


def find_workload(name: str, code: UserCode | None = None) -> Workload:
    """Return a built-in workload, or a user's own by `file.py:name` or entry point.

    Args:
        name: A built-in name, a Python file and the name of a `Workload` in it, or the
            name of an entry point.
        code: The files of a run; None reads them now, from the current folder.

    Raises:
        ValueError: There is no such workload, or what the file defines is not one.
    """
    from batchramp.workloads.interface import Workload

    if ":" in name:
        code = code or UserCode()
        with code.importable():
            found = code.load(name)
    elif name in BUILT_IN:
        found = import_module(f"batchramp.workloads.{name}").WORKLOAD
    elif point := find_entry_point(ENTRY_POINTS, name):
        found = point.load()
    else:
        raise ValueError(suggest("workload", name, BUILT_IN))
    if not isinstance(found, Workload):
        raise ValueError(
            f"{name} must be a batchramp.workloads.Workload, got {type(found).__name__}"
        )
    return found


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'batchramp.workloads' has no attribute {name!r}")
    return getattr(import_module("batchramp.workloads.interface"), name)
