"""The gate: is a new run slower than a base run, by more than noise and a margin?

Planned updates are compared exactly. Updates and seconds to a target are compared by an
interval of their ratio, except that runs of the very same trials (equal ids, so equal
inputs) must repeat their updates exactly, and pair their seconds by seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import polars as pl

from batchramp.benchmark import statistics
from batchramp.benchmark.passages import passages
from batchramp.benchmark.results import Results
from batchramp.benchmark.targets import Target, parse_target

Verdict = Literal["same", "slower", "undecided", "equal", "changed", "not reached"]
Quantity = Literal["planned_updates", "updates", "train_seconds", "total_train_seconds"]

_FAILING: tuple[Verdict, ...] = ("slower", "changed")


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonRow:
    """One quantity of one schedule, in both runs."""

    schedule: str
    quantity: Quantity
    """`planned_updates` of the plan; `updates` and `train_seconds` to a target;
    `total_train_seconds` of a whole trial, `inf` where it diverged."""
    target: str | None
    """The target, where the quantity has one."""
    base: float | None
    """In the base run: the geometric mean or the median, whichever the ratio is of;
    `inf` for "not reached"; None without a trial."""
    new: float | None
    """In the new run, likewise."""
    base_reached: int
    """Trials of the base run with a finite value, of `base_trials`."""
    base_trials: int
    new_reached: int
    """Trials of the new run with a finite value, of `new_trials`."""
    new_trials: int
    ratio: float | None
    """New over base: above 1 is slower; None where undefined."""
    low: float | None
    """Bounds of the ratio; None where compared exactly or no interval can be given."""
    high: float | None
    level: float | None
    """Level of the bounds."""
    verdict: Verdict
    """`equal` or `changed`: compared exactly; `slower`: the interval lies above 1 +
    margin; `same`: its upper end does not exceed that; `undecided`: neither;
    `not reached`: in neither run, so that there is nothing to compare or to gate."""
    detectable: float | None
    """Where undecided: the ratio from which this spread would have shown `slower`."""
    note: str
    """Why nothing could be compared, or what differs; empty otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A new run beside a base run."""

    margin: float
    """Slowdown that passes: 0.1 lets 10% through."""
    rows: tuple[ComparisonRow, ...]
    notes: tuple[str, ...]
    """Schedules, targets and trials that only one run has."""

    @property
    def exit_code(self) -> int:
        """1 if anything is slower or changed, else 3 if undecided, else 0."""
        verdicts = {row.verdict for row in self.rows}
        if verdicts.intersection(_FAILING):
            return 1
        return 3 if "undecided" in verdicts else 0

    def to_dicts(self) -> list[dict[str, Any]]:
        """The rows as dictionaries; bounds may be `inf`."""
        return [asdict(row) for row in self.rows]


def compare(base: Results, new: Results, margin: float = 0.1) -> Comparison:
    """Compare a new run with a base run, schedule by schedule, by label.

    Args:
        base: The run to hold up to.
        new: The run to judge.
        margin: Slowdown that passes, finite and at least 0.

    Returns:
        Per schedule of both runs: planned updates; updates and seconds to each target
        of both; total train seconds, a diverged trial's being infinite. Ratios are of
        geometric means where every trial got there, else of medians.

    Raises:
        ValueError: `margin` is out of range, the runs are of different workloads, or
            they share no schedule.
    """
    if not 0 <= margin < math.inf:
        raise ValueError(f"margin must be finite and at least 0, got {margin}")
    workloads = [_workload(results) for results in (base, new)]
    if workloads[0] != workloads[1]:
        raise ValueError(
            "compare needs two runs of one workload, got "
            f"{workloads[0]!r} and {workloads[1]!r}"
        )
    sides = [_entries(results) for results in (base, new)]
    labels = [label for label in sides[0] if label in sides[1]]
    if not labels:
        raise ValueError(
            "compare needs a schedule that both runs have, got "
            f"{', '.join(sides[0])} and {', '.join(sides[1])}"
        )
    notes = _only(sides[0], sides[1], "base") + _only(sides[1], sides[0], "new")
    passed = [passages(results) for results in (base, new)]
    rows: list[ComparisonRow] = []
    for label in labels:
        entries = [side[label] for side in sides]
        runs = [_Run.of(results, label) for results in (base, new)]
        mine = [frame.filter(schedule=label) for frame in passed]
        notes += _missing(label, runs, entries) + _unshared_targets(label, entries)
        rows.append(_planned(label, entries))
        rows += _schedule_rows(label, entries, runs, mine, margin)
    return Comparison(margin=margin, rows=tuple(rows), notes=tuple(notes))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """The trials of one schedule in one run."""

    ids: frozenset[str]
    failed: int
    diverged: int
    seconds: dict[int, float]
    """Total train seconds of each finished trial, by seed; `inf` for a diverged one."""

    @staticmethod
    def of(results: Results, label: str) -> _Run:
        ends = (
            results.rows.filter(schedule=label)
            .sort("position")
            .group_by("trial")
            .agg(pl.col("seed", "status", "train_seconds").last())
        )
        return _Run(
            ids=frozenset(ends["trial"]),
            failed=ends.filter(status="failed").height,
            diverged=ends.filter(status="diverged").height,
            seconds=_by_seed(ends.filter(status="finished"), "train_seconds")
            | dict.fromkeys(ends.filter(status="diverged")["seed"], math.inf),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Question:
    """What is asked of one row: values by seed, `inf` for a miss."""

    schedule: str
    quantity: Quantity
    target: str | None
    base: dict[int, float]
    new: dict[int, float]
    paired: bool
    margin: float

    def row(
        self,
        verdict: Verdict,
        ratio: statistics.Ratio | None = None,
        note: str = "",
        detectable: float | None = None,
        centers: tuple[float | None, float | None] | None = None,
    ) -> ComparisonRow:
        base, new = centers or (
            statistics.median(list(self.base.values())),
            statistics.median(list(self.new.values())),
        )
        return ComparisonRow(
            schedule=self.schedule,
            quantity=self.quantity,
            target=self.target,
            base=base,
            new=new,
            base_reached=sum(map(math.isfinite, self.base.values())),
            base_trials=len(self.base),
            new_reached=sum(map(math.isfinite, self.new.values())),
            new_trials=len(self.new),
            ratio=ratio.estimate if ratio else None,
            low=ratio.low if ratio else None,
            high=ratio.high if ratio else None,
            level=ratio.level if ratio else None,
            verdict=verdict,
            detectable=detectable,
            note=note or (ratio.note if ratio else ""),
        )


def _schedule_rows(
    label: str,
    entries: list[dict[str, Any]],
    runs: list[_Run],
    passed: list[pl.DataFrame],
    margin: float,
) -> list[ComparisonRow]:
    """One schedule's races and total; every list holds base's, then new's."""
    repeated = bool(runs[0].ids) and runs[0].ids == runs[1].ids

    def question(
        quantity: Quantity, target: str | None, values: list[dict[int, float]]
    ) -> _Question:
        return _Question(
            schedule=label,
            quantity=quantity,
            target=target,
            base=values[0],
            new=values[1],
            paired=repeated,
            margin=margin,
        )

    rows = []
    base_targets, new_targets = map(_targets, entries)
    for key, target in base_targets.items():
        if key not in new_targets:
            continue
        texts = (target.text, new_targets[key].text)
        looks = [
            frame.filter(target=text) for frame, text in zip(passed, texts, strict=True)
        ]
        updates = [_by_seed(frame, "updates") for frame in looks]
        seconds = [_by_seed(frame, "train_seconds") for frame in looks]
        judge = _exactly if repeated else _by_ratio
        rows.append(judge(question("updates", target.text, updates)))
        rows.append(_by_ratio(question("train_seconds", target.text, seconds)))
    totals = [run.seconds for run in runs]
    rows.append(_by_ratio(question("total_train_seconds", None, totals)))
    return rows


