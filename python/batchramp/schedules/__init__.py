"""Schedules of batch size, learning rate and momentum: values and rules, no torch."""

from batchramp.schedules.checks import first_settings
from batchramp.schedules.interface import (
    BOUNDARIES,
    EVIDENCE,
    MICRO_BATCHES,
    Evidence,
    Horizon,
    Mark,
    MicroBatchEvidence,
    Progress,
    Schedule,
    Settings,
)
from batchramp.schedules.plan import Plan, Stage, plan
from batchramp.schedules.registry import (
    ENTRY_POINTS,
    Description,
    Parameter,
    describe,
    load,
    make,
    names,
    summaries,
)

__all__ = [
    "BOUNDARIES",
    "ENTRY_POINTS",
    "EVIDENCE",
    "MICRO_BATCHES",
    "Description",
    "Evidence",
    "Horizon",
    "Mark",
    "MicroBatchEvidence",
    "Parameter",
    "Plan",
    "Progress",
    "Schedule",
    "Settings",
    "Stage",
    "describe",
    "first_settings",
    "load",
    "make",
    "names",
    "plan",
    "summaries",
]
