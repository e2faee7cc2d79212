"""What a comparison has to say beside its rows: what failed, is gone, or differs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from batchramp.benchmark.comparability import Difference
from batchramp.benchmark.comparison import LEARNING, ComparisonRow, Note
from batchramp.benchmark.pairing import Pairing, Run

_SHOWN = 8


def of_runs(base: Sequence[Run], new: Sequence[Run]) -> list[Note]:
    """Failed trials, and schedules that not every run has."""
    notes = []
    for code, runs in ((0, base), (1, new)):
        for run in runs:
            notes += [
                Note(code=1 if code else 0, text=text)
                for label in run.trials
                if (text := _failed(run, label))
            ]
    runs = (*base, *new)
    for label in dict.fromkeys(label for run in runs for label in run.entries):
        lacking = [run.name for run in runs if label not in run.entries]
        if lacking:
            in_base = any(label in run.entries for run in base)
            text = f"{label}: not in {_listed(lacking)}"
            notes.append(Note(code=3 if in_base else 0, text=text))
    if not any(all(label in run.entries for run in runs) for label in base[0].entries):
        notes.append(Note(code=3, text="there is no schedule that all runs have"))
    return notes


def of_trials(pairing: Pairing) -> list[Note]:
    """Seeds that not every run has, that diverged, or that were not repeated."""
    notes = []
    label = pairing.label
    base_seeds = set().union(*(run.trials[label] for run in pairing.base))
    new_seeds = set().union(*(run.trials[label] for run in pairing.new))
    for run in pairing.runs:
        is_new = run in pairing.new
        mine = run.trials[label]
        gone = sorted((base_seeds if is_new else new_seeds) - set(mine))
        unrun = max(run.entries[label]["seeds"] - len(mine), 0)
        if gone:
            text = f"{label}: {_seeds(gone)} not in {run.name}"
            # A base that was asked for fewer seeds is whole; an interrupted one is not.
            notes.append(Note(code=3 if is_new or unrun else 0, text=text))
        if unrun > len(gone):
            asked = run.entries[label]["seeds"]
            text = f"{label}: {unrun} of {asked} seeds not run in {run.name}"
            notes.append(Note(code=3, text=text))
        diverged = [trial.seed for trial in mine.values() if trial.status == "diverged"]
        if diverged:
            text = f"{label}: {_seeds(diverged)} diverged in {run.name}"
            notes.append(Note(code=0, text=text))
    unrepeated = pairing.unrepeated()
    if unrepeated:
        text = f"{label}: {_seeds(unrepeated)}: another metric from the same identity"
        notes.append(Note(code=0, text=text))
    return notes


def of_targets(pairing: Pairing) -> list[Note]:
    """Targets that not every run has."""
    notes = []
    shared = pairing.targets()
    base = {key for run in pairing.base for key in run.targets(pairing.label)}
    told = {
        key: target
        for run in pairing.runs
        for key, target in run.targets(pairing.label).items()
    }
    for key, target in told.items():
        if key not in shared:
            lacking = [
                run.name
                for run in pairing.runs
                if key not in run.targets(pairing.label)
            ]
            text = f"{pairing.label}: target {target.text} not in {_listed(lacking)}"
            notes.append(Note(code=3 if key in base else 0, text=text))
    return notes


def of_rows(label: str, rows: Iterable[ComparisonRow]) -> list[Note]:
    """Targets that nobody reached, and a schedule of which no row decides anything.

    Where learning was looked at, seconds do not stand in for it.
    """
    mine = [row for row in rows if row.schedule == label]
    learning = [row for row in mine if row.quantity in LEARNING]
    told = {row.verdict for row in learning or mine}
    if not told:
        text = f"{label}: nothing to look at, as the sides share no target"
        return [Note(code=3, text=text)]
    unreached = dict.fromkeys(
        row.target for row in mine if row.target and row.verdict == "not reached"
    )
    notes = [
        Note(code=0, text=f"{label}: {target} was reached on neither side")
        for target in unreached
    ]
    if told == {"not reached"}:
        notes.append(Note(code=3, text=f"{label}: no row that was looked at decides"))
    return notes


def of_differences(pairings: Sequence[Pairing]) -> list[Note]:
    """What trials of one label and seed were asked, or were made by, that differs."""
    told: dict[tuple[str, str], list[str]] = {}
    for pairing in pairings:
        for kind, text in _differing(pairing):
            told.setdefault((kind, text), []).append(pairing.label)
    notes = []
    for (kind, text), labels in told.items():
        everyone = len(labels) == len(pairings)
        place = "" if everyone else f"{_listed(labels)}: "
        notes.append(Note(code=3 if kind == "question" else 0, text=f"{place}{text}"))
    return notes


def _differing(pairing: Pairing) -> list[tuple[str, str]]:
    seen: dict[tuple[str, str], list[tuple[int, Difference]]] = {}
    for seed, found in pairing.differences.items():
        for run, difference in found:
            seen.setdefault((run.name, difference.key), []).append((seed, difference))
    told: dict[tuple[str, str, str], list[str]] = {}
    first = pairing.runs[0].name
    for (name, key), of_seeds in seen.items():
        seed, difference = of_seeds[0]
        values = {(one.base, one.new) for _, one in of_seeds}
        where = ""
        if len(values) > 1:
            where = f" (seed {seed}, and others on {len(of_seeds) - 1} more)"
        elif len(of_seeds) < len(pairing.differences):
            where = f" ({_seeds([seed for seed, _ in of_seeds])})"
        text = f"{key} is {difference.base} in {first}, {difference.new} in "
        told.setdefault((difference.kind, text, where), []).append(name)
    return [
        (kind, f"{text}{_listed(names)}{where}")
        for (kind, text, where), names in told.items()
    ]


def _failed(run: Run, label: str) -> str:
    failed = [trial for trial in run.trials[label].values() if trial.status == "failed"]
    if not failed:
        return ""
    count = f"{len(failed)} of {len(run.trials[label])} trials"
    errors = dict.fromkeys(str(trial.metadata.get("error")) for trial in failed)
    told = next(iter(errors))
    more = f", and {len(errors) - 1} other errors" if len(errors) > 1 else ""
    seeds = _seeds([trial.seed for trial in failed])
    return f"{label}: {count} failed in {run.name} ({seeds}): {told}{more}"


def _seeds(seeds: Sequence[int]) -> str:
    shown = _listed([str(seed) for seed in seeds[:_SHOWN]])
    if len(seeds) > _SHOWN:
        shown = f"{', '.join(map(str, seeds[:_SHOWN]))} and {len(seeds) - _SHOWN} more"
    return f"seed{'s' if len(seeds) > 1 else ''} {shown}"


def _listed(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
