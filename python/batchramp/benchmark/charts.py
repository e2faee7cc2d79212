"""Charts of a run: learning curves on two clocks, and the race to each target."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from batchramp.benchmark.drawing import (
    INK,
    Chart,
    entry_style,
    legend,
    literal,
    make_figure,
    name_in_chart,
    own_style,
    plain,
    to_svg,
)
from batchramp.benchmark.results import Results
from batchramp.benchmark.sheets import NOT_REACHED
from batchramp.benchmark.tables import race_table
from batchramp.benchmark.targets import parse_target

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVES = {
    "full_train_loss": "full train loss",
    "metric": "metric",
    "gradient_norm": "full gradient norm",
    "variance": "per-sample variance of the gradients",
    "noise_scale": "noise scale in samples",
    "sharpness": "sharpness",
}
_RACED = {"updates": "updates", "train_seconds": "train seconds"}


@own_style()
def curve_charts(results: Results, panel: int) -> list[Chart]:
    """A panel's learning curves: one chart for each quantity measured more than once.

    Left against updates, right against epochs: the median over seeds at each look, and
    the band from the smallest to the largest seed. A trial that diverged counts as
    infinitely bad from there on, and a median that is not finite is not drawn.
    """
    rows = _counted(results, panel)
    charts = []
    for column, name in CURVES.items():
        curves = _curves(results, rows, panel, column)
        if all(curve.looks < 2 for curve in curves):
            continue
        figure = make_figure(10, 3.9)
        axes = figure.subplots(1, 2, sharey=True)
        _draw_curves(axes, curves, column, _values(results, panel, column))
        legend(figure, axes[0])
        charts.append(
            Chart(
                title=f"Learning curves: {name}",
                svg=to_svg(figure, f"curve-{panel}-{column}"),
                description=_describe_curves(name, curves),
            )
        )
    return charts


@own_style()
def race_chart(results: Results, panel: int) -> Chart | None:
    """A panel's races: medians and intervals to each target, in updates and seconds.

    A median or a bound that is not reached lies at the right edge. None without a
    target.
    """
    table = race_table(results)
    rows = [] if table.is_empty() else table.filter(panel=panel).to_dicts()
    targets = list(dict.fromkeys(row["target"] for row in rows))
    if not targets:
        return None
    entries = len(rows) / len(targets)
    figure = make_figure(10, len(targets) * (1.1 + 0.3 * entries))
    axes = figure.subplots(len(targets), 2, squeeze=False, sharey="row")
    _draw_races(axes, rows, targets, _order(results, panel))
    told = [
        f"{row['schedule']} to {row['target']}: {row['reached']} of {row['trials']}, "
        f"median {_words(row['updates'])} updates, "
        f"{_words(row['train_seconds'])} train seconds"
        for row in rows
    ]
    return Chart(
        title="Races to each target",
        svg=to_svg(figure, f"race-{panel}"),
        description="; ".join(told) + ".",
    )


@own_style()
def write_chart(results: Results, path: str | Path, panel: int = 0) -> None:
    """Draw one panel's learning curves and races into one picture.

    Args:
        results: A run.
        path: File to write; its suffix (`.png`, `.svg`, `.pdf`) is its format.
        panel: Number of the panel, from 0.

    Raises:
        ValueError: There is no such panel, or it has no target.
    """
    panels = results.entries["panel"].unique().sort().to_list()
    if panel not in panels:
        raise ValueError(f"panel must be one of {panels}, got {panel}")
    table = race_table(results)
    rows = [] if table.is_empty() else table.filter(panel=panel).to_dicts()
    targets = list(dict.fromkeys(row["target"] for row in rows))
    if not targets:
        raise ValueError(f"panel {panel} must have a target to draw its race, got none")
    counted = _counted(results, panel)
    drawn = {
        name: _curves(results, counted, panel, name)
        for name in ("full_train_loss", "metric")
    }
    measured = {
        column: curves
        for column, curves in drawn.items()
        if any(curve.looks > 1 for curve in curves)
    }
    heights = [3.4] * len(measured) + [
        1.1 + 0.3 * len(rows) / len(targets) for _ in targets
    ]
    figure = make_figure(10, sum(heights))
    axes = figure.subplots(
        len(heights), 2, squeeze=False, height_ratios=heights, sharey="row"
    )
    for pair, (column, curves) in zip(axes, measured.items(), strict=False):
        _draw_curves(pair, curves, column, _values(results, panel, column))
    _draw_races(axes[len(measured) :], rows, targets, _order(results, panel))
    if measured:
        legend(figure, axes[0][0])
    figure.savefig(Path(path), dpi=150, facecolor="white")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Curve:
    """One schedule's median and range over seeds, look by look."""

    label: str
    is_baseline: bool
    style: int
    updates: list[float]
    epochs: list[float]
    middle: list[float]
    low: list[float]
    high: list[float]

    @property
    def looks(self) -> int:
        return len(self.middle)


