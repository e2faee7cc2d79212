"""The tuning search behind a panel's rates, as a report shows it."""

from __future__ import annotations

import math
from typing import Any

from batchramp.benchmark.results import Results
from batchramp.benchmark.sheets import Cell, Column, Sheet, number


def tuning_sheet(results: Results, panel: int) -> Sheet | None:
    """What was tried for each tuned schedule of a panel, and what it scored.

    Returns:
        One row per schedule with a search: the rate chosen, the number of rates and
        seeds, and the curve; None where nothing was tuned.
    """
    entries: list[dict[str, Any]] = results.suite["panel"][panel]["entry"]
    tuned = [entry for entry in entries if "search" in entry]
    if not tuned:
        return None
    score = results.suite.get("search_score", "lower is better")
    trials = sum(
        len(entry["search"]["lr"]) * entry["search"]["seeds"] for entry in tuned
    )
    return Sheet(
        title="The tuning search",
        columns=tuple(map(Column, ("schedule", "rate chosen", "tried", "rate: score"))),
        rows=tuple(_row(entry) for entry in tuned),
        baselines=tuple(entry["baseline"] == entry["label"] for entry in tuned),
        caption=(
            f"Score: {score}; inf: diverged. Rates are initial ones; a schedule's other "
            f"rates were scaled with them. {trials} trials, on seeds of their own."
        ),
    )


def _row(entry: dict[str, Any]) -> tuple[Cell, ...]:
    search = entry["search"]
    pairs = sorted(zip(search["lr"], search["score"], strict=True))
    best = min(search["score"])
    chosen = next(rate for rate, score in pairs if score == best)
    curve = "; ".join(
        f"{rate:g}: {'inf' if math.isinf(score) else f'{score:.2f}'}"
        for rate, score in pairs
    )
    return (
        Cell(entry["label"]),
        Cell(number(chosen)),
        Cell(f"{len(pairs)} rates x {search['seeds']} seeds"),
        Cell(curve),
    )
