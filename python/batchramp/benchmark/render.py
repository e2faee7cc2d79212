"""Tables for the terminal, and the same numbers as JSON."""

from __future__ import annotations

import math
from typing import Any

import polars as pl
from rich.console import Group, RenderableType
from rich.text import Text

from batchramp.benchmark.errors import trial_errors
from batchramp.benchmark.measured import batch_mean_table, measured_table
from batchramp.benchmark.measured_sheets import measured_sheets
from batchramp.benchmark.notes import run_notes
from batchramp.benchmark.results import Results
from batchramp.benchmark.sheet_table import sheet_table
from batchramp.benchmark.sheets import panel_sheets, panel_title
from batchramp.benchmark.tables import (
    budget_table,
    control_table,
    missing_baselines,
    race_table,
)
from batchramp.benchmark.terminal import as_text

MOST_ERRORS = 8
"""Distinct errors that a terminal lists; the page and JSON have all."""

_ABOUT = (
    "A target is reached at the first of two consecutive looks at it; a finished or "
    "diverged trial that never gets there counts as infinity. Failed trials and trials "
    "not run are missing and not counted."
)


def render(results: Results) -> RenderableType:
    """A run's tables for a terminal: per panel, to each target, at the budget, measures.

    Before them what must be taken care of. Fits 80 columns; `rich.print` or a `Console`
    draws it.
    """
    parts: list[RenderableType] = []
    for note in run_notes(results):
        parts += [Text(), _care(note)]
    for panel in panel_sheets(results):
        if panel.title:
            parts += [Text(), as_text(panel.title, style="bold")]
        for note in missing_baselines(results, panel.panel):
            parts += [Text(), _care(note)]
        measured = measured_sheets(results, panel.panel)
        for sheet in (*panel.races, panel.budget, panel.cost, *measured):
            parts += [Text(), sheet_table(sheet)]
    return Group(*parts, Text(), Text(_ABOUT, style="dim"))


def render_errors(results: Results) -> RenderableType | None:
    """Why trials failed, each distinct error once, for a terminal; None if none did."""
    errors = trial_errors(results)
    if not errors:
        return None
    failed = sum(error.trials for error in errors)
    parts = [
        line
        for error in errors[:MOST_ERRORS]
        for line in (
            as_text(error.error, style="red"),
            Text("  ") + as_text(error.place, style="dim"),
        )
    ]
    if len(errors) > MOST_ERRORS:
        more = len(errors) - MOST_ERRORS
        parts.append(as_text(f"and {more} more: report --html or --json shows all"))
    title = "1 trial failed:" if failed == 1 else f"{failed} trials failed:"
    return Group(as_text(title, style="bold"), *parts)


def to_json(results: Results) -> dict[str, Any]:
    """A run's tables as values that `json.dumps` takes with `allow_nan=False`.

    Returns:
        `suite` and `workload` names, `notes` (sentences of what to take care of),
        `errors` (`error`, `traceback`, `trials`, `where`: a list of `schedule` and
        `seeds`), and `panels`, each with its number `panel` (from 0), `title`, and the
        rows of `tables.race_table` (`race`), `tables.budget_table`
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
        "notes": list(run_notes(results)),
        "errors": [error.to_dict() for error in trial_errors(results)],
        "panels": [
            {
                "panel": panel,
                "title": panel_title(results, panel),
                **{name: _records(table, panel) for name, table in tables.items()},
            }
            for panel in panels
        ],
    }


def _care(note: str) -> Text:
    return as_text(f"Take care: {note}", style="yellow")


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
