"""The rows of a comparison: what each quantity of a schedule came to on both sides.

A row is drafted by itself first, and judged when all are there: its p is corrected over
them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from batchramp.benchmark import statistics
from batchramp.benchmark.comparison import (
    AT_END,
    SECONDS,
    ComparisonRow,
    Quantity,
    Verdict,
)
from batchramp.benchmark.gate_statistics import (
    GATE_LEVEL,
    MIN_PAIRS,
    Finding,
    metric_finding,
    pairs_to_decide,
    ratio_finding,
    runs_finding,
)
from batchramp.benchmark.pairing import TO_TARGET, Pairing, TargetKey

ONE_RUN = "one run a side: drift between runs is not in this interval"

_MISSED: dict[Quantity, str] = {
    **dict.fromkeys(TO_TARGET, "not reached"),
    "metric": "without a metric",
    "total_train_seconds": "diverged",
}

Values = list[list[float]]
"""Of one side: by run, then by pair; `inf` for a miss."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A row before its neighbours are heard."""

    row: ComparisonRow
    """As it stands if nothing is tested."""
    finding: Finding | None = None
    """What its verdict is still to come from."""

    @property
    def counts(self) -> bool:
        """Whether the correction is over it too."""
        equal_or_not = self.row.verdict in ("equal", "not reached")
        exact = self.row.quantity == "planned_updates"
        return self.finding is not None or (equal_or_not and not exact)


def drafts_of(
    pairing: Pairing, looked: Sequence[Quantity], margin: float
) -> list[Draft]:
    """Draft one schedule's rows of the quantities looked at, target by target."""
    to_target = [quantity for quantity in looked if quantity in TO_TARGET]
    at_end = [quantity for quantity in looked if quantity in AT_END]
    drafts = [Draft(_planned(pairing))] if "planned_updates" in looked else []
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
) -> Draft:
    values = [run.values(pairing.label, quantity, key) for run in pairing.runs]
    looks = pairing.pairs if key is None else pairing.pairs_at_same_looks(key[0])
    seeds = [seed for seed in looks if all(seed in by_seed for by_seed in values)]
    told = [[by_seed[seed] for seed in seeds] for by_seed in values]
    reached = [sum(map(math.isfinite, run)) for run in told]
    first = len(pairing.base)
    row = replace(
        _blank(pairing, quantity),
        target=pairing.runs[0].targets(pairing.label)[key].text if key else None,
        base_reached=sum(reached[:first]),
        base_trials=len(seeds) * first,
        new_reached=sum(reached[first:]),
        new_trials=len(seeds) * (len(values) - first),
        pairs=len(seeds),
        note=_lost(pairing, list(map(len, values))),
    )
    if not seeds:
        elsewhere = f": {key[0]} was measured at other looks" if key else ""
        only_looks = elsewhere if len(looks) < len(pairing.pairs) else ""
        return Draft(_noted(row, f"no pair{only_looks}"))
    twice = sum(set(of_seed) == {math.inf} for of_seed in zip(*told, strict=True))
    if twice == len(seeds):
        return Draft(_nothing(pairing, row, seeds))
    if twice:
        row = _noted(row, f"{_seeds(twice)} {_MISSED[quantity]} on both sides")
    judge = _seconds if quantity in SECONDS else _learning
    return judge(pairing, row, told[:first], told[first:], margin)


def _lost(pairing: Pairing, ended: Sequence[int]) -> str:
    """Of several runs a side, which have fewer seeds than the others."""
    if len(ended) == 2:
        return ""  # The notes name them.
    most = max(ended)
    fewer = [
        f"{run.name} has {count} of {most} seeds"
        for run, count in zip(pairing.runs, ended, strict=True)
        if count < most
    ]
    return ", ".join(fewer)


def _nothing(
    pairing: Pairing, row: ComparisonRow, seeds: Sequence[int]
) -> ComparisonRow:
    """A row of which no trial has a value; to diverge on every seed is one."""
    verdict: Verdict = "not reached"
    if row.quantity != "metric":
        row = replace(row, base=math.inf, new=math.inf)
        note = f"{_MISSED[row.quantity]} on both sides"
    elif pairing.all_diverged(seeds):
        verdict, note = "equal", "diverged on both sides"
    else:
        note = "no metric on either side"
    return _noted(replace(row, verdict=verdict), note)


