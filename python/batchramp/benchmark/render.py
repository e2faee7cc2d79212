"""Tables for the terminal, and the same numbers as JSON."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import polars as pl
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from batchramp.benchmark.measured import batch_mean_table, measured_table
from batchramp.benchmark.measured_sheets import measured_sheets
from batchramp.benchmark.results import Results
from batchramp.benchmark.sheets import (
    NOT_REACHED,
    Cell,
    Column,
    Sheet,
    bounds,
    count,
    number,
    panel_sheets,
    panel_title,
)
from batchramp.benchmark.tables import (
    budget_table,
    control_table,
    missing_baselines,
    race_table,
)

if TYPE_CHECKING:
    from batchramp.benchmark.compare import Comparison, ComparisonRow

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
            parts += [Text(), _table(sheet)]
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


def render_comparison(comparison: Comparison) -> RenderableType:
    """The tables of `batchramp compare`, one per schedule, for 80 columns."""
    labels = dict.fromkeys(row.schedule for row in comparison.rows)
    parts: list[RenderableType] = []
    for label in labels:
        rows = [row for row in comparison.rows if row.schedule == label]
        parts += [_table(_comparison_sheet(label, rows), name_width=24), Text()]
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
        "rows": [_finite(row) for row in comparison.to_dicts()],
    }


def _table(sheet: Sheet, name_width: int = 14) -> Table:
    table = Table(
        title=Text(sheet.title, style="bold"),
        title_justify="left",
        caption=Text(sheet.caption, style="dim") if sheet.caption else None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    names = _name_width(sheet, name_width)
    shown = [
        index for index, column in enumerate(sheet.columns) if not column.page_only
    ]
    for index in shown:
        table.add_column(
            Text(sheet.columns[index].name, style="bold"),
            justify="right" if index else "left",
            overflow="fold",
            no_wrap=not index,
        )
    for row, is_baseline in zip(sheet.rows, sheet.baselines, strict=True):
        name, *others = (_cell_text(row[index]) for index in shown)
        table.add_row(
            _folded(name, names), *others, style="bold" if is_baseline else ""
        )
    return table


def _name_width(sheet: Sheet, least: int) -> int:
    """A width at which names wrap between words, if their words allow."""
    words = (word for row in sheet.rows for word in row[0].main.split())
    return min(24, max([least, *map(len, words)]))


def _folded(text: Text, width: int) -> Text:
    # Rich narrows the widest columns first, and would cut names inside a word.
    return Text("\n").join(text.wrap(Console(width=width), width))


def _cell_text(cell: Cell) -> Text:
    # Text and not a string: an interval in brackets would be read as markup.
    text = Text(cell.main)
    if cell.detail:
        text.append(f"\n{cell.detail}", style="dim")
    return text


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


def _records(table: pl.DataFrame, panel: int) -> list[dict[str, Any]]:
    if table.is_empty():
        return []
    return [_finite(row) for row in table.filter(panel=panel).to_dicts()]


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