def _planned(label: str, entries: list[dict[str, Any]]) -> ComparisonRow:
    before, after = (entry["planned_updates"] for entry in entries)
    adaptive = before is None and after is None
    return ComparisonRow(
        schedule=label,
        quantity="planned_updates",
        target=None,
        base=before,
        new=after,
        base_reached=0,
        base_trials=0,
        new_reached=0,
        new_trials=0,
        ratio=after / before if before and after else None,
        low=None,
        high=None,
        level=None,
        verdict="equal" if before == after else "changed",
        detectable=None,
        note="adaptive: nothing is planned" if adaptive else "",
    )


def _exactly(question: _Question) -> ComparisonRow:
    """The same trials must have made the same updates, seed by seed."""
    seeds = question.base.keys() & question.new.keys()
    if not seeds:
        return question.row("undecided", note="no seed that both runs counted")
    different = sum(question.base[seed] != question.new[seed] for seed in seeds)
    if different:
        note = f"{different} of {len(seeds)} seeds differ in the same trial"
        return question.row("changed", note=note)
    return question.row("equal")


def _by_ratio(question: _Question) -> ComparisonRow:
    base, new = list(question.base.values()), list(question.new.values())
    if not base or not new:
        empty = "base" if not base else "new"
        return question.row("undecided", note=f"no trial of {empty} counts")
    if all(map(math.isinf, (*base, *new))):
        return question.row("not reached", note="not reached in either run")
    ratio = _ratio(question)
    if ratio.low is None and question.paired and question.base == question.new:
        return question.row("equal")
    centers = None
    if ratio.method != "medians":
        centers = (_geometric_mean(base), _geometric_mean(new))
    verdict: Verdict = "undecided"
    detectable = None
    threshold = 1 + question.margin
    if ratio.low is not None and ratio.high is not None:
        if ratio.low > threshold:
            verdict = "slower"
        elif ratio.high <= threshold:
            verdict = "same"
        elif ratio.low > 0 and ratio.estimate is not None:
            detectable = threshold * ratio.estimate / ratio.low
            detectable = detectable if math.isfinite(detectable) else None
    return question.row(verdict, ratio, detectable=detectable, centers=centers)


