"""First passages: when each trial reached each target, from its recorded looks."""

from __future__ import annotations

import math
from collections.abc import Iterable

import polars as pl

from batchramp.benchmark.results import Results
from batchramp.benchmark.targets import Target, parse_target

AXES = ("updates", "samples", "position", "epoch", "train_seconds", "total_seconds")
"""Columns in which a passage is told."""

_TRIAL = ["panel", "schedule", "trial"]


def passages(results: Results) -> pl.DataFrame:
    """When each trial reached each target.

    A passage is the first of two consecutive looks at the target, consecutive among the
    looks that measured its column; so a target first met at the last look is a miss.
    There is no interpolation: the true passage lies between `previous_position` and
    `position`.

    Returns:
        One row per trial and target, in the suite's order, then by seed. Left out are
        failed trials and those that did not measure the column at two looks past
        position 0 (but a diverged one, where others of its panel did, is a miss).

        - `panel`, `schedule`, `trial`, `seed`, `status`: as in the result rows
        - `target`: canonical text
        - `reached`: whether it was, confirmed
        - `updates`, `samples`, `position`, `epoch`, `train_seconds`, `total_seconds`:
          float64 at the passage, `inf` for a miss
        - `previous_position`: of the look before the passage; null for a miss, or
          where the first look was the passage
        - `single_updates`, `single_samples` and so on: at the first look at the target,
          confirmed or not; `inf` where there is none
    """
    parts = []
    for order, entry in enumerate(results.entries.iter_rows(named=True)):
        of_panel = results.rows.filter(panel=entry["panel"]).filter(
            pl.col("status") != "failed"
        )
        rows = of_panel.filter(schedule=entry["schedule"])
        for rank, target in enumerate(parse_targets(entry["targets"])):
            part = _passages_to(target, rows, _is_measured(target, of_panel))
            parts.append(part.with_columns(order=order, rank=rank))
    if not parts:  # a suite without targets still has its budget table
        return _passages_to(parse_target("metric >= 0"), results.rows.clear(), False)
    return pl.concat(parts).sort("order", "rank", "seed", "trial").drop("order", "rank")


def parse_targets(texts: Iterable[str]) -> list[Target]:
    """Read targets, each of them once."""
    targets = {target.text: target for target in map(parse_target, texts)}
    return list(targets.values())


def _is_measured(target: Target, rows: pl.DataFrame) -> bool:
    """Whether some trial measured the target's column often enough to confirm it.

    Where every trial diverged too soon for that, all are misses.
    """
    if rows.filter(status="finished").is_empty():
        return True
    looks = _looks(target, rows).group_by(_TRIAL).len()
    return not looks.filter(pl.col("len") >= 2).is_empty()


def _looks(target: Target, rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(pl.col(target.column).is_not_null(), pl.col("position") > 0)


def _passages_to(
    target: Target, rows: pl.DataFrame, measured_by_others: bool
) -> pl.DataFrame:
    looks = (
        rows.filter(pl.col(target.column).is_not_null())
        .sort("position")
        .with_columns(met=target.met())
        .with_columns(
            confirmed=pl.col("met")
            & pl.col("met").shift(-1, fill_value=False).over(_TRIAL),
            previous_position=pl.col("position").shift(1).over(_TRIAL),
        )
    )
    passed = looks.filter("confirmed").group_by(_TRIAL, maintain_order=True).first()
    single = looks.filter("met").group_by(_TRIAL, maintain_order=True).first()
    counts = _looks(target, rows).group_by(_TRIAL).agg(looks=pl.len())
    return (
        rows.select(*_TRIAL, "seed", "status")
        .unique(_TRIAL)
        .join(counts, on=_TRIAL, how="left")
        .filter(
            (pl.col("looks") >= 2)
            | ((pl.col("status") == "diverged") & measured_by_others)
        )
        .join(passed.select(*_TRIAL, *AXES, "previous_position"), _TRIAL, how="left")
        .join(
            single.select(*_TRIAL, pl.col(AXES).name.prefix("single_")),
            _TRIAL,
            how="left",
        )
        .select(
            *_TRIAL,
            "seed",
            "status",
            target=pl.lit(target.text),
            reached=pl.col("position").is_not_null(),
            **{
                name: pl.col(name).cast(pl.Float64).fill_null(math.inf) for name in AXES
            },
            previous_position=pl.col("previous_position"),
            **{
                f"single_{name}": pl.col(f"single_{name}")
                .cast(pl.Float64)
                .fill_null(math.inf)
                for name in AXES
            },
        )
    )
