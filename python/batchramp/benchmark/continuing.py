"""Going on in a results folder: is it the same question, and what else lies in it?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

from batchramp.benchmark.identity import asked, differences
from batchramp.benchmark.results import DamagedSuiteError, read_suite, trial_ids
from batchramp.benchmark.suite import Entry, Suite, exact, make_suite, resolved_measures
from batchramp.benchmark.trial_files import ENDED, read_trial, trial_file
from batchramp.benchmark.trials import PlannedTrial


def read_earlier(folder: Path) -> dict[str, Any] | None:
    """Return the suite that a results folder holds; None where there is none.

    A damaged one is none: the trials know themselves what they are, and `suite.toml` is
    written anew.

    Raises:
        ValueError: The folder is of another format.
        OSError: It cannot be read.
    """
    if not (folder / "suite.toml").exists():
        return None
    try:
        return read_suite(folder)
    except DamagedSuiteError:
        return None


def check_same_question(
    folder: Path, earlier: Mapping[str, Any], suite: Suite, workload_name: str
) -> None:
    """Refuse to mix two questions in one folder; say by which key they differ.

    Entries, seeds, labels, targets and titles may differ.

    Args:
        folder: The results folder.
        earlier: The suite that it holds, as resolved.
        suite: What is asked now.
        workload_name: The `name` of its workload.

    Raises:
        ValueError: They differ in workload, budget, boundary, cadence, measures,
            micro-batch, or in a panel's setting for an entry that both have.
    """
    there = _as_asked(earlier)
    pairs: dict[str, tuple[Any, Any]] = {
        "workload": (earlier["workload_name"], workload_name),
        "workload's name in its file": (asked(there.workload), asked(suite.workload)),
        "epochs": (exact("epochs", there.epochs), exact("epochs", suite.epochs)),
        "boundary": (there.boundary, suite.boundary),
        "cadence": (exact("cadence", there.cadence), exact("cadence", suite.cadence)),
        "measures": (resolved_measures(there), resolved_measures(suite)),
        "micro_batch": (there.micro_batch, suite.micro_batch),
    }
    for key in ("weight_decay", "nesterov"):
        old, new = _panel_settings(there, key), _panel_settings(suite, key)
        for entry in old.keys() & new.keys():
            if old[entry].isdisjoint(new[entry]):
                pairs[f"{key} of a panel"] = min(old[entry]), min(new[entry])
    for key, (old_value, new_value) in pairs.items():
        if old_value != new_value:
            raise ValueError(
                f"{folder} holds another question: {key} is {_told(old_value)} there "
                f"and {_told(new_value)} here: choose another folder with --out"
            )


def seeds_beyond(
    folder: Path, earlier: Mapping[str, Any] | None, seeds: range
) -> list[int]:
    """Return the seeds that a folder has trials of and that are not asked for now."""
    if earlier is not None:
        there = {trial["seed"] for trial in earlier["trial"]}
    else:  # no `suite.toml`, or a damaged one: the trials know
        there = {held["identity"]["seed"] for held in _held(folder)}
    return sorted(there - set(seeds))


def threads_of(folder: Path, earlier: Mapping[str, Any] | None) -> int | None:
    """Return the threads that a folder's trials were run with; None for an empty one."""
    if earlier is not None:
        return int(earlier["threads"])
    began = sorted(
        (held["environment"]["recorded_at"], held["identity"]["threads"])
        for held in _held(folder)
        if held["status"] in ENDED
    )
    return int(began[0][1]) if began else None


def held_back(
    earlier: Mapping[str, Any] | None,
    current: Iterable[PlannedTrial],
    suite: Suite,
    ended: Collection[str],
) -> frozenset[str]:
    """Return the labels whose earlier trials stay shown until they have new ones.

    Those are entries asked as before, whose trials have another identity now (another
    version, an edited file), of which some had ended there and none has here.

    Args:
        earlier: The suite that the folder holds, as resolved.
        current: All trials that belong to the suite now.
        suite: What is asked now.
        ended: Ids of trials that have ended.
    """
    if earlier is None:
        return frozenset()
    new: dict[str, set[str]] = {}
    for trial in current:
        new.setdefault(trial.label, set()).add(trial.id)
    old: dict[str, set[str]] = {}
    for row in earlier["trial"]:
        old.setdefault(row["label"], set()).add(row["id"])
    asked_then = {e.label: _as_asked_for(e) for _, e in _as_asked(earlier).entries()}
    return frozenset(
        entry.label
        for _, entry in suite.entries()
        if asked_then.get(entry.label) == _as_asked_for(entry)
        and not old.get(entry.label, set()).isdisjoint(ended)
        and new[entry.label].isdisjoint(ended)
    )


