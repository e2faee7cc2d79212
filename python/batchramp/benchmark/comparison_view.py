"""What `batchramp compare` prints, and the same as JSON."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from batchramp.benchmark.comparison import (
    DOUBTFUL,
    FAILING,
    LEARNING,
    SECONDS,
    Comparison,
    ComparisonRow,
    Note,
)
from batchramp.benchmark.sheet_table import sheet_table
from batchramp.benchmark.sheets import (
    NOT_REACHED,
    Cell,
    Column,
    Sheet,
    bounds,
    count,
    number,
    significant,
)
from batchramp.benchmark.terminal import as_text

_TOLD = 2
_DRIFT = "; one run a side: drift between runs is not in it"
_OPENINGS = {0: "Fine", 1: "No", 3: "Cannot tell"}
_STYLES = {0: "green", 1: "red", 3: "yellow"}
_UNITS = {
    "updates": "updates",
    "samples": "samples",
    "train_seconds": "seconds",
    "total_train_seconds": "seconds",
}


def render_comparison(comparison: Comparison) -> RenderableType:
    """The verdict in words, then one table per schedule, for 80 columns."""
    verdict = verdict_in_words(comparison)
    parts: list[RenderableType] = [
        as_text(verdict, style=f"bold {_STYLES[comparison.exit_code]}")
    ]
    parts += [_note(note) for note in comparison.notes]
    for label in dict.fromkeys(row.schedule for row in comparison.rows):
        rows = [row for row in comparison.rows if row.schedule == label]
        parts += [Text(), sheet_table(_sheet(label, rows), name_width=22)]
    return Group(*parts, Text(), Text(_explained(comparison), style="dim"))


def comparison_to_json(comparison: Comparison) -> dict[str, Any]:
    """A comparison as values that `json.dumps` takes with `allow_nan=False`.

    Returns:
        `verdict` in words, `exit_code`, `margin`, `base_runs`, `new_runs`, `family`,
        `notes` with `code` and `text` each, and `rows`, the fields of `ComparisonRow`
        each. An infinity is the string "inf", and null is what there is none of: `high`
        is "inf" of an interval without an upper end, and null without an interval.
    """
    return {
        "verdict": verdict_in_words(comparison),
        "exit_code": comparison.exit_code,
        "margin": comparison.margin,
        "base_runs": comparison.base_runs,
        "new_runs": comparison.new_runs,
        "family": comparison.family,
        "notes": [{"code": note.code, "text": note.text} for note in comparison.notes],
        "rows": [
            {name: "inf" if value == math.inf else value for name, value in row.items()}
            for row in comparison.to_dicts()
        ],
    }


def verdict_in_words(comparison: Comparison) -> str:
    """Whether the gate opens, and why: one sentence that begins Fine, No or Cannot tell."""
    code = comparison.exit_code
    if code == 0:
        return f"{_OPENINGS[code]}: {_why_fine(comparison)}."
    drift = ""
    reasons = [note.text for note in comparison.notes if note.code == code]
    if code == 1:
        failing = [row for row in comparison.rows if row.verdict in FAILING]
        # Learning first: of one slowdown, it is the part that needs no clock.
        failing.sort(
            key=lambda row: (row.quantity not in LEARNING, -round(row.ratio or 0, 9))
        )
        drift = "" if reasons else _drift(comparison, failing)
        reasons += map(_loss, failing)
    else:
        doubtful = [row for row in comparison.rows if row.verdict in DOUBTFUL]
        # Of rows without a pair the notes say why.
        reasons += [
            _doubt(row)
            for row in doubtful
            if row.pairs or row.p is not None or not reasons
        ]
    return f"{_OPENINGS[code]}: {_first(reasons)}{drift}."


def _first(reasons: list[str]) -> str:
    told = "; ".join(reasons[:_TOLD])
    more = len(reasons) - _TOLD
    return f"{told}; and {more} more" if more > 0 else told


def _drift(comparison: Comparison, rows: list[ComparisonRow]) -> str:
    """What to know where nothing but seconds, one run a side, speaks for a verdict."""
    alone = comparison.base_runs == 1 and all(row.quantity in SECONDS for row in rows)
    return _DRIFT if alone else ""


def _why_fine(comparison: Comparison) -> str:
    rows = comparison.rows
    equal = sum(row.verdict == "equal" for row in rows)
    parts = [f"{equal} of {len(rows)} rows equal"]
    margin = f"the margin of {_percent(comparison.margin)}"
    better = [row for row in rows if row.better]
    same = sum(row.verdict == "same" for row in rows) - len(better)
    if same:
        parts.append(f"{same} within {margin}")
    unreached = sum(row.verdict == "not reached" for row in rows)
    if unreached:
        parts.append(f"{unreached} not reached")
    if not better:
        return ", ".join(parts)
    parts.append(f"{len(better)} better by more than {margin}")
    told = _first([_gain(row) for row in better])
    return f"{', '.join(parts)}: {told}{_drift(comparison, better)}"


def _gain(row: ComparisonRow) -> str:
    if row.ratio is None:
        return _ends(row)
    if row.ratio == 0:
        return _gets(row)
    fewer = f"{_percent(1 - row.ratio)} fewer {_UNITS[row.quantity]}"
    return f"{row.schedule} needs {fewer} {_place(row)} ({_pairs(row)})"


def _loss(row: ComparisonRow) -> str:
    if row.verdict == "changed":
        return (
            f"{row.schedule} plans {_planned(row.new)} updates, "
            f"{_planned(row.base)} before"
        )
    if row.quantity == "metric":
        return _metric(row)
    if row.ratio is None or math.isinf(row.ratio):
        return _gets(row)
    more = f"{_percent(row.ratio - 1)} more {_UNITS[row.quantity]}"
    return f"{row.schedule} needs {more} {_place(row)} ({_pairs(row)})"


def _metric(row: ComparisonRow) -> str:
    if row.base_reached + row.new_reached == row.base_trials + row.new_trials:
        return _ends(row)
    ends = f"; {_ends(row)}" if row.pairs else ""
    return f"{row.schedule} has a metric in {_counts(row)}{ends}"


def _ends(row: ComparisonRow) -> str:
    side = f"{number(row.new, 4)}, {number(row.base, 4)} before"
    return f"{row.schedule} ends at a metric of {side} ({_pairs(row)})"


def _gets(row: ComparisonRow) -> str:
    does = "ends its budget" if row.target is None else f"gets {_place(row)}"
    return f"{row.schedule} {does} in {_counts(row)} ({_pairs(row)})"


def _place(row: ComparisonRow) -> str:
    return f"to {row.target}" if row.target else "for its budget"


def _counts(row: ComparisonRow) -> str:
    reached = f"{row.new_reached} of {row.new_trials} trials"
    return f"{reached}, {row.base_reached} of {row.base_trials} before"


def _doubt(row: ComparisonRow) -> str:
    told = f"{row.schedule}, {_quantity(row)}"
    if row.verdict == "not judged":
        return f"{_metric(row)}; {row.note}"
    estimate = row.difference if row.ratio is None else row.ratio
    if row.low is None or estimate is None:
        return f"{told}: {row.note}" if row.note else told
    name = "new / base" if row.difference is None else "new - base"
    return f"{told}: {name} {number(estimate)} {bounds(row.low, row.high)}"


def _note(note: Note) -> Text:
    return as_text(note.text, style="" if note.code else "dim")


def _explained(comparison: Comparison) -> str:
    bar = significant(1 + comparison.margin)
    share = _percent(comparison.margin)
    unit = "seed" if comparison.base_runs == 1 else "seed, seconds by run"
    return (
        f"Paired by {unit}; new over base (metric: new less base), intervals at 95%, "
        f"each alone. slower, worse: beyond the margin, {bar} (metric: {share} of "
        f"base's), at a one-sided 2.5% over {comparison.family} rows together (Holm); "
        "same: the interval ends within it; undecided: neither. equal, changed: "
        "exactly. base and new are of the pairs named."
    )


def _sheet(label: str, rows: list[ComparisonRow]) -> Sheet:
    names = ("quantity", "base", "new", "new / base", "verdict")
    return Sheet(
        title=label,
        columns=tuple(map(Column, names)),
        rows=tuple(
            (
                Cell(_quantity(row)),
                _side(row.base, row, row.base_reached, row.base_trials),
                _side(row.new, row, row.new_reached, row.new_trials),
                Cell(_effect(row), bounds(row.low, row.high)),
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


def _side(value: float | None, row: ComparisonRow, reached: int, trials: int) -> Cell:
    told = _planned(value) if row.quantity == "planned_updates" else number(value, 4)
    missed = NOT_REACHED if row.target else "diverged"
    return Cell(
        missed if value == math.inf else told,
        f"{reached} of {trials}" if trials else "",
    )


def _effect(row: ComparisonRow) -> str:
    if row.difference is None:
        return number(row.ratio)
    return f"{row.difference:+.3g}"


def _remark(row: ComparisonRow) -> str:
    parts = [_pairs(row)]
    if row.better:
        parts.append("better by more than the margin")
    if row.detectable is not None:
        told = number(row.detectable)
        lost = row.quantity == "metric"
        parts.append(
            f"worse would show from a loss of {told}"
            if lost
            else f"slower would show from {told}"
        )
    return "; ".join(part for part in (*parts, row.note) if part)


def _pairs(row: ComparisonRow) -> str:
    return f"{row.pairs} of {row.seeds} pairs"


def _planned(value: float | None) -> str:
    return "adaptively many" if value is None else count(value)


def _percent(share: float) -> str:
    text = significant(100 * share)
    return (text.rstrip("0").rstrip(".") if "." in text else text) + "%"
