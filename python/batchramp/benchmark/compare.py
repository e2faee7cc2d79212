"""The gate: is a new run worse than a base run, by more than noise and a margin?

Everything is paired by seed, whatever the trials' ids. Planned updates are compared
exactly. The rest is judged by one-sided tests, corrected over all rows looked at, and by
intervals; `docs/compare.md` has the rules.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from batchramp.benchmark import comparison_notes, statistics
from batchramp.benchmark.comparison import (
    AT_END,
    QUANTITIES,
    SECONDS,
    Comparison,
    ComparisonRow,
    Quantity,
    Verdict,
)
from batchramp.benchmark.gate_statistics import (
    GATE_LEVEL,
    MIN_PAIRS,
    MIN_RUNS,
    Finding,
    metric_finding,
    pairs_to_decide,
    ratio_finding,
    runs_finding,
)
from batchramp.benchmark.pairing import TO_TARGET, Pairing, Run, TargetKey
from batchramp.benchmark.results import Results, read_results
from batchramp.names import suggest

ONE_RUN = "one run a side: drift between runs is not in this interval"

Values = list[list[float]]
"""Of one side: by run, then by pair; `inf` for a miss."""


def compare(
    base: Results | Sequence[Results],
    new: Results | Sequence[Results],
    margin: float = 0.1,
    only: Iterable[str] = QUANTITIES,
) -> Comparison:
    """Compare a new run with a base run, schedule by schedule and seed by seed.

    Args:
        base: The run to hold up to; or at least 3 runs of it, which makes the run the
            unit of the seconds.
        new: The run to judge; or at least 3.
        margin: Slowdown that passes, finite and at least 0; of the metric, the loss as
            a share of the base's.
        only: The quantities to look at, and to correct over, of `QUANTITIES`.

    Returns:
        Rows for every schedule that all runs have, quantities in the order of
        `QUANTITIES`.

    Raises:
        ValueError: `margin` is out of range, `only` names none or an unknown quantity,
            or the sides have a number of runs that cannot be compared.
    """
    if not 0 <= margin < math.inf:
        raise ValueError(f"margin must be finite and at least 0, got {margin}")
    looked = _quantities(only)
    sides = _sides(base, new)
    runs = [run for side in sides for run in side]
    pairings = [
        Pairing(label, *sides)
        for label in runs[0].entries
        if all(label in run.entries for run in runs)
    ]
    drafts = [
        draft for pairing in pairings for draft in _drafts(pairing, looked, margin)
    ]
    rows = _judged(drafts)
    notes = comparison_notes.of_runs(*sides)
    to_target = any(quantity in TO_TARGET for quantity in looked)
    for pairing in pairings:
        notes += comparison_notes.of_trials(pairing)
        notes += comparison_notes.of_targets(pairing) if to_target else []
        notes += comparison_notes.of_rows(pairing.label, rows)
    notes += comparison_notes.of_differences(pairings)
    return Comparison(
        margin=margin,
        base_runs=len(sides[0]),
        new_runs=len(sides[1]),
        rows=tuple(rows),
        notes=tuple(sorted(notes, key=lambda note: (1, 3, 0).index(note.code))),
    )


def read_side(argument: str) -> list[Results]:
    """Read the run, or the runs with commas between, that one argument names.

    Args:
        argument: A results folder, whose name may hold commas; or several.

    Raises:
        ValueError: A folder is none of results, is damaged, is named twice, or a name
            is empty.
    """
    if "," not in argument or Path(argument).expanduser().exists():
        return [read_results(argument)]
    names = argument.split(",")
    if "" in names:
        raise ValueError(f"runs must be folders with commas between, got {argument!r}")
    folders = [Path(name).expanduser().resolve() for name in names]
    for name, folder in zip(names, folders, strict=True):
        if folders.count(folder) > 1:
            raise ValueError(f"runs of a side must differ, got {name} twice")
    return [read_results(name) for name in names]


def _quantities(only: Iterable[str]) -> list[Quantity]:
    asked = {name.strip() for name in only}
    for name in sorted(asked):
        if name not in QUANTITIES:
            raise ValueError(suggest("quantity", name, QUANTITIES))
    if not asked:
        raise ValueError(f"only must name a quantity, of {', '.join(QUANTITIES)}")
    return [quantity for quantity in QUANTITIES if quantity in asked]


def _sides(
    base: Results | Sequence[Results], new: Results | Sequence[Results]
) -> tuple[list[Run], list[Run]]:
    sides = []
    for name, given in (("base", base), ("new", new)):
        results = [given] if isinstance(given, Results) else list(given)
        if len({id(one) for one in results}) < len(results):
            raise ValueError(f"{name} must be runs of its own each, got one twice")
        sides.append(
            [
                Run(f"{name} {number}" if number > 1 else name, one)
                for number, one in enumerate(results, start=1)
            ]
        )
    counts = [len(side) for side in sides]
    if counts != [1, 1] and min(counts) < MIN_RUNS:
        raise ValueError(
            f"compare needs one run a side, or at least {MIN_RUNS} on each, got "
            f"{counts[0]} and {counts[1]}"
        )
    return sides[0], sides[1]


@dataclass(frozen=True, slots=True)
class _Draft:
    """A row before its neighbours are heard."""

    row: ComparisonRow
    """As it stands if nothing is tested."""
    finding: Finding | None = None
    """What its verdict is still to come from."""


def _drafts(
    pairing: Pairing, looked: Sequence[Quantity], margin: float
) -> list[_Draft]:
    to_target = [quantity for quantity in looked if quantity in TO_TARGET]
    at_end = [quantity for quantity in looked if quantity in AT_END]
    drafts = [_Draft(_planned(pairing))] if "planned_updates" in looked else []
    for key in pairing.targets():
        drafts += [_draft(pairing, quantity, key, margin) for quantity in to_target]
    return drafts + [_draft(pairing, quantity, None, margin) for quantity in at_end]


def _planned(pairing: Pairing) -> ComparisonRow:
    plans = [run.entries[pairing.label]["planned_updates"] for run in pairing.runs]
    before, after = plans[0], plans[len(pairing.base)]
    verdict: Verdict = "equal" if len(set(plans)) == 1 else "changed"
    note = "" if any(plans) else "adaptive: nothing is planned"
    if not pairing.alike:
        verdict, note = "undecided", "no seed was asked the same on both sides"
    return replace(
        _blank(pairing, "planned_updates"),
        base=before,
        new=after,
        pairs=len(pairing.alike),
        ratio=after / before if before and after else None,
        verdict=verdict,
        note=note,
    )


def _draft(
    pairing: Pairing, quantity: Quantity, key: TargetKey | None, margin: float
) -> _Draft:
    values = [run.values(pairing.label, quantity, key) for run in pairing.runs]
    looks = pairing.pairs if key is None else pairing.pairs_at_same_looks(key[0])
    seeds = [seed for seed in looks if all(seed in by_seed for by_seed in values)]
    reached = [sum(map(math.isfinite, side.values())) for side in values]
    first = len(pairing.base)
    row = replace(
        _blank(pairing, quantity),
        target=pairing.runs[0].targets(pairing.label)[key].text if key else None,
        base_reached=reached[0],
        base_trials=len(values[0]),
        new_reached=reached[first],
        new_trials=len(values[first]),
        pairs=len(seeds),
    )
    if not seeds:
        elsewhere = f": {key[0]} was measured at other looks" if key else ""
        only_looks = elsewhere if len(looks) < len(pairing.pairs) else ""
        return _Draft(replace(row, note=f"no pair{only_looks}"))
    told = [[by_seed[seed] for seed in seeds] for by_seed in values]
    if all(math.isinf(value) for run in told for value in run):
        return _Draft(_nothing(pairing, row, seeds))
    judge = _seconds if quantity in SECONDS else _learning
    return judge(pairing, row, told[:first], told[first:], margin)


def _nothing(
    pairing: Pairing, row: ComparisonRow, seeds: Sequence[int]
) -> ComparisonRow:
    """A row of which no trial has a value; to diverge on every seed is one."""
    if row.quantity != "metric":
        row = replace(row, base=math.inf, new=math.inf)
        return replace(row, verdict="not reached", note="not reached on either side")
    if pairing.all_diverged(seeds):
        return replace(row, verdict="equal", note="diverged on both sides")
    return replace(row, verdict="not reached", note="no metric on either side")


def _learning(
    pairing: Pairing, row: ComparisonRow, base: Values, new: Values, margin: float
) -> _Draft:
    """Updates, samples or the metric: they repeat, so each side's runs must agree."""
    higher = pairing.higher_is_better()
    if row.quantity == "metric":
        worse = higher is None or higher
        finding = metric_finding(base[0], new[0], margin, higher_is_better=worse)
    else:
        finding = ratio_finding(base[0], new[0], margin)
    for name, side in (("base", base), ("new", new)):
        unequal = sum(len(set(of_seed)) > 1 for of_seed in zip(*side, strict=True))
        if unequal:
            note = f"the runs of {name} differ on {unequal} of {row.pairs} seeds"
            return _Draft(replace(_centred(row, finding), note=note))
    if base[0] == new[0]:
        return _Draft(replace(_centred(row, finding), verdict="equal"))
    if row.quantity == "metric" and higher is None:
        note = "no target on the metric says which way is better"
        return _Draft(replace(_bounded(row, finding), verdict="not judged", note=note))
    return _Draft(_bounded(row, finding), finding)


