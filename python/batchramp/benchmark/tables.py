"""The tables of a run: the race to each target, and the fixed budget.

Everything is derived from recorded looks, so other targets need no other trials. Rows
keep the suite's order. Failed trials and trials not run yet are missing and never
counted; a trial that completed its budget or diverged without reaching a target has
reached it at infinity on every axis.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import polars as pl

from batchramp.benchmark import statistics
from batchramp.benchmark.passages import AXES, parse_targets, passages
from batchramp.benchmark.results import Results

ADMISSIBLE_SHARE = 0.8
"""Least share of the baseline's passages past a schedule's first change, for a race."""

NOT_YET_DIFFERENT = "not yet different"
NOT_MEASURED = "not measured"

_RACED = ("updates", "train_seconds")


def race_table(results: Results) -> pl.DataFrame:
    """Who reached which target how soon, beside the baseline.

    Returns:
        One row per entry and target. Medians and their intervals are over `trials`,
        with `inf` for "not reached"; they are null where no trial counts.

        - `panel`, `schedule`, `target`, `baseline`, `is_baseline`, `tuning`
        - `seeds`: asked for; `trials`: counted; `missing`: the rest; `reached`
        - `updates`, `train_seconds`, each with `_low` and `_high`: the median and its
          order-statistic interval, whose exact level is `level`, and whose
          `interval_kind` is `order`, or `range` where no interval has the level asked
        - `samples`, `epoch`: medians
        - `single_reached`, `single_updates`: by the first look at the target alone
        - `speedup_updates`, `speedup_seconds`, each with `_low` and `_high`: the
          baseline's median over the schedule's, with the percentile bootstrap at
          `speedup_level`; `speedup_updates_note` and `speedup_seconds_note` say why
          something is null. All null for the baseline itself
        - `superiority_updates`, `superiority_seconds`: probability that a trial of the
          schedule gets there before one of the baseline's, ties and shared misses half
        - `p_updates`, `p_seconds`: exact permutation rank test of that, adjusted by
          Holm over all contrasts of the panel on that axis
        - `after_first_change`: share of the baseline's passages, misses included, whose
          position lies past the schedule's first change of batch size or stepped rate;
          null where it has none
        - `verdict_note`: `not yet different` where that share is below
          `ADMISSIBLE_SHARE` (most of the race was the same trajectory, or the
          baseline's race was over before the schedule did anything), `not measured`
          where trials exist and none measured the target, else empty
    """
    samples = _samples(passages(results))
    ran = set(results.rows.filter(pl.col("status") != "failed")["schedule"])
    rows = []
    for entry in results.entries.iter_rows(named=True):
        panel, label, baseline = entry["panel"], entry["schedule"], entry["baseline"]
        for target in parse_targets(entry["targets"]):
            mine = samples.get((panel, label, target.text), {})
            other = samples.get((panel, baseline, target.text), {})
            row = {
                "panel": panel,
                "schedule": label,
                "target": target.text,
                "baseline": baseline,
                "is_baseline": label == baseline,
                "tuning": entry["tuning"],
                "seeds": entry["seeds"],
                **_race_medians(mine, entry["seeds"]),
                **_contrast(mine, {} if label == baseline else other),
                **_admissibility(entry, other, _first_change(results, entry)),
            }
            if not row["trials"] and label in ran:
                row["verdict_note"] = NOT_MEASURED
            rows.append(row)
    _adjust(rows)
    return pl.DataFrame(rows, infer_schema_length=None)


def budget_table(results: Results) -> pl.DataFrame:
    """What each schedule reached with the whole budget, and what that cost.

    Returns:
        One row per entry.

        - `panel`, `schedule`, `baseline`, `is_baseline`, `tuning`, `seeds`
        - `finished`, `diverged`, `failed`, `missing`: trials; `missing` are neither of
          the first two
        - `metric` with `_low` and `_high`: mean at the end of the finished trials with
          Student's t interval at `metric_level`; `metric_deviation`: their standard
          deviation, divisor n - 1; `metric_trials`: how many they are
        - `metric_difference` with `_low` and `_high`: that mean less the baseline's,
          Welch's t interval
        - `full_train_loss` with `_low` and `_high`: median of the last measured values
          with the order-statistic interval at `loss_level`; a diverged trial counts as
          `inf`; null where nothing was measured
        - `gradient_norm` with `_low` and `_high`: likewise the median, and the range
        - `planned_updates`: null for an adaptive schedule
        - `updates`, `samples`, `epoch`, `train_seconds`, `total_seconds`,
          `evaluation_seconds`, `compile_seconds`: medians of the finished trials;
          `train_seconds_low` and `_high`: order-statistic interval at
          `train_seconds_level`
    """
    ends = _ends(results)
    rows = []
    for entry in results.entries.iter_rows(named=True):
        mine = ends.filter(panel=entry["panel"], schedule=entry["schedule"])
        other = ends.filter(panel=entry["panel"], schedule=entry["baseline"])
        rows.append(_budget_row(entry, mine, other))
    return pl.DataFrame(rows, infer_schema_length=None)


def control_table(results: Results) -> pl.DataFrame:
    """The A/A control: each baseline against itself, in two halves of its seeds.

    A ratio other than 1 is noise here, so it shows what the races can tell apart.

    Returns:
        One row per panel, baseline, target and quantity (`updates`, `train_seconds`):
        `trials`; `first` and `second`: the trials of each half, which take turns by
        seed; `ratio`, `low`, `high`, `level`, `method`, `note` of first over second as
        `statistics.ratio` gives them (geometric means, or medians where a trial
        missed); `detectable_ratio`: the speed-up that a two-sided test at 5% would find
        with 80% power, were both schedules as noisy as this one; null where one missed.
    """
    rows = []
    samples = _samples(passages(results))
    baselines = results.entries.select("panel", "baseline").unique(maintain_order=True)
    for (panel, label, target), values in samples.items():
        if baselines.filter(panel=panel, baseline=label).is_empty():
            continue
        for quantity in _RACED:
            first, second = values[quantity][::2], values[quantity][1::2]
            ratio = asdict(statistics.ratio(first, second))
            rows.append(
                {
                    "panel": panel,
                    "baseline": label,
                    "target": target,
                    "quantity": quantity,
                    "trials": len(values[quantity]),
                    "first": len(first),
                    "second": len(second),
                    "ratio": ratio.pop("estimate"),
                    **ratio,
                    "detectable_ratio": statistics.detectable_ratio(values[quantity]),
                }
            )
    return pl.DataFrame(rows, infer_schema_length=None)


def missing_baselines(results: Results, panel: int) -> tuple[str, ...]:
    """What a panel lacks of the baselines that keep a comparison honest.

    Those are the constant batch at the panel's largest rate, without which a larger
    rate passes for a better schedule, and the constant batch with a cosine, tuned.
    """
    missing: list[str] = results.suite["panel"][panel].get("missing_baselines", [])
    return tuple(missing)


def _samples(
    passed: pl.DataFrame,
) -> dict[tuple[int, str, str], dict[str, list[float]]]:
    """Columns of passages as lists in seed order, by (panel, schedule, target)."""
    keys = ["panel", "schedule", "target"]
    columns = [*AXES, "single_updates"]
    grouped = passed.group_by(keys, maintain_order=True).agg(columns)
    return {
        (row["panel"], row["schedule"], row["target"]): {
            name: row[name] for name in columns
        }
        for row in grouped.iter_rows(named=True)
    }


def _race_medians(mine: dict[str, list[float]], seeds: int) -> dict[str, Any]:
    updates = statistics.median_interval(mine.get("updates", []))
    seconds = statistics.median_interval(mine.get("train_seconds", []))
    single = mine.get("single_updates", [])
    return {
        "trials": updates.n,
        "reached": sum(map(math.isfinite, mine.get("updates", []))),
        "missing": max(seeds - updates.n, 0),
        "updates": updates.estimate,
        "updates_low": updates.low,
        "updates_high": updates.high,
        "train_seconds": seconds.estimate,
        "train_seconds_low": seconds.low,
        "train_seconds_high": seconds.high,
        "level": updates.level,
        "interval_kind": updates.kind,
        "samples": statistics.median(mine.get("samples", [])),
        "epoch": statistics.median(mine.get("epoch", [])),
        "single_reached": sum(map(math.isfinite, single)),
        "single_updates": statistics.median(single),
    }


def _contrast(
    mine: dict[str, list[float]], baseline: dict[str, list[float]]
) -> dict[str, Any]:
    row: dict[str, Any] = {"speedup_level": None}
    for axis in _RACED:
        name = axis.removeprefix("train_")
        values, others = mine.get(axis, []), baseline.get(axis, [])
        speedup = statistics.ratio_of_medians(others, values)
        contrasted = bool(values and others)
        p_value, superiority = (
            statistics.rank_test(values, others) if contrasted else (None, None)
        )
        row |= {
            f"speedup_{name}": speedup.estimate,
            f"speedup_{name}_low": speedup.low,
            f"speedup_{name}_high": speedup.high,
            f"speedup_{name}_note": speedup.note if contrasted else "",
            f"superiority_{name}": superiority,
            f"p_{name}": p_value,
            "speedup_level": speedup.level or row["speedup_level"],
        }
    return row


def _first_change(results: Results, entry: dict[str, Any]) -> float | None:
    """Position from which a schedule differs from a constant one; None: it never does.

    Of a plan, it is known. Of an adaptive schedule it is the look at which the size was
    first another than its parameters begin with: the median over the trials that show
    one.
    """
    if entry["planned_updates"] is not None:
        planned: int | None = entry["first_change"]
        return planned
    written = results.suite["panel"][entry["panel"]]["entry"]
    parameters = next(e for e in written if e["label"] == entry["schedule"])[
        "parameters"
    ]
    initial = parameters.get("batch_size")
    rows = results.rows.filter(schedule=entry["schedule"]).sort("position")
    changes = (
        rows.filter(pl.col("batch_size") != initial).group_by("trial").first()
        if initial is not None
        else rows.clear()
    )
    return statistics.median(changes["position"].to_list())


def _admissibility(
    entry: dict[str, Any],
    baseline: dict[str, list[float]],
    change: float | None,
) -> dict[str, Any]:
    positions = baseline.get("position", [])
    own_baseline = entry["schedule"] == entry["baseline"]
    if own_baseline or change is None or not positions:
        return {"after_first_change": None, "verdict_note": ""}
    share = sum(position > change for position in positions) / len(positions)
    note = "" if share >= ADMISSIBLE_SHARE else NOT_YET_DIFFERENT
    return {"after_first_change": share, "verdict_note": note}


def _adjust(rows: list[dict[str, Any]]) -> None:
    """Replace the p-values of each panel and axis by Holm's, in place."""
    for panel in {row["panel"] for row in rows}:
        for name in ("p_updates", "p_seconds"):
            family = [
                row for row in rows if row["panel"] == panel and row[name] is not None
            ]
            adjusted = statistics.holm([row[name] for row in family])
            for row, p_value in zip(family, adjusted, strict=True):
                row[name] = p_value


def _ends(results: Results) -> pl.DataFrame:
    """One row per trial, in seed order: its end row, with the last measured values."""
    return (
        results.rows.sort("seed", "trial", "position")
        .group_by("panel", "schedule", "trial", maintain_order=True)
        .agg(
            pl.exclude("full_train_loss", "gradient_norm").last(),
            pl.col("full_train_loss", "gradient_norm").drop_nulls().last(),
        )
    )


def _budget_row(
    entry: dict[str, Any], mine: pl.DataFrame, baseline: pl.DataFrame
) -> dict[str, Any]:
    finished = mine.filter(status="finished")
    counts = {
        status: mine.filter(status=status).height
        for status in ("finished", "diverged", "failed")
    }
    own_baseline = entry["schedule"] == entry["baseline"]
    metrics = _metrics(mine)
    metric = statistics.mean_interval(metrics)
    difference = statistics.mean_difference(
        metrics, [] if own_baseline else _metrics(baseline)
    )
    loss = statistics.median_interval(_final_values(mine, "full_train_loss"))
    norms = _final_values(mine, "gradient_norm")
    seconds = statistics.median_interval(finished["train_seconds"].to_list())
    done = ("updates", "samples", "epoch", "total_seconds")
    apart = ("evaluation_seconds", "compile_seconds")
    return {
        "panel": entry["panel"],
        "schedule": entry["schedule"],
        "baseline": entry["baseline"],
        "is_baseline": own_baseline,
        "tuning": entry["tuning"],
        "seeds": entry["seeds"],
        **counts,
        "missing": max(entry["seeds"] - counts["finished"] - counts["diverged"], 0),
        "metric": metric.estimate,
        "metric_low": metric.low,
        "metric_high": metric.high,
        "metric_level": metric.level,
        "metric_deviation": pl.Series(metrics, dtype=pl.Float64).std(),
        "metric_trials": metric.n,
        "metric_difference": difference.estimate,
        "metric_difference_low": difference.low,
        "metric_difference_high": difference.high,
        "full_train_loss": loss.estimate,
        "full_train_loss_low": loss.low,
        "full_train_loss_high": loss.high,
        "loss_level": loss.level,
        "gradient_norm": statistics.median(norms),
        "gradient_norm_low": min(norms, default=None),
        "gradient_norm_high": max(norms, default=None),
        "planned_updates": entry["planned_updates"],
        "train_seconds": seconds.estimate,
        "train_seconds_low": seconds.low,
        "train_seconds_high": seconds.high,
        "train_seconds_level": seconds.level,
        **{
            name: statistics.median(finished[name].to_list())
            for name in (*done, *apart)
        },
    }


def _metrics(ends: pl.DataFrame) -> list[float]:
    finished = ends.filter(pl.col("status") == "finished", pl.col("metric").is_finite())
    return finished["metric"].to_list()


def _final_values(ends: pl.DataFrame, column: str) -> list[float]:
    """Last measured values, `inf` for a diverged trial; empty if not measured."""
    counted = ends.filter(pl.col("status") != "failed")
    finished = counted.filter(status="finished")
    if not finished.is_empty() and finished[column].drop_nulls().is_empty():
        return []
    worst = (pl.col("status") == "diverged") | pl.col(column).is_nan()
    return (
        counted.select(pl.when(worst).then(math.inf).otherwise(pl.col(column)))
        .to_series()
        .drop_nulls()
        .to_list()
    )
