"""The tables of `measured` as text."""

from __future__ import annotations

from typing import Any

from batchramp.benchmark.measured import batch_mean_table, measured_table
from batchramp.benchmark.results import Results
from batchramp.benchmark.sheets import Cell, Column, Sheet, bounds, number, percent

_NAMES = {
    "variance": "per-sample variance",
    "noise_scale": "noise scale",
    "sharpness": "sharpness",
    "sharpness_residual": "its residual",
}


def measured_sheets(results: Results, panel: int) -> tuple[Sheet, ...]:
    """A panel's tables of what was measured beside its races; empty if nothing was."""
    measured, means = measured_table(results), batch_mean_table(results)
    sheets = []
    for table, make in ((measured, _measured_sheet), (means, _batch_mean_sheet)):
        rows = [] if table.is_empty() else table.filter(panel=panel).to_dicts()
        if rows:
            sheets.append(make(rows))
    return tuple(sheets)


def _measured_sheet(rows: list[dict[str, Any]]) -> Sheet:
    shown = [name for name in _NAMES if any(row[name] is not None for row in rows)]
    return Sheet(
        title="Measured last",
        columns=(Column("schedule"), *(Column(_NAMES[name]) for name in shown)),
        rows=tuple(
            (Cell(row["schedule"]), *(_cell(row, name) for name in shown))
            for row in rows
        ),
        baselines=tuple(row["is_baseline"] for row in rows),
        caption=(
            "Median [smallest, largest] over the trials, of the whole training set, in "
            "evaluation mode, off the train clock. Schedules that end at different losses "
            "are at different places: a sharpness there is no property of their minima."
        ),
    )


def _batch_mean_sheet(rows: list[dict[str, Any]]) -> Sheet:
    first = rows[0]
    slope = "not fitted for a single size"
    if first["slope"] is not None:
        slope = number(first["slope"], 4)
        if first["slope_low"] is not None:
            slope += f" {bounds(first['slope_low'], first['slope_high'], 4)}"
    return Sheet(
        title="The mean gradient of a batch",
        columns=(
            Column("batch size"),
            Column("variance over expected"),
            Column("squared bias over variance"),
        ),
        rows=tuple(
            (
                Cell(str(row["batch_size"])),
                _cell(row, "expected"),
                _cell(row, "bias"),
            )
            for row in rows
        ),
        baselines=(False,) * len(rows),
        caption=(
            "Expected: the per-sample variance at that look times 1/B - 1/N. Slope of "
            f"log measured against log (1/B - 1/N): {slope}. Means over {first['seeds']} "
            f"seeds [{percent(first['level'])}, Student's t]; a bias whose interval "
            "holds 0 is none that could be seen."
        ),
    )


def _cell(row: dict[str, Any], name: str) -> Cell:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return Cell(number(row[name]), bounds(low, high))