def _seconds(
    pairing: Pairing, row: ComparisonRow, base: Values, new: Values, margin: float
) -> _Draft:
    """Seconds: over seeds with one run a side, else over runs."""
    clock = pairing.other_clock()
    if len(base) == 1:
        finding = ratio_finding(base[0], new[0], margin)
        row = replace(row, note=ONE_RUN)
    else:
        by_seed = list(zip(*base, *new, strict=True))
        kept = [
            index
            for index, of_seed in enumerate(by_seed)
            if all(0 < value < math.inf for value in of_seed)
        ]
        missed = sum(math.inf in of_seed for of_seed in by_seed) - sum(
            set(of_seed) == {math.inf} for of_seed in by_seed
        )
        if missed or not kept:
            note = f"{missed} of {row.pairs} seeds: reached in some runs only"
            return _Draft(replace(row, note=note))
        finding = runs_finding(_only(kept, base), _only(kept, new), margin)
    if clock:
        note = f"not compared: other {clock}"
        return _Draft(replace(_centred(row, finding), note=note))
    if base == new:
        return _Draft(replace(_centred(row, finding), verdict="equal", note=""))
    return _Draft(_bounded(row, finding), finding)


def _only(kept: Sequence[int], side: Values) -> Values:
    return [[run[index] for index in kept] for run in side]


