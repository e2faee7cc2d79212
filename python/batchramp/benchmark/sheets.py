"""A run's tables as text: the one layer beneath the terminal and the page.

What a number looks like, what a miss is called and which level an interval has is
decided here once, so both show the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import polars as pl

from batchramp.benchmark.results import Results
from batchramp.benchmark.tables import (
    NOT_MEASURED,
    NOT_YET_DIFFERENT,
    budget_table,
    control_table,
    race_table,
)

NOT_REACHED = "not reached"
NOTHING = "-"

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cell:
    """One entry of a table."""

    main: str
    """The number, or what stands in its place."""
    detail: str = ""
    """Its interval or a remark: a second, quieter line."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; the first one names the row."""

    name: str
    page_only: bool = False
    """Whether a terminal is too narrow for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sheet:
    """A table as text."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    """One cell per column."""
    baselines: tuple[bool, ...]
    """Which rows are their panel's baseline."""
    caption: str
    """What its intervals are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PanelSheets:
    """The tables of one panel."""

    panel: int
    title: str
    races: tuple[Sheet, ...]
    """One per target."""
    budget: Sheet
    cost: Sheet


def panel_sheets(results: Results) -> list[PanelSheets]:
    """Every table of a run, panel by panel, in the suite's order."""
    race, budget, control = (
        race_table(results),
        budget_table(results),
        control_table(results),
    )
    panels = results.entries["panel"].unique(maintain_order=True).to_list()
    return [
        PanelSheets(
            panel=panel,
            title=panel_title(results, panel),
            races=_race_sheets(_of(race, panel), _of(control, panel)),
            budget=_budget_sheet(_of(budget, panel)),
            cost=_cost_sheet(_of(budget, panel)),
        )
        for panel in panels
    ]


def panel_title(results: Results, panel: int) -> str:
    """What a panel asks, in its own words or by its settings, numbered from 1."""
    tables = results.suite.get("panel", [])
    table = tables[panel] if panel < len(tables) else {}
    title = table.get("title") or ", ".join(
        f"{key} {value}"
        for key, value in table.items()
        if isinstance(value, int | float) and value
    )
    number = f"Panel {panel + 1}" if results.entries["panel"].n_unique() > 1 else ""
    return ": ".join(part for part in (number, title) if part)


def significant(value: float, digits: int = 3) -> str:
    """A number with so many significant digits, without an exponent where it reads."""
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if not -4 <= exponent < 7:
        return f"{value:.{digits - 1}e}"
    return f"{value:.{max(0, digits - 1 - exponent)}f}"


def number(value: float | None, digits: int = 3) -> str:
    """A number of a table: `-` for None, `inf` for an infinity."""
    if value is None or math.isnan(value):
        return NOTHING
    return str(value) if math.isinf(value) else significant(value, digits)


def count(value: float | None) -> str:
    """A median of counts: whole, or ending in .5."""
    return NOTHING if value is None else f"{value:.12g}"


def bounds(low: float | None, high: float | None, digits: int = 3) -> str:
    """An interval, `[low, high]`; empty where there is none, or all is not reached."""
    if low is None or high is None or low == math.inf:
        return ""
    return f"[{number(low, digits)}, {number(high, digits)}]"


def percent(level: float) -> str:
    """A level, to a tenth of a percent where it needs that."""
    return f"{100 * level:.1f}".removesuffix(".0") + "%"


def _of(table: pl.DataFrame, panel: int) -> list[Row]:
    return [] if table.is_empty() else table.filter(panel=panel).to_dicts()


def _race_sheets(rows: list[Row], control: list[Row]) -> tuple[Sheet, ...]:
    targets = dict.fromkeys(row["target"] for row in rows)
    return tuple(
        _race_sheet(
            target,
            [row for row in rows if row["target"] == target],
            [row for row in control if row["target"] == target],
        )
        for target in targets
    )


