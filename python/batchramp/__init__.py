"""Benchmark the schedules by which mini-batch SGD sets its batch size.

Everything is imported on first use, so that `plan` and `read_results` work, and start
fast, where torch is not installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from batchramp._rust import __version__

if TYPE_CHECKING:
    from batchramp.benchmark.results import Results, read_results
    from batchramp.benchmark.runner import run
    from batchramp.gradient_variance import GradientVariance, NoiseScale
    from batchramp.sampler import VariableBatchSampler
    from batchramp.schedules import Plan, plan

__all__ = [
    "GradientVariance",
    "NoiseScale",
    "Plan",
    "Results",
    "VariableBatchSampler",
    "__version__",
    "plan",
    "read_results",
    "run",
]

_HOMES = {
    "GradientVariance": "batchramp.gradient_variance",
    "NoiseScale": "batchramp.gradient_variance",
    "Plan": "batchramp.schedules",
    "Results": "batchramp.benchmark.results",
    "VariableBatchSampler": "batchramp.sampler",
    "plan": "batchramp.schedules",
    "read_results": "batchramp.benchmark.results",
    "run": "batchramp.benchmark.runner",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'batchramp' has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        message = f"batchramp.{name} needs torch: pip install 'batchramp[torch]'"
        raise ModuleNotFoundError(message, name="torch") from error