def with_earlier(
    table: Mapping[str, Any], earlier: Mapping[str, Any], labels: Collection[str]
) -> dict[str, Any]:
    """Return a resolved suite in which some entries still stand for earlier trials."""
    there = {
        entry["label"]: entry for panel in earlier["panel"] for entry in panel["entry"]
    }
    panels = [
        {
            **panel,
            "entry": [
                {**there[entry["label"]], "baseline": entry["baseline"]}
                if entry["label"] in labels
                else entry
                for entry in panel["entry"]
            ],
        }
        for panel in table["panel"]
    ]
    trials = [row for row in table["trial"] if row["label"] not in labels]
    trials += [row for row in earlier["trial"] if row["label"] in labels]
    return {**table, "panel": panels, "trial": trials}


def others_told(
    folder: Path, current: Iterable[PlannedTrial], asked_now: Iterable[PlannedTrial]
) -> list[str]:
    """Say which ended trials of a folder are of another identity, and what differs.

    Args:
        folder: The results folder.
        current: Trials that belong to the suite, whether asked for now or not.
        asked_now: Those asked for now.

    Raises:
        OSError: A file cannot be read.
    """
    by_seed: dict[int, list[PlannedTrial]] = {}
    for trial in asked_now:
        by_seed.setdefault(trial.seed, []).append(trial)
    reasons: Counter[str] = Counter()
    for trial_id in sorted(trial_ids(folder) - {trial.id for trial in current}):
        try:
            held = read_trial(trial_file(folder, trial_id)).metadata
        except ValueError:
            reasons["they are damaged, or of another format"] += 1
            continue
        if held["status"] in ENDED:
            reasons[_nearest(held["identity"], by_seed)] += 1
    return [
        f"{number} finished {'trial' if number == 1 else 'trials'} of another identity "
        f"{'lies' if number == 1 else 'lie'} here: {reason}"
        for reason, number in reasons.items()
    ]


def _nearest(
    identity: Mapping[str, Any], by_seed: Mapping[int, list[PlannedTrial]]
) -> str:
    """Say how an identity differs from the asked one that is most like it."""
    among = by_seed.get(identity["seed"]) or next(iter(by_seed.values()), [])
    found = [list(differences(identity, trial.identity)) for trial in among]
    nearest = min(found, key=len, default=[])
    entry = ("schedule", "set ", "parameters")
    if any(told.startswith(entry) and " there, " in told for told in nearest):
        return "their entries are no longer in the suite"
    if any(
        trial.seed == identity["seed"] and trial.identity["data"] != identity["data"]
        for trial in among
    ):
        nearest.append("the data")
    return "; ".join(nearest) or "of another seed's data"


def _as_asked_for(entry: Entry) -> tuple[str, dict[str, Any]]:
    return asked(entry.schedule), entry.set


def _held(folder: Path) -> Iterator[dict[str, Any]]:
    """The metadata of every whole trial in a folder."""
    for trial_id in sorted(trial_ids(folder)):
        with suppress(ValueError):  # damaged, or of another format
            yield read_trial(trial_file(folder, trial_id)).metadata


def _as_asked(earlier: Mapping[str, Any]) -> Suite:
    """Read a resolved suite back as one that is asked."""
    known = set(Suite.__struct_fields__) | {"panel"}
    table = {key: value for key, value in earlier.items() if key in known}
    resolved = ("parameters", "planned_updates", "first_change", "tuning")
    table["panel"] = [
        {
            **{k: v for k, v in panel.items() if k != "missing_baselines"},
            "entry": [
                {k: v for k, v in entry.items() if k not in resolved}
                for entry in panel["entry"]
            ],
        }
        for panel in earlier["panel"]
    ]
    return make_suite(table)


def _panel_settings(suite: Suite, key: str) -> dict[str, set[Any]]:
    """The values of a panel's setting under which each entry is run."""
    found: dict[str, set[Any]] = {}
    for panel, entry in suite.entries():
        name = f"{asked(entry.schedule)} {sorted(entry.set.items())}"
        found.setdefault(name, set()).add(getattr(panel, key))
    return found


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} every {float(v):g}" for k, v in sorted(value.items()))
    return str(float(value) if isinstance(value, Fraction) else value)