def _counted(results: Results, panel: int) -> pl.DataFrame:
    return results.rows.filter(pl.col("status") != "failed", panel=panel)


def _order(results: Results, panel: int) -> list[str]:
    return results.entries.filter(panel=panel)["schedule"].to_list()


def _values(results: Results, panel: int, column: str) -> list[float]:
    """The targets that a chart of `column` draws as lines."""
    lists = results.entries.filter(panel=panel)["targets"].to_list()
    targets = [parse_target(text) for texts in lists for text in texts]
    return sorted({target.value for target in targets if target.column == column})


def _curves(
    results: Results, rows: pl.DataFrame, panel: int, column: str
) -> list[_Curve]:
    worst = -math.inf if column == "metric" else math.inf
    curves = []
    entries = results.entries.filter(panel=panel)
    for style, entry in enumerate(entries.iter_rows(named=True)):
        looks = rows.filter(
            pl.col(column).is_not_null(), schedule=entry["schedule"]
        ).sort("position")
        # The k-th look of every seed: cadences are equal, so they lie side by side.
        looks = looks.with_columns(look=pl.int_range(pl.len()).over("trial"))
        diverged = rows.filter(schedule=entry["schedule"], status="diverged")
        gone = diverged["trial"].n_unique()
        ended = looks.filter(status="diverged").group_by("trial").len()["len"].to_list()
        points: list[tuple[float, float, float, float, float]] = []
        for _, part in looks.group_by("look", maintain_order=True):
            values = part[column].fill_nan(worst).to_list()
            lost = gone - sum(size > part["look"][0] for size in ended)
            values += [worst] * lost
            points.append(
                (
                    float(np.median(part["updates"].to_numpy())),
                    float(np.median(part["epoch"].to_numpy())),
                    float(np.median(values)),
                    min(values),
                    max(values),
                )
            )
        columns = [list(line) for line in zip(*points, strict=True)] or [[]] * 5
        curves.append(
            _Curve(
                label=entry["schedule"],
                is_baseline=entry["schedule"] == entry["baseline"],
                style=style,
                updates=columns[0],
                epochs=columns[1],
                middle=columns[2],
                low=columns[3],
                high=columns[4],
            )
        )
    return curves