def _learning(
    pairing: Pairing, row: ComparisonRow, base: Values, new: Values, margin: float
) -> Draft:
    """Updates, samples or the metric: they repeat, so each side's runs must agree."""
    is_metric = row.quantity == "metric"
    before, after = _mean_of_runs(base, is_metric), _mean_of_runs(new, is_metric)
    ways = pairing.metric_directions() if is_metric else set()
    if is_metric:
        higher = ways != {"<="}
        finding = metric_finding(before, after, margin, higher_is_better=higher)
    else:
        finding = ratio_finding(before, after, margin)
    for name, side in (("base", base), ("new", new)):
        unequal = sum(len(set(of_seed)) > 1 for of_seed in zip(*side, strict=True))
        if unequal:
            note = f"the runs of {name} differ on {unequal} of {row.pairs} seeds"
            return Draft(_noted(_centred(row, finding), note))
    if before == after:
        return Draft(replace(_centred(row, finding), verdict="equal"))
    row = _noted(
        row,
        _one_sided(finding.base_only, "in base only, tested as the worst"),
        _one_sided(finding.new_only, "in new only, tested as the best"),
    )
    if not is_metric or len(ways) == 1:
        return Draft(_bounded(row, finding), finding)
    other = metric_finding(before, after, margin, higher_is_better=not higher)
    if finding.within and other.within:
        return Draft(replace(_bounded(row, finding), verdict="same"))
    note = "which way is better is not known without a target on the metric"
    if ways:
        note = "the targets on the metric say that either way is better"
    return Draft(_noted(replace(_bounded(row, finding), verdict="not judged"), note))


def _mean_of_runs(side: Values, is_metric: bool) -> list[float]:
    """By pair, the mean of a side's runs: geometric but of a metric; equal ones exact."""
    return [
        of_seed[0]
        if len(set(of_seed)) == 1
        else math.inf
        if math.inf in of_seed
        else math.fsum(of_seed) / len(of_seed)
        if is_metric
        else math.prod(of_seed) ** (1 / len(of_seed))
        for of_seed in zip(*side, strict=True)
    ]


def _one_sided(seeds: int, told: str) -> str:
    return f"{_seeds(seeds)} with a metric {told}" if seeds else ""


def _seeds(number: int) -> str:
    return f"{number} seed{'s' if number > 1 else ''}"


def _seconds(
    pairing: Pairing, row: ComparisonRow, base: Values, new: Values, margin: float
) -> Draft:
    """Seconds: over seeds with one run a side, else over runs."""
    clock = pairing.other_clock()
    if len(base) == 1:
        finding = ratio_finding(base[0], new[0], margin)
        row = _noted(row, "" if clock or base == new else ONE_RUN)
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
            how = "diverged" if row.quantity == "total_train_seconds" else "reached"
            note = f"{missed} of {row.pairs} seeds: {how} in some runs only"
            return Draft(_noted(row, note))
        finding = runs_finding(_only(kept, base), _only(kept, new), margin)
    if clock:
        note = f"not compared: other {clock}"
        return Draft(_noted(_centred(row, finding), note))
    if base == new:
        return Draft(replace(_centred(row, finding), verdict="equal"))
    return Draft(_bounded(row, finding), finding)


def _only(kept: Sequence[int], side: Values) -> Values:
    return [[run[index] for index in kept] for run in side]


def family_of(drafts: Sequence[Draft]) -> list[float]:
    """The p of each row that is corrected over: of all that could have been tested.

    Which of them turn out equal, or are not reached, is for the data to say, so those
    count too, with a p of 1.
    """
    return [
        draft.finding.p if draft.finding else 1.0 for draft in drafts if draft.counts
    ]


def judged(drafts: Sequence[Draft]) -> list[ComparisonRow]:
    """Return the rows of all schedules, each tested one with its verdict by Holm's p."""
    family = family_of(drafts)
    adjusted = iter(statistics.holm(family))
    rows = []
    for draft in drafts:
        p = next(adjusted) if draft.counts else None
        if draft.finding is None or p is None:
            rows.append(draft.row)
        else:
            rows.append(_decided(draft.row, draft.finding, p, len(family)))
    return rows


def _decided(
    row: ComparisonRow, finding: Finding, p: float, family: int
) -> ComparisonRow:
    if p < GATE_LEVEL:
        verdict: Verdict = "worse" if row.quantity == "metric" else "slower"
        return replace(row, p=p, verdict=verdict)
    if finding.within:
        return replace(row, p=p, verdict="same", better=finding.better)
    few = ""
    if finding.method == "swaps" and finding.tested < pairs_to_decide(family):
        few = f"with misses, {family} rows need {pairs_to_decide(family)} pairs"
    elif finding.method == "pairs" and finding.pairs < MIN_PAIRS:
        few = f"no interval below {MIN_PAIRS} pairs"
    note = _joined(few, row.note)
    return replace(row, p=p, detectable=finding.detectable(family), note=note)


def _noted(row: ComparisonRow, *notes: str) -> ComparisonRow:
    return replace(row, note=_joined(row.note, *notes))


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


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
        better=False,
        detectable=None,
        note="",
    )


def _centred(row: ComparisonRow, finding: Finding) -> ComparisonRow:
    """The row with what its two sides came to."""
    row = replace(row, base=finding.base, new=finding.new, pairs=finding.pairs)
    if finding.is_ratio:
        return replace(row, ratio=finding.estimate)
    return replace(row, difference=finding.estimate)


def _bounded(row: ComparisonRow, finding: Finding) -> ComparisonRow:
    """The row with all that its finding says but the verdict."""
    row = _centred(row, finding)
    return replace(row, low=finding.low, high=finding.high)