def _race_sheet(target: str, rows: list[Row], control: list[Row]) -> Sheet:
    return Sheet(
        title=f"To {target}",
        columns=(
            Column("schedule"),
            Column("reached"),
            Column("updates"),
            Column("train seconds"),
            Column("speed-up, updates"),
            Column("speed-up, seconds"),
            Column("sooner, updates", page_only=True),
            Column("sooner, seconds", page_only=True),
            Column("by a single look", page_only=True),
        ),
        rows=tuple(
            (
                _name(row, row["verdict_note"]),
                _reached(row),
                _passage(row, "updates", digits=12),
                _passage(row, "train_seconds"),
                _speedup(row, "updates"),
                _speedup(row, "seconds"),
                _superiority(row, "updates"),
                _superiority(row, "seconds"),
                Cell(
                    _miss(row["single_updates"]) or count(row["single_updates"]),
                    f"{row['single_reached']} of {row['trials']}",
                ),
            )
            for row in rows
        ),
        baselines=tuple(row["is_baseline"] for row in rows),
        caption=" ".join(_race_caption(rows, control)),
    )


def _race_caption(rows: list[Row], control: list[Row]) -> list[str]:
    parts = [_levels("Median", rows, "trials", "level")]
    if any(row["speedup_level"] for row in rows):
        level = percent(
            next(row["speedup_level"] for row in rows if row["speedup_level"])
        )
        parts.append(
            "Speed-up: the baseline's median over the schedule's "
            f"[{level}, percentile bootstrap]."
        )
    unknown = {
        row[f"speedup_{axis}_note"]
        for row in rows
        for axis in ("updates", "seconds")
        if row[f"speedup_{axis}_note"].startswith("no ")
    }
    parts += [f"Speed-up: {note}." for note in sorted(unknown)]
    if any(
        row[f"{name}_high"] == math.inf and row[f"{name}_low"] != math.inf
        for row in rows
        for name in ("updates", "train_seconds", "speedup_updates", "speedup_seconds")
    ):
        parts.append(f"inf: {NOT_REACHED}.")
    if any(row["verdict_note"] == NOT_YET_DIFFERENT for row in rows):
        parts.append(
            f"{NOT_YET_DIFFERENT.capitalize()}: under 80% of the baseline's passages "
            "fall after the schedule's first change."
        )
    parts += [_control_text(row) for row in control if row["quantity"] == "updates"]
    return parts


def _control_text(row: Row) -> str:
    """The A/A control of updates as a sentence."""
    interval = bounds(row["low"], row["high"])
    if row["ratio"] is None:
        told = row["note"]
    else:
        told = f"{number(row['ratio'])}x {interval or '(' + row['note'] + ')'}"
    text = (
        f"A/A: {row['baseline']}, {row['first']} of its seeds against the other "
        f"{row['second']}, updates: {told}"
    )
    if row["detectable_ratio"] is not None:
        text += (
            f"; {row['trials']} seeds a side would likely show "
            f"{number(row['detectable_ratio'])}x"
        )
    return text + "."


def _levels(what: str, rows: list[Row], n: str, level: str) -> str:
    """What the intervals of a table are, for every number of trials in it."""
    levels = sorted({(row[n], row[level]) for row in rows if row[level] is not None})
    if not levels:
        return f"{what}; no trial to give an interval."
    told = [
        f"{'interval' if value >= 0.95 else 'range'} at {percent(value)}, n = {trials}"
        for trials, value in reversed(levels)
    ]
    short = any(value < 0.95 for _, value in levels)
    return f"{what} [{'; '.join(told)}]" + (
        " (no 95% interval below n = 6)." if short else "."
    )


def _name(row: Row, note: str = "") -> Cell:
    remarks = (
        "baseline" if row["is_baseline"] else "",
        row["tuning"],
        note if note != NOT_MEASURED else "",
    )
    return Cell(row["schedule"], ", ".join(filter(None, remarks)))


def _reached(row: Row) -> Cell:
    if row["verdict_note"] == NOT_MEASURED:
        return Cell(NOT_MEASURED)
    if not row["trials"]:
        return Cell("no trial", f"{row['missing']} missing")
    remarks = []
    if math.isfinite(row["epoch"]):
        samples = f"{count(row['samples'])} samples"
        remarks += [f"epoch {number(row['epoch'])}", samples]
    if row["missing"]:
        remarks.append(f"{row['missing']} missing")
    return Cell(f"{row['reached']} of {row['trials']}", ", ".join(remarks))