def _judged(drafts: Sequence[_Draft]) -> list[ComparisonRow]:
    """Give every tested row its verdict, by Holm's p over all of them."""
    tested = [draft.finding for draft in drafts if draft.finding]
    adjusted = iter(statistics.holm([finding.p for finding in tested]))
    return [
        _decided(draft.row, draft.finding, next(adjusted), len(tested))
        if draft.finding
        else draft.row
        for draft in drafts
    ]


def _decided(
    row: ComparisonRow, finding: Finding, p: float, family: int
) -> ComparisonRow:
    if p < GATE_LEVEL:
        verdict: Verdict = "worse" if row.quantity == "metric" else "slower"
        return replace(row, p=p, verdict=verdict)
    if finding.within:
        return replace(row, p=p, verdict="same")
    few = ""
    if finding.method == "swaps" and finding.pairs < pairs_to_decide(family):
        few = f"with misses, {family} rows need {pairs_to_decide(family)} pairs"
    elif finding.method == "pairs" and finding.pairs < MIN_PAIRS:
        few = f"no interval below {MIN_PAIRS} pairs"
    note = "; ".join(part for part in (few, row.note) if part)
    return replace(row, p=p, detectable=finding.detectable(family), note=note)


def _blank(pairing: Pairing, quantity: Quantity) -> ComparisonRow:
    return ComparisonRow(
        schedule=pairing.label,
        quantity=quantity,
        target=None,
        base=None,
        new=None,
        base_reached=0,
        base_trials=0,
        new_reached=0,
        new_trials=0,
        pairs=0,
        seeds=pairing.seeds,
        ratio=None,
        difference=None,
        low=None,
        high=None,
        p=None,
        verdict="undecided",
        detectable=None,
        note="",
    )


def _centred(row: ComparisonRow, finding: Finding) -> ComparisonRow:
    """The row with what its two sides came to."""
    row = replace(row, base=finding.base, new=finding.new)
    if finding.is_ratio:
        return replace(row, ratio=finding.estimate)
    return replace(row, difference=finding.estimate)


def _bounded(row: ComparisonRow, finding: Finding) -> ComparisonRow:
    """The row with all that its finding says but the verdict."""
    row = _centred(row, finding)
    return replace(row, low=finding.low, high=finding.high, pairs=finding.pairs)
