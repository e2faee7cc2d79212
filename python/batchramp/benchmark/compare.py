"""The gate: is a new run worse than a base run, by more than noise and a margin?

Everything is paired by seed, whatever the trials' ids. Planned updates are compared
exactly. The rest is judged by one-sided tests, corrected over all rows looked at, and by
intervals; `docs/compare.md` has the rules.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

from batchramp.benchmark import comparison_notes
from batchramp.benchmark.comparison import QUANTITIES, Comparison, Quantity
from batchramp.benchmark.comparison_rows import drafts_of, family_of, judged
from batchramp.benchmark.gate_statistics import MIN_RUNS
from batchramp.benchmark.pairing import TO_TARGET, Pairing, Run
from batchramp.benchmark.results import Results, read_results
from batchramp.names import suggest, user_path


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
            the sides have a number of runs that cannot be compared, or of several runs
            a side two share a measurement.
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
        draft for pairing in pairings for draft in drafts_of(pairing, looked, margin)
    ]
    rows = judged(drafts)
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
        family=len(family_of(drafts)),
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
    if "," not in argument or user_path(argument).exists():
        return [read_results(argument)]
    names = argument.split(",")
    if "" in names:
        raise ValueError(f"runs must be folders with commas between, got {argument!r}")
    folders = [user_path(name).resolve() for name in names]
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
    if counts != [1, 1]:
        _refuse_copies([run for side in sides for run in side])
    return sides[0], sides[1]


def _refuse_copies(runs: Sequence[Run]) -> None:
    """Runs are the unit, so a copy would count as evidence of how much runs vary."""
    for run, other in itertools.combinations(runs, 2):
        shared = len(run.measured & other.measured)
        if shared:
            raise ValueError(
                f"runs must be measured by themselves, got {run.name} and {other.name} "
                f"with {shared} of {len(run.measured)} trials equal to the last bit of "
                "their seconds: a copy"
            )
