"""Charts of what was measured: the mean gradient of a batch, and sharpness by loss."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from batchramp.benchmark.drawing import (
    INK,
    Chart,
    entry_style,
    legend,
    make_figure,
    name_in_chart,
    own_style,
    plain,
    to_svg,
)
from batchramp.benchmark.measured import batch_mean_points, batch_mean_table
from batchramp.benchmark.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@own_style()
def measured_charts(results: Results, panel: int) -> tuple[Chart, ...]:
    """A panel's charts of its measures; empty where it measured none of them."""
    charts = []
    for key, title, draw in (
        ("batch-mean", "Variance of a batch's mean gradient", _draw_batch_mean),
        ("sharpness", "Sharpness on the way down", _draw_sharpness),
    ):
        figure = make_figure(7, 3.9)
        axis = figure.subplots()
        description = draw(axis, results, panel)
        if description:
            legend(figure, axis)
            svg = to_svg(figure, f"{key}-{panel}")
            charts.append(Chart(title=title, svg=svg, description=description))
    return tuple(charts)


@own_style()
def write_measured_chart(results: Results, path: str | Path, panel: int = 0) -> None:
    """Draw both charts of a panel side by side into one picture.

    Args:
        results: A run.
        path: File to write; its suffix (`.png`, `.svg`, `.pdf`) is its format.
        panel: Number of the panel, from 0.

    Raises:
        ValueError: The panel measured neither the batch mean nor sharpness.
    """
    figure: Figure = make_figure(10, 4.2)
    axes = figure.subplots(1, 2)
    drawn = [
        draw(axis, results, panel)
        for axis, draw in zip(axes, (_draw_batch_mean, _draw_sharpness), strict=True)
    ]
    if not all(drawn):
        raise ValueError(
            f"panel {panel} must have measured batch_mean, variance, sharpness and "
            "full_train_loss to draw them"
        )
    legend(figure, axes[1])
    figure.savefig(Path(path), dpi=150, facecolor="white")


def _draw_batch_mean(axis: Axes, results: Results, panel: int) -> str:
    """Every measured variance over the per-sample one, and the line it should lie on."""
    points = batch_mean_points(results)
    points = points if points.is_empty() else points.filter(panel=panel)
    if points.is_empty():
        return ""
    for place, label in enumerate(_order(results, panel)):
        mine = points.filter(schedule=label)
        color, _ = entry_style(place)
        axis.plot(
            *(mine["share"].to_numpy(), mine["spread"].to_numpy()),
            *("o",),
            color=color,
            markersize=3.5,
            alpha=0.5,
            label=name_in_chart(label),
        )
    ends = np.array([points["share"].min(), points["share"].max()], dtype=np.float64)
    axis.plot(ends, ends, "--", color=INK, linewidth=0.9, label="expected")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("1/B - 1/N")
    axis.set_ylabel("variance of the batch mean\nover that of a sample")
    plain(axis)
    row = batch_mean_table(results).filter(panel=panel).to_dicts()[0]
    told = "one batch size" if row["slope"] is None else f"slope {row['slope']:.4g}"
    return (
        "Variance of a batch's mean gradient over the per-sample variance, against 1/B - "
        f"1/N, both logarithmic, with the line on which they are equal: {told}."
    )


def _draw_sharpness(axis: Axes, results: Results, panel: int) -> str:
    """Median sharpness against median loss, look by look, over the finished trials."""
    wanted = ("sharpness", "full_train_loss")
    rows = results.rows.filter(
        pl.col("status") == "finished",
        pl.col(*wanted).is_finite(),
        pl.col("sharpness") > 0,
        panel=panel,
    ).sort("position")
    rows = rows.with_columns(look=pl.int_range(pl.len()).over("trial"))
    told = []
    for place, label in enumerate(_order(results, panel)):
        looks = (
            rows.filter(schedule=label)
            .group_by("look", maintain_order=True)
            .agg(pl.col(*wanted).median())
        )
        if looks.is_empty():
            continue
        color, dashes = entry_style(place)
        x: Any = looks["full_train_loss"].to_numpy()
        y: Any = looks["sharpness"].to_numpy()
        axis.plot(x, y, dashes, color=color, linewidth=1.5, label=name_in_chart(label))
        axis.plot(x[-1:], y[-1:], "o", color=color, markersize=6)
        told.append(f"{label}: {y[-1]:.3g} at loss {x[-1]:.3g}")
    if told:
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("full train loss")
        axis.set_ylabel("sharpness")
        axis.invert_xaxis()
        plain(axis)
    return "; ".join(told)


def _order(results: Results, panel: int) -> list[str]:
    return results.entries.filter(panel=panel)["schedule"].to_list()
