"""Targets: the values a trial is raced to, read from strings: "metric >= 0.96"."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from typing import Literal

import polars as pl

from batchramp.values import shown

#: Result columns that a target may name.
TARGET_COLUMNS = ("metric", "train_loss", "full_train_loss", "gradient_norm")

LONGEST_TARGET = 100
"""The most characters of a target."""

#: What a metric may be in a workload; as a column it is `metric`.
METRICS = ("accuracy", "acc", "error", "score", "f1", "val_accuracy", "test_accuracy")

#: Names of a loss that is measured in two ways.
LOSSES = ("loss", "training_loss")

_PERCENT = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)%")
_TARGET = re.compile(r"\s*(\w+)\s*(>=|<=)\s*(\S+)\s*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A value of one result column, and the side from which it counts as reached."""

    column: str
    """One of `TARGET_COLUMNS`."""
    direction: Literal[">=", "<="]
    """`>=`: reached at or above the value; `<=`: at or below it."""
    value: float
    """The value raced to, finite, in the column's own unit."""
    text: str
    """The canonical spelling, `column direction value`, which names the target."""

    def met(self) -> pl.Expr:
        """Whether a look meets the target, as an expression over the result rows.

        Returns:
            A Boolean expression; NaN, which a diverged trial records, never meets a
            target (Polars orders NaN above every number), and null stays null.
        """
        column = pl.col(self.column)
        inside = (
            column >= self.value if self.direction == ">=" else column <= self.value
        )
        return inside & column.is_not_nan()


def parse_target(text: str) -> Target:
    """Read a target.

    Args:
        text: A column, `>=` or `<=`, and a finite number: `"full_train_loss <= 0.02"`.

    Returns:
        The target. Spacing does not matter; the number keeps its spelling in `text`.

    Raises:
        ValueError: `text` is no string, has another form, names another column, asks
            for less of the loss with `>=`, or its value is not a finite number.
    """
    if not isinstance(text, str):
        raise ValueError(
            f"target must be a text such as 'metric >= 0.96', got {shown(text)}"
        )
    match = _TARGET.fullmatch(text) if len(text) <= LONGEST_TARGET else None
    if match is None:
        raise ValueError(
            "target must be a column, '>=' or '<=', and a number, such as "
            f"'metric >= 0.96', got {shown(text)}"
        )
    column, direction, number = match.groups()
    if column not in TARGET_COLUMNS:
        nearest = difflib.get_close_matches(column, TARGET_COLUMNS, n=1, cutoff=0.5)
        hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
        if column in METRICS:
            hint = " (the workload's own measure is 'metric', whatever it is)"
        elif column in LOSSES:
            hint = (
                " (a loss is 'train_loss', the mean of the batches' since the look "
                "before, or 'full_train_loss', over the whole training set)"
            )
        raise ValueError(
            f"target must name one of the columns {', '.join(TARGET_COLUMNS)}, "
            f"got {column!r} in {text!r}{hint}"
        )
    if direction == ">=" and column != "metric":
        raise ValueError(
            f"target on {column} must be an upper limit ('<='), got {text!r}"
        )
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        hint = ""
        if _PERCENT.fullmatch(number):
            part = float(number[:-1]) / 100
            hint = (
                f" (write {column} {direction} {part:.15g}: a fraction, no percentage)"
            )
        raise ValueError(
            f"target value must be a finite number, got {number!r} in {text!r}{hint}"
        )
    return Target(
        column=column,
        direction=">=" if direction == ">=" else "<=",
        value=value,
        text=f"{column} {direction} {number}",
    )
