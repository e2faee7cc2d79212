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


ENVIRONMENT = {
    "recorded_at": "2026-11-25T12:00:00+00:00",
    "batchramp": "0.1.0",
    "build_profile": "release",
    "python": "3.11.9",
    "torch": "2.15.0",
    "cuda": "none",
    "numpy": "2.4.0",
    "platform": "Linux",
    "cpu": "a <fast> one",
    "cpu_capability": "AVX2",
    "cores": "2",
    "memory_bytes": "8000000000",
    "device": "cpu",
    "threads": "2",
    "commit": "0123456789ab",
    "jobs": "1",
    "load": "0.50",
}


def identity_of(workload, seed):
    """What a trial was asked, and what else its curve follows from."""
    return {
        "workload": workload,
        "workload_asked": workload,
        "workload_sources": {},
        "schedule": "constant",
        "schedule_asked": "constant",
        "schedule_sources": {},
        "set": {"lr": 0.1},
        "parameters": {"lr": 0.1, "batch_size": 10},
        "extra_sources": {},
        "seed": seed,
        "data": f"digest of {seed}",
        "epochs": "6",
        "boundary": "keep",
        "cadence": "1",
        "measures": {"full_train_loss": "1"},
        "weight_decay": 0.0,
        "nesterov": False,
        "micro_batch": None,
        "batchramp": "digest of batchramp",
        "torch": "2.15.0",
        "torch_settings": {},
        "device": "cpu",
        "cpu_capability": "AVX2",
        "threads": 2,
        "optimizer": "sgd",
    }


def trial_metadata(trial, schedule, seed, workload, identity, environment):
    changes = (identity or {}, schedule.get("identity", {}), trial.get("identity", {}))
    told = identity_of(workload, seed)
    for change in changes:
        told |= change
    return {
        "status": trial.get("status", "finished"),
        "error": trial.get("error"),
        "traceback": trial.get("traceback"),
        "identity": told,
        "environment": ENVIRONMENT
        | (environment or {})
        | schedule.get("environment", {})
        | trial.get("environment", {}),
        "format": 3,
    }


def build_results(
    schedules,
    *,
    targets=("metric >= 0.9",),
    suite=None,
    workload="digits",
    identity=None,
    environment=None,
):
    """A run of `schedules`: by label, `trials` and what differs from the defaults.

    `identity` and `environment`, here, of a schedule or of a trial, are changes to what
    the metadata say.
    """
    rows, entries, metadata = [], [], {}
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
            name, own_seed = rows[-1]["trial"], rows[-1]["seed"]
            metadata[name] = trial_metadata(
                trial, schedule, own_seed, workload, identity, environment
            )
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
        metadata=metadata,
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


LOOKS = (2, 3, 4, 2, 3, 4, 4, 3)


@pytest.fixture
def side(run_of, trial):
    """A run of schedule `a` whose trials pass at the given looks; ids by `name`."""

    def build(name, looks=LOOKS, *, pace=0.5, workload="digits", **schedule):
        paces = pace if isinstance(pace, list) else [pace] * len(looks)
        trials = [
            trial(look, id=f"{name}-{seed}", pace=paces[seed] * (1 + 0.01 * seed))
            for seed, look in enumerate(looks)
        ]
        outer = {
            key: schedule.pop(key)
            for key in ("identity", "environment", "targets")
            if key in schedule
        }
        return run_of({"a": {"trials": trials, **schedule}}, workload=workload, **outer)

    return build
