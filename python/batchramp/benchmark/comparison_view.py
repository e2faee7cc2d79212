"""What `batchramp compare` prints, and the same as JSON."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from batchramp.benchmark.compare import Comparison, ComparisonRow
from batchramp.benchmark.render import finite
from batchramp.benchmark.sheet_table import sheet_table
from batchramp.benchmark.sheets import (
    NOT_REACHED,
    Cell,
    Column,
    Sheet,
    bounds,
    count,
    number,
)


def render_comparison(comparison: Comparison) -> RenderableType:
    """The tables of `batchramp compare`, one per schedule, for 80 columns."""
    labels = dict.fromkeys(row.schedule for row in comparison.rows)
    parts: list[RenderableType] = []
    for label in labels:
        rows = [row for row in comparison.rows if row.schedule == label]
        parts += [sheet_table(_comparison_sheet(label, rows), name_width=24), Text()]
    explained = (
        "New over base, intervals at 95%. slower: the interval lies above "
        f"{1 + comparison.margin:g}; same: it ends at or below; undecided: neither. "
        "equal and changed: compared exactly. inf: not reached."
    )
    notes = [Text(note) for note in comparison.notes]
    return Group(*parts, *notes, Text(explained, style="dim"))


def comparison_to_json(comparison: Comparison) -> dict[str, Any]:
    """A comparison as values that `json.dumps` takes with `allow_nan=False`."""
    return {
        "margin": comparison.margin,
        "exit_code": comparison.exit_code,
        "notes": list(comparison.notes),
        "rows": [finite(row) for row in comparison.to_dicts()],
    }


def _comparison_sheet(label: str, rows: list[ComparisonRow]) -> Sheet:
    names = ("quantity", "base", "new", "new / base", "verdict")
    return Sheet(
        title=label,
        columns=tuple(map(Column, names)),
        rows=tuple(
            (
                Cell(_quantity(row)),
                _side(row.base, row.quantity, row.base_reached, row.base_trials),
                _side(row.new, row.quantity, row.new_reached, row.new_trials),
                Cell(number(row.ratio), bounds(row.low, row.high)),
                Cell(row.verdict, _remark(row)),
            )
            for row in rows
        ),
        baselines=(False,) * len(rows),
        caption="",
    )


def _quantity(row: ComparisonRow) -> str:
    name = row.quantity.replace("_", " ")
    return name if row.target is None else f"{name} to {row.target}"


def _side(value: float | None, quantity: str, reached: int, trials: int) -> Cell:
    told = count(value) if quantity == "planned_updates" else number(value, 4)
    return Cell(
        NOT_REACHED if value == math.inf else told,
        f"{reached} of {trials}" if trials else "",
    )


def _remark(row: ComparisonRow) -> str:
    if row.detectable is None:
        return row.note
    return f"slower would show from {number(row.detectable)}"