def _miss(value: float | None) -> str:
    return NOT_REACHED if value == math.inf else ""


def _passage(row: Row, name: str, digits: int = 3) -> Cell:
    value = row[name]
    told = count(value) if digits > 3 else number(value, digits)
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if digits > 3 and low is not None and math.isfinite(low):
        return Cell(_miss(value) or told, f"[{count(low)}, {count(high)}]")
    return Cell(_miss(value) or told, bounds(low, high, digits))


def _speedup(row: Row, axis: str) -> Cell:
    if row["is_baseline"]:
        return Cell("1")
    ratio = row[f"speedup_{axis}"]
    # A ratio of 0 or infinity only repeats which side's median is "not reached".
    shown = NOTHING if ratio in (None, 0, math.inf) else f"{number(ratio)}x"
    low, high = row[f"speedup_{axis}_low"], row[f"speedup_{axis}_high"]
    return Cell(shown, "" if high == 0 else bounds(low, high))


def _superiority(row: Row, axis: str) -> Cell:
    share, p_value = row[f"superiority_{axis}"], row[f"p_{axis}"]
    if share is None:
        return Cell(NOTHING)
    shown = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"
    return Cell(f"{100 * share:.0f}%", shown)


def _budget_sheet(rows: list[Row]) -> Sheet:
    return Sheet(
        title="At the fixed budget",
        columns=(
            Column("schedule"),
            Column("trials"),
            Column("metric"),
            Column("metric less baseline's"),
            Column("full train loss"),
            Column("gradient norm"),
        ),
        rows=tuple(
            (
                _name(row),
                _statuses(row),
                _estimate(row, "metric", digits=4),
                _estimate(row, "metric_difference", digits=2),
                _estimate(row, "full_train_loss"),
                _estimate(row, "gradient_norm"),
            )
            for row in rows
        ),
        baselines=tuple(row["is_baseline"] for row in rows),
        caption=(
            "Metric: mean of the finished trials [95%, Student's t] and the difference "
            "from the baseline's [95%, Welch's t]. "
            + _levels(
                "Full train loss: median", _with_counts(rows), "counted", "loss_level"
            )
            + " Gradient norm: median [smallest, largest]. A diverged trial is inf."
        ),
    )


def _cost_sheet(rows: list[Row]) -> Sheet:
    return Sheet(
        title="What the budget cost",
        columns=(
            Column("schedule"),
            Column("updates"),
            Column("samples"),
            Column("train s"),
            Column("evaluation s"),
            Column("compile s"),
            Column("wall s"),
        ),
        rows=tuple(
            (
                _name(row),
                Cell(count(row["updates"]), _planned(row)),
                Cell(count(row["samples"]), f"{number(row['epoch'])} epochs"),
                _estimate(row, "train_seconds"),
                Cell(number(row["evaluation_seconds"])),
                Cell(number(row["compile_seconds"])),
                Cell(number(row["total_seconds"])),
            )
            for row in rows
        ),
        baselines=tuple(row["is_baseline"] for row in rows),
        caption=(
            "Medians of the finished trials. "
            + _levels("Train seconds: median", rows, "finished", "train_seconds_level")
            + " They hold neither evaluation nor compilation; the wall holds all."
        ),
    )


def _with_counts(rows: list[Row]) -> list[Row]:
    return [{**row, "counted": row["finished"] + row["diverged"]} for row in rows]


def _estimate(row: Row, name: str, digits: int = 3) -> Cell:
    return Cell(
        number(row[name], digits),
        bounds(row[f"{name}_low"], row[f"{name}_high"], digits),
    )


def _planned(row: Row) -> str:
    planned = row["planned_updates"]
    if planned is None:
        return "adaptive"
    return "" if planned == row["updates"] else f"planned {planned}"


def _statuses(row: Row) -> Cell:
    unrun = row["missing"] - row["failed"]
    told = [
        f"{number} {name}"
        for name, number in (
            ("diverged", row["diverged"]),
            ("failed", row["failed"]),
            ("not run", max(unrun, 0)),
        )
        if number
    ]
    return Cell(f"{row['finished']} finished", ", ".join(told))