def _draw_curves(
    axes: Any, curves: list[_Curve], column: str, targets: list[float]
) -> None:
    drawn: list[float] = []
    for axis, name in zip(axes, ("updates", "epochs"), strict=True):
        for curve in curves:
            x = np.asarray(getattr(curve, name))
            finite = np.isfinite(curve.middle)
            middle = np.where(finite, curve.middle, np.nan)
            color, dash = entry_style(curve.style)
            axis.plot(
                x,
                middle,
                dash,
                color=color,
                linewidth=2.4 if curve.is_baseline else 1.5,
                label=_named(curve.label, curve.is_baseline),
            )
            low = np.where(np.isfinite(curve.low), curve.low, middle)
            high = np.where(np.isfinite(curve.high), curve.high, middle)
            axis.fill_between(x, low, high, color=color, alpha=0.13, linewidth=0)
            # Past the first fifth: the untrained model would squeeze all the rest.
            drawn += [*low[len(low) // 5 :], *high[len(high) // 5 :]]
        for value in targets:
            axis.axhline(value, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        axis.set_xlabel(name)
    if column == "metric":
        shown = [value for value in (*drawn, *targets) if math.isfinite(value)]
        if shown and max(shown) > min(shown):
            pad = 0.04 * (max(shown) - min(shown))
            axes[0].set_ylim(min(shown) - pad, max(shown) + pad)
    elif all(value > 0 for value in drawn if math.isfinite(value)):
        axes[0].set_yscale("log")
    axes[0].set_ylabel(CURVES[column])
    for axis in axes:
        plain(axis)


def _draw_races(
    axes: Any, rows: list[dict[str, Any]], targets: list[str], order: list[str]
) -> None:
    for pair, target in zip(axes, targets, strict=True):
        racers = [row for row in rows if row["target"] == target]
        for axis, (column, name) in zip(pair, _RACED.items(), strict=True):
            _draw_race(axis, racers, column, order)
            axis.set_xlabel(f"{name} to {name_in_chart(target)}")
        pair[0].set_yticks(
            range(len(racers)),
            [_named(row["schedule"], row["is_baseline"]) for row in racers],
        )
        pair[0].set_ylim(len(racers) - 0.5, -0.5)
        literal(pair[0].get_yticklabels())
        for label, row in zip(pair[0].get_yticklabels(), racers, strict=True):
            label.set_fontweight("bold" if row["is_baseline"] else "normal")


def _draw_race(
    axis: Axes, racers: list[dict[str, Any]], column: str, order: list[str]
) -> None:
    values = [
        value
        for row in racers
        for value in (row[column], row[f"{column}_low"], row[f"{column}_high"])
        if value is not None and 0 < value < math.inf
    ]
    low, high = (min(values), max(values)) if values else (1.0, 10.0)
    logarithmic = high / low > 10
    if logarithmic:
        axis.set_xscale("log")
        left, edge = low / 1.3, high * (high / low) ** 0.12
    else:
        left, edge = 0.0, high * 1.12
    axis.set_xlim(left, edge)
    # In places and not in data: the right edge is where "not reached" is.
    missed = axis.get_yaxis_transform()
    for place, row in enumerate(racers):
        color, _ = entry_style(order.index(row["schedule"]))
        middle = row[column]
        if middle is None:
            axis.text(
                0.5, place, "no trial", transform=missed, va="center", ha="center"
            )
            continue
        bottom, top = row[f"{column}_low"], row[f"{column}_high"]
        if bottom < math.inf:
            axis.plot([max(bottom, left), min(top, edge)], [place] * 2, color=color)
        if top == math.inf:
            axis.plot(1, place, ">", color=color, transform=missed, clip_on=False)
        if middle == math.inf:
            text = f"{NOT_REACHED}, {row['reached']} of {row['trials']}"
            axis.text(
                0.98, place - 0.25, text, transform=missed, ha="right", va="center"
            )
            continue
        marker = "D" if row["is_baseline"] else "o"
        axis.plot(middle, place, marker, color=color, markersize=7)
        if row["is_baseline"]:
            axis.axvline(middle, color=color, linewidth=0.9, linestyle=(0, (2, 3)))
        if row["reached"] < row["trials"]:
            told = f"{row['reached']} of {row['trials']}"
            axis.text(
                0.98, place - 0.25, told, transform=missed, ha="right", va="center"
            )
    plain(axis)


def _named(label: str, is_baseline: bool) -> str:
    label = name_in_chart(label)
    return f"{label} (baseline)" if is_baseline else label


def _describe_curves(name: str, curves: list[_Curve]) -> str:
    told = [
        f"{curve.label}: {_level(curve.middle[-1])} at epoch {curve.epochs[-1]:.4g}, "
        f"update {curve.updates[-1]:.0f}"
        for curve in curves
        if curve.looks
    ]
    return f"Median {name} at the last look. " + "; ".join(told) + "."


def _level(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "diverged"


def _words(value: float | None) -> str:
    if value is None:
        return "no trial"
    return NOT_REACHED if math.isinf(value) else f"{value:.4g}"
