"""Tables for the terminal, and the same numbers as JSON."""

from __future__ import annotations

import math
from typing import Any

import polars as pl
from rich.console import Group, RenderableType
from rich.text import Text

from batchramp.benchmark.measured import batch_mean_table, measured_table
from batchramp.benchmark.measured_sheets import measured_sheets
from batchramp.benchmark.results import Results
from batchramp.benchmark.sheet_table import sheet_table
from batchramp.benchmark.sheets import panel_sheets, panel_title
from batchramp.benchmark.tables import (
    budget_table,
    control_table,
    missing_baselines,
    race_table,
)

_ABOUT = (
    "A target is reached at the first of two consecutive looks at it; a finished or "
    "diverged trial that never gets there counts as infinity. Failed trials and trials "
    "not run are missing and not counted."
)


def render(results: Results) -> RenderableType:
    """A run's tables for a terminal: per panel, to each target, at the budget, measures.

    Fits 80 columns; `rich.print` or a `Console` draws it.
    """
    parts: list[RenderableType] = []
    for panel in panel_sheets(results):
        if panel.title:
            parts.append(Text(f"\n{panel.title}", style="bold"))
        for note in missing_baselines(results, panel.panel):
            parts += [Text(), Text(f"Take care: {note}", style="yellow")]
        measured = measured_sheets(results, panel.panel)
        for sheet in (*panel.races, panel.budget, panel.cost, *measured):
            parts += [Text(), sheet_table(sheet)]
    return Group(*parts, Text(), Text(_ABOUT, style="dim"))


def to_json(results: Results) -> dict[str, Any]:
    """A run's tables as values that `json.dumps` takes with `allow_nan=False`.

    Returns:
        `suite` and `workload` names, and `panels`, each with its number `panel` (from
        0), `title`, and the rows of `tables.race_table` (`race`), `tables.budget_table`
        (`budget`), `tables.control_table` (`control`), `measured.measured_table`
        (`measured`) and `measured.batch_mean_table` (`batch_mean`). An infinity becomes
        null: `reached` of `trials` says how many trials got there.
    """
    tables = {
        "race": race_table(results),
        "budget": budget_table(results),
        "control": control_table(results),
        "measured": measured_table(results),
        "batch_mean": batch_mean_table(results),
    }
    panels = results.entries["panel"].unique(maintain_order=True).to_list()
    return {
        "suite": results.suite.get("name"),
        "workload": results.suite.get("workload"),
        "panels": [
            {
                "panel": panel,
                "title": panel_title(results, panel),
                **{name: _records(table, panel) for name, table in tables.items()},
            }
            for panel in panels
        ],
    }


def _records(table: pl.DataFrame, panel: int) -> list[dict[str, Any]]:
    if table.is_empty():
        return []
    return [finite(row) for row in table.filter(panel=panel).to_dicts()]


def finite(row: dict[str, Any]) -> dict[str, Any]:
    """A row with null for each infinity and NaN, as JSON needs it."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
