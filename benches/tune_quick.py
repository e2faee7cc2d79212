"""Tune the suite `quick`: the grid search that its rates and targets come from.

    python benches/tune_quick.py

Every schedule gets the same search: its paper's rates scaled by powers of two, at least
five of them, extended while the best lies at an edge, then the two between the best and
its neighbours, three tuning seeds each. The score is the mean over the seeds of the
logarithm of the full training loss, averaged over all looks: it rewards falling soon and
falling far. Tuning seeds (1000 and up), calibration seeds (2000 and up) and scoring seeds
(0 to 7) have nothing in common.

Targets are what the panel's tuned constant batch and rate reach in at least 95% of the
calibration seeds by 80% of the budget. The suite is written where the package keeps it,
and the curves to `benches/results/quick-tuning.md`.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import polars as pl
import tomli_w

from batchramp.benchmark.monitor import Monitor
from batchramp.benchmark.passages import passages
from batchramp.benchmark.results import Results
from batchramp.benchmark.runner import make_race
from batchramp.benchmark.suite import Entry, Panel, Search, Suite

ROOT = Path(__file__).parent.parent
SUITE_FILE = ROOT / "python/batchramp/benchmark/suites/quick.toml"
CURVES_FILE = Path(__file__).parent / "results/quick-tuning.md"
RUNS = ROOT / "runs"

EPOCHS = 8
TUNING_SEED, TUNING_SEEDS = 1000, 3
CALIBRATION_SEED, CALIBRATION_SEEDS = 2000, 20
SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
SCORE = "mean log full training loss over all looks and tuning seeds, lower is better"
COMMON: dict[str, Any] = {
    "workload": "digits",
    "epochs": EPOCHS,
    "cadence": 0.25,
    "measures": {"full_train_loss": 0.25, "gradient_norm": 1},
    "threads": 1,
}

# Umeda & Iiduka (arXiv 2409.08770), their rates of 0.1 growing to 0.4, on five stages.
GROWING = {"batch_size": 8, "max_batch_size": 128, "interval": 0.2}
UMEDA: dict[str, tuple[str, dict[str, Any]]] = {
    "umeda (i)": ("umeda-constant", {"lr": 0.1, "batch_size": 32}),
    "constant-cosine": ("constant-cosine", {"lr": 0.1, "batch_size": 32}),
    "umeda (ii)": ("umeda-increasing-batch", {"lr": 0.1, **GROWING}),
    "umeda (iii)": ("umeda-increasing-both", {"lr": 0.1, "max_lr": 0.4, **GROWING}),
    "umeda (iv)": ("umeda-warmup", {"lr": 0.1, "max_lr": 0.4, **GROWING}),
}
# Smith et al. (arXiv 1711.00489), their factor 5 and milestones; the cap of 128 is N/10,
# and the larger momentum keeps lr / (batch_size * (1 - momentum)) at that cap.
GROW = {"max_batch_size": 128}
SMITH: dict[str, tuple[str, dict[str, Any]]] = {
    "constant-m": ("constant", {"lr": 0.1, "batch_size": 16, "momentum": 0.9}),
    "constant-cosine-m": (
        "constant-cosine",
        {"lr": 0.1, "batch_size": 16, "momentum": 0.9},
    ),
    "smith-decay": ("smith-decay", {"lr": 0.1, "batch_size": 16}),
    "smith-increase": ("smith-increase", {"lr": 0.1, "batch_size": 16, **GROW}),
    "smith-hybrid": ("smith-hybrid", {"lr": 0.1, "batch_size": 16, **GROW}),
    "smith-initial-lr": ("smith-initial-lr", {"lr": 0.5, "batch_size": 80, **GROW}),
    "smith-momentum": (
        "smith-momentum",
        {"lr": 0.5, "batch_size": 128, "momentum": 0.9375, **GROW},
    ),
}


def scaled(settings: dict[str, Any], scale: float) -> dict[str, Any]:
    """Scale every rate of a schedule; three digits are enough for a rate."""
    rates = {k: settings[k] * scale for k in ("lr", "max_lr") if k in settings}
    return settings | {k: float(f"{rate:.3g}") for k, rate in rates.items()}


def race(
    name: str, panel: Panel, first_seed: int, seeds: int, common: dict[str, Any]
) -> Results:
    suite = Suite(
        name=name, panels=(panel,), first_seed=first_seed, seeds=seeds, **common
    )
    folder = RUNS / f"tune-{common['epochs']}-epochs" / name
    done = make_race(suite, out=folder, device="cpu").run(Monitor())
    for outcome in done.outcomes:
        assert outcome.status != "failed", outcome
    return done.results


def score(results: Results, label: str) -> float:
    """Score one entry; a diverged trial scores infinity."""
    rows = results.rows.filter(pl.col("schedule") == label)
    if (rows["status"] == "diverged").any():
        return math.inf
    return float(rows["full_train_loss"].log().mean())


def search(
    name: str,
    spec: tuple[str, dict[str, Any]],
    panel: dict[str, Any],
    common: dict[str, Any] = COMMON,
) -> Search:
    """Try the scales, and more of them while the best lies at an edge."""
    schedule, settings = spec
    scores: dict[float, float] = {}
    scales = list(SCALES)
    while scales:
        entries = tuple(
            Entry(label=str(scale), schedule=schedule, set=scaled(settings, scale))
            for scale in scales
        )
        tried = Panel(entries=entries, baseline=entries[0].label, **panel)
        slug = "".join(c if c.isalnum() else "-" for c in f"{name} {scales[0]}")
        results = race(slug, tried, TUNING_SEED, TUNING_SEEDS, common)
        scores |= {scale: score(results, str(scale)) for scale in scales}
        best, low, high = min(scores, key=scores.__getitem__), min(scores), max(scores)
        if best in (low, high):
            scales = [low / 2] if best == low else [high * 2]
        else:
            between = {best / math.sqrt(2), best * math.sqrt(2)}
            refined = any(not math.log2(scale).is_integer() for scale in scores)
            scales = [] if refined else sorted(between)
        print(
            f"{name}: " + ", ".join(f"{s:g}: {scores[s]:.3f}" for s in sorted(scores))
        )
    tried_scales = sorted(scores)
    return Search(
        lr=tuple(scaled(settings, scale)["lr"] for scale in tried_scales),
        score=tuple(round(scores[scale], 4) for scale in tried_scales),
        seeds=TUNING_SEEDS,
    )


def tuned_entry(label: str, spec: tuple[str, dict[str, Any]], found: Search) -> Entry:
    schedule, settings = spec
    best = found.lr[found.score.index(min(found.score))]
    chosen = scaled(settings, best / settings["lr"])
    return Entry(
        label=label, schedule=schedule, set=chosen | {"lr": best}, search=found
    )


def largest_rate(entries: list[Entry]) -> Entry:
    """Return the entry whose rate goes highest, with the batch size it has there."""
    return max(entries, key=lambda entry: entry.set.get("max_lr", entry.set["lr"]))


def calibrate(
    name: str, held: Entry, panel: dict[str, Any], common: dict[str, Any] = COMMON
) -> tuple[str, ...]:
    """Return the hardest targets that a held batch and rate pass soon enough."""
    candidates = {
        "metric": [f"metric >= {0.9 + 0.002 * step:.3f}" for step in range(50)],
        "loss": [f"full_train_loss <= {0.1 - 0.001 * step:.3f}" for step in range(100)],
    }
    alone = Panel(
        entries=(held,),
        baseline=held.label,
        targets=tuple(itertools.chain(*candidates.values())),
        **panel,
    )
    slug = f"calibrate-{name}"
    found = passages(race(slug, alone, CALIBRATION_SEED, CALIBRATION_SEEDS, common))
    in_time = pl.col("epoch") <= 0.8 * common["epochs"]
    soon = found.group_by("target").agg(in_time.mean())
    share = dict(soon.iter_rows())
    return tuple(
        [target for target in targets if share[target] >= 0.95][-1]
        for targets in candidates.values()
    )


def build_panel(
    title: str,
    specs: dict[str, tuple[str, dict[str, Any]]],
    common: dict[str, Any],
    constant_label: str,
    momentum: float,
) -> Panel:
    entries = [
        tuned_entry(label, spec, search(label, spec, common))
        for label, spec in specs.items()
    ]
    highest = largest_rate(entries)
    peak = highest.set.get("max_lr", highest.set["lr"])
    constant = Entry(
        label=constant_label,
        schedule="constant",
        set={"lr": peak, "batch_size": BASE[highest.label], "momentum": momentum},
    )
    held, baseline = entries[:2]
    targets = calibrate(constant_label, held, common)
    return Panel(
        title=title,
        entries=(constant, *entries),
        baseline=baseline.label,
        targets=targets,
        **common,
    )


# Batch size of the constant baseline, by the schedule that has the largest rate.
BASE = dict.fromkeys(UMEDA, 32) | dict.fromkeys(SMITH, 16)
BASE |= {"smith-initial-lr": 80, "smith-momentum": 80}


def main() -> None:
    panels = (
        build_panel(
            "Umeda & Iiduka's four cases: plain SGD, no weight decay",
            UMEDA,
            {"weight_decay": 0.0},
            "constant-max",
            0.0,
        ),
        build_panel(
            "Smith et al.'s five schedules: SGD with momentum, weight decay 5e-4",
            SMITH,
            {"weight_decay": 5e-4},
            "constant-max-m",
            0.9,
        ),
    )
    suite = Suite(name="quick", panels=panels, search_score=SCORE, **COMMON)
    header = (
        "# At equal samples and tuned rates, does growing the batch beat holding it or\n"
        "# decaying the rate, in updates, samples and seconds?\n"
        "# Written by benches/tune_quick.py, which says how rates and targets were found.\n"
    )
    table = suite.to_dict()
    for panel in table["panel"]:
        panel["entry"] = [
            {k: v for k, v in entry.items() if v not in ({}, None)}
            for entry in panel["entry"]
        ]
    del table["first_seed"]
    SUITE_FILE.parent.mkdir(exist_ok=True)
    SUITE_FILE.write_text(header + tomli_w.dumps(table))
    lines = ["# The search behind the suite `quick`", "", f"Score: {SCORE}.", ""]
    lines += [
        "Command: `python benches/tune_quick.py`. Rates are the initial ones; a second",
        "rate is scaled with the first.",
        "",
        "| schedule | score by rate (best in bold) |",
        "|---|---|",
    ]
    for _, entry in suite.entries():
        if entry.search is not None:
            best = min(entry.search.score)
            cells = (
                f"**{lr:g}: {value:.3f}**" if value == best else f"{lr:g}: {value:.3f}"
                for lr, value in zip(entry.search.lr, entry.search.score, strict=True)
            )
            lines.append(f"| {entry.label} | {', '.join(cells)} |")
    trials = (
        sum(len(e.search.lr) for _, e in suite.entries() if e.search) * TUNING_SEEDS
    )
    lines += [
        "",
        f"Spent: {trials} tuning trials and {2 * CALIBRATION_SEEDS} calibration trials of "
        f"{EPOCHS} epochs. Targets: "
        + "; ".join(", ".join(panel.targets) for panel in panels)
        + ".",
    ]
    CURVES_FILE.parent.mkdir(exist_ok=True)
    CURVES_FILE.write_text("\n".join(lines) + "\n")
    print(f"wrote {SUITE_FILE.name} and {CURVES_FILE.name}")


if __name__ == "__main__":
    main()
