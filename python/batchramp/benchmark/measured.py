"""What was measured at the looks, as tables: noise, sharpness, and the batch mean."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl

from batchramp.benchmark import statistics
from batchramp.benchmark.results import Results

MEASURES = ("variance", "noise_scale", "sharpness", "sharpness_residual")
"""Columns whose last values `measured_table` compares."""


def measured_table(results: Results) -> pl.DataFrame:
    """What each schedule's trials measured last, which the suite lets be the end.

    Returns:
        One row per schedule with at least one value: `panel`, `schedule`,
        `is_baseline`, `trials`, and for each of `MEASURES` its median over the trials
        that did not fail, with the smallest and the largest (`_low`, `_high`); null
        where not measured. What is not a number counts as infinity.
    """
    last = (
        results.rows.filter(pl.col("status") != "failed")
        .sort("position")
        .group_by("panel", "schedule", "trial")
        .agg(pl.col(*MEASURES).drop_nulls().last().fill_nan(math.inf))
    )
    rows: list[dict[str, Any]] = []
    for entry in results.entries.iter_rows(named=True):
        mine = last.filter(panel=entry["panel"], schedule=entry["schedule"])
        values = {name: mine[name].drop_nulls().to_list() for name in MEASURES}
        if any(values.values()):
            row: dict[str, Any] = {
                "panel": entry["panel"],
                "schedule": entry["schedule"],
                "is_baseline": entry["schedule"] == entry["baseline"],
                "trials": mine.height,
            }
            for name, found in values.items():
                row[name] = statistics.median(found)
                row[f"{name}_low"] = min(found, default=None)
                row[f"{name}_high"] = max(found, default=None)
            rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def batch_mean_points(results: Results) -> pl.DataFrame:
    """Every measurement of a batch's mean gradient, beside what theory expects.

    Returns:
        One row per trial and look with `panel`, `schedule`, `seed`, `batch_size`,
        `share` (1/B - 1/N), `spread` (the measured variance over the per-sample trace
        at that look, of which `share` is the expectation) and `bias` (the estimated
        squared bias over the measured variance, expected 0).
    """
    share = 1 / pl.col("batch_size") - 1 / pl.lit(results.suite.get("num_samples"))
    return (
        results.rows.filter(pl.col("status") != "failed")
        .with_columns(
            share=share,
            spread=pl.col("batch_variance") / pl.col("variance"),
            bias=pl.col("batch_bias") / pl.col("batch_variance"),
        )
        .filter(
            pl.col("spread", "bias").is_finite(),
            pl.col("spread") > 0,
            pl.col("share") > 0,
        )
        .select("panel", "schedule", "seed", "batch_size", "share", "spread", "bias")
    )


def batch_mean_table(results: Results) -> pl.DataFrame:
    """How a batch's mean gradient varies with its size, and whether it is biased.

    Looks of one seed share their draws, so each seed gives one number and the intervals
    are Student's t over the seeds.

    Returns:
        One row per panel and batch size: `seeds`; `expected`, the mean over seeds of the
        measured variance over `variance` * (1/B - 1/N), and `bias`, that of the squared
        bias over the measured variance, each with `_low` and `_high`; and the panel's
        `slope` (with `_low` and `_high`) of the logarithm of the measured variance,
        over the per-sample trace, against that of 1/B - 1/N, fitted for each seed by
        least squares; null below two sizes. Bounds are null below two seeds. `level` is
        that of the intervals.
    """
    points = batch_mean_points(results)
    rows: list[dict[str, Any]] = []
    for (panel,), mine in points.group_by("panel", maintain_order=True):
        slopes = [_slope(part) for _, part in mine.group_by("seed")]
        slope = statistics.mean_interval([s for s in slopes if s is not None])
        of_size = mine.with_columns(expected=pl.col("spread") / pl.col("share"))
        for (size,), part in of_size.sort("batch_size").group_by(
            "batch_size", maintain_order=True
        ):
            by_seed = part.group_by("seed").agg(pl.col("expected", "bias").mean())
            row = {"panel": panel, "batch_size": size, "seeds": by_seed.height}
            for name, interval in (
                ("expected", statistics.mean_interval(by_seed["expected"].to_list())),
                ("bias", statistics.mean_interval(by_seed["bias"].to_list())),
                ("slope", slope),
            ):
                row |= {
                    name: interval.estimate,
                    f"{name}_low": interval.low,
                    f"{name}_high": interval.high,
                }
            rows.append(row | {"level": statistics.LEVEL})
    return pl.DataFrame(rows, infer_schema_length=None)


def _slope(points: pl.DataFrame) -> float | None:
    if points["share"].n_unique() < 2:
        return None
    logarithms = np.log(points.select("share", "spread").to_numpy())
    return float(np.polyfit(logarithms[:, 0], logarithms[:, 1], 1)[0])
