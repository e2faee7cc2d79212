"""Hand-made runs: N = 100, a look every epoch, 10 updates an epoch unless said."""

import polars as pl
import pytest

from batchramp.benchmark.results import COLUMNS, ENTRY_COLUMNS, Results

ROW_COLUMNS = {
    "trial": pl.String,
    "workload": pl.String,
    "panel": pl.Int64,
    "schedule": pl.String,
    **{name: kind for name, kind in COLUMNS.items() if name != "workload"},
}


def trial_rows(trial, label, seed, panel, updates_per_look, workload):
    looks = len(trial["metric"])
    pace = trial.get("pace", 0.5)
    rows = []
    for look in range(looks):
        updates = look * updates_per_look
        rows.append(
            {
                "trial": trial.get("id", f"{label}-{seed}"),
                "workload": workload,
                "panel": panel,
                "schedule": label,
                "seed": trial.get("seed", seed),
                "status": trial.get("status", "finished"),
                "updates": updates,
                "samples": look * 100,
                "position": look * 100,
                "epoch": float(look),
                "train_seconds": updates * pace,
                "total_seconds": updates * pace + 2 * look,
                "evaluation_seconds": 1.0 * look,
                "compile_seconds": 3.0,
                "batch_size": 10,
                "lr": 0.1,
                "momentum": 0.9,
                "train_loss": None if look == 0 else 1.0 / look,
                "full_train_loss": trial.get("loss", [None] * looks)[look],
                "metric": trial["metric"][look],
                "gradient_norm": trial.get("norm", [None] * looks)[look],
            }
        )
    return rows


def build_results(
    schedules, *, targets=("metric >= 0.9",), suite=None, workload="digits"
):
    """A run of `schedules`: by label, `trials` and what differs from the defaults."""
    rows, entries = [], []
    baseline = next(iter(schedules))
    for label, schedule in schedules.items():
        trials = schedule["trials"]
        panel = schedule.get("panel", 0)
        entries.append(
            {
                "panel": panel,
                "schedule": label,
                "schedule_name": "constant",
                "baseline": schedule.get("baseline", baseline),
                "tuning": schedule.get("tuning", "tuned"),
                "planned_updates": schedule.get("planned_updates", 60),
                "first_change": schedule.get("first_change"),
                "targets": list(schedule.get("targets", targets)),
                "seeds": schedule.get("seeds", len(trials)),
            }
        )
        for seed, trial in enumerate(trials):
            pace = schedule.get("updates_per_look", 10)
            rows += trial_rows(trial, label, seed, panel, pace, workload)
    identities = {row["trial"] for row in rows}
    panels = [
        {
            "entry": [
                {"label": e["schedule"], "baseline": e["baseline"]} for e in entries
            ]
        }
        for _ in range(1 + max(entry["panel"] for entry in entries))
    ]
    said = (suite or {}).get("panel", panels)
    panels = [mine | its for mine, its in zip(panels, said, strict=False)]
    return Results(
        rows=pl.DataFrame(rows, schema=ROW_COLUMNS),
        entries=pl.DataFrame(entries, schema=ENTRY_COLUMNS),
        suite={
            "name": "hand-made",
            "workload": workload,
            **(suite or {}),
            "panel": panels,
        },
        metadata={
            name: {"environment": {"cpu": "a <fast> one", "threads": "2"}}
            for name in identities
        },
    )


def metric_trial(passage, looks=7, **others):
    """A trial that meets `metric >= 0.9` from look `passage` on; never where None."""
    reached = looks if passage is None else passage
    return {"metric": [0.1] * reached + [0.95] * (looks - reached), **others}


@pytest.fixture(scope="session")
def run_of():
    return build_results


@pytest.fixture(scope="session")
def trial():
    return metric_trial