def _ratio(question: _Question) -> statistics.Ratio:
    if question.paired:
        seeds = sorted(question.base.keys() & question.new.keys())
        pairs = [(question.new[seed], question.base[seed]) for seed in seeds]
        # A seed that missed in both runs says nothing of their seconds.
        pairs = [pair for pair in pairs if not all(map(math.isinf, pair))]
        if pairs and all(0 < value < math.inf for pair in pairs for value in pair):
            return statistics.ratio_of_pairs(
                [value for value, _ in pairs], [value for _, value in pairs]
            )
    return statistics.ratio(list(question.new.values()), list(question.base.values()))


def _geometric_mean(values: list[float]) -> float:
    """Of the finite values: a pair that missed together has no seconds to compare."""
    reached = [value for value in values if math.isfinite(value)]
    return math.exp(math.fsum(map(math.log, reached)) / len(reached))


def _workload(results: Results) -> str:
    names = results.rows["workload"].unique().sort().to_list()
    return ", ".join(names) or str(results.suite.get("workload"))


def _entries(results: Results) -> dict[str, dict[str, Any]]:
    return {row["schedule"]: row for row in results.entries.iter_rows(named=True)}


def _only(mine: Mapping[str, Any], others: Mapping[str, Any], name: str) -> list[str]:
    return [f"{label}: only in {name}" for label in mine if label not in others]


def _targets(entry: Mapping[str, Any]) -> dict[tuple[str, str, float], Target]:
    targets = map(parse_target, entry["targets"])
    # By value, so that 0.020 and 0.02 are one target.
    return {
        (target.column, target.direction, target.value): target for target in targets
    }


def _unshared_targets(label: str, entries: list[dict[str, Any]]) -> list[str]:
    base, new = map(_targets, entries)
    return [
        f"{label}: target {target.text} only in {name}"
        for mine, others, name in ((base, new, "base"), (new, base, "new"))
        for key, target in mine.items()
        if key not in others
    ]


def _missing(label: str, runs: list[_Run], entries: list[dict[str, Any]]) -> list[str]:
    notes = []
    for name, run, entry in zip(("base", "new"), runs, entries, strict=True):
        unrun = max(entry["seeds"] - len(run.ids), 0)
        told = [
            f"{number} {word}"
            for number, word in (
                (run.diverged, "diverged"),
                (run.failed, "failed"),
                (unrun, "not run"),
            )
            if number
        ]
        if told:
            notes.append(f"{label}, {name}, {entry['seeds']} seeds: {', '.join(told)}")
    return notes


def _by_seed(frame: pl.DataFrame, column: str) -> dict[int, float]:
    ordered = frame.sort("seed")
    return dict(zip(ordered["seed"], ordered[column], strict=True))
