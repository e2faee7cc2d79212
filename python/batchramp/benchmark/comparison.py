"""A comparison as a value: its rows, its notes and the exit code they come to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from batchramp.benchmark.pairing import TO_TARGET

Verdict = Literal[
    "equal",
    "same",
    "slower",
    "worse",
    "changed",
    "undecided",
    "not reached",
    "not judged",
]
Quantity = Literal[
    "planned_updates",
    "updates",
    "samples",
    "train_seconds",
    "metric",
    "total_train_seconds",
]

AT_END: tuple[Quantity, ...] = ("metric", "total_train_seconds")
"""Quantities of a whole trial."""

QUANTITIES: tuple[Quantity, ...] = (
    "planned_updates",
    *TO_TARGET,
    *AT_END,
)
"""What is looked at unless `only` says less, in the order of the rows."""

FAILING: tuple[Verdict, ...] = ("slower", "worse", "changed")
DOUBTFUL: tuple[Verdict, ...] = ("undecided", "not judged")
LEARNING = ("updates", "samples", "metric")
SECONDS = ("train_seconds", "total_train_seconds")


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """Something to know beside the rows."""

    code: Literal[0, 1, 3]
    """What it makes of the exit code: 1 fails, 3 keeps the gate from deciding."""
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonRow:
    """One quantity of one schedule, on both sides."""

    schedule: str
    quantity: Quantity
    """`planned_updates` of the plan; `updates`, `samples` and `train_seconds` to a
    target; `metric` at the end of the budget; `total_train_seconds` of a trial, `inf`
    where it diverged."""
    target: str | None
    """The target, where the quantity has one."""
    base: float | None
    """Of the base's side of `pairs`, the mean of its runs where there are several: the
    geometric mean, of a metric the mean, or the median where one of a pair missed; `inf`
    for "not reached"; None without a pair."""
    new: float | None
    """Of the new side of the same pairs, likewise."""
    base_reached: int
    """Trials of the base (of all its runs) with a finite value, of `base_trials`."""
    base_trials: int
    """Trials of the base on seeds that every run finished or diverged on."""
    new_reached: int
    """Trials of the new side (of all its runs) with one, of `new_trials`."""
    new_trials: int
    pairs: int
    """Seeds that `base` and `new` are of, of `seeds`; `note` says where a test is of
    more: of a metric that one side lacks."""
    seeds: int
    """Seeds that either side has or was asked for."""
    ratio: float | None
    """New over base: above 1 is slower; None where undefined, and for the metric."""
    difference: float | None
    """Of the metric: new less base."""
    low: float | None
    """Bounds of the ratio, or of the metric's difference, at 95%; None where compared
    exactly or no interval can be given."""
    high: float | None
    p: float | None
    """One-sided p-value of being worse by at most the margin, adjusted by Holm over the
    comparison's `family`; None where nothing is tested."""
    verdict: Verdict
    """`equal` or `changed`: compared exactly; `slower`, for the metric `worse`: `p` is
    below .025; `same`: the interval ends at or below the margin; `undecided`: neither;
    `not reached`: on neither side; `not judged`: the metric differs, and no target says
    which way it is better."""
    better: bool
    """Whether the whole interval is better than base by more than the margin; such a
    row is `same`. Not corrected over the rows."""
    detectable: float | None
    """Where undecided: the ratio, or the loss of metric, that would be found slower or
    worse with 80% power, at this spread and this number of rows."""
    note: str
    """Why nothing could be compared, or what to know of the interval; or empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A new run beside a base run."""

    margin: float
    """Slowdown that passes: 0.1 lets 10% through."""
    base_runs: int
    """Runs of the base: 1, or at least 3."""
    new_runs: int
    """Runs of the new side, likewise."""
    family: int
    """Rows that the p-values are corrected over: all but plans and what has no pair, no
    common clock or no known direction."""
    rows: tuple[ComparisonRow, ...]
    notes: tuple[Note, ...]
    """What else there is to know, what fails or cannot be decided first."""

    @property
    def exit_code(self) -> int:
        """1 if a trial of the new side failed or any row is slower, worse or changed.

        Else 3 if a row is undecided or not judged, or something else keeps the gate
        from deciding; else 0.
        """
        verdicts = {row.verdict for row in self.rows}
        codes = {note.code for note in self.notes}
        if 1 in codes or verdicts.intersection(FAILING):
            return 1
        return 3 if 3 in codes or verdicts.intersection(DOUBTFUL) else 0

    def to_dicts(self) -> list[dict[str, Any]]:
        """The rows as dictionaries; values and bounds may be `inf`."""
        return [asdict(row) for row in self.rows]
