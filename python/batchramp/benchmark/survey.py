"""What a results folder holds of a race, and what is left to run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchramp.benchmark.continuing import (
    check_same_question,
    held_back,
    others_told,
    read_earlier,
    seeds_beyond,
)
from batchramp.benchmark.trial_files import ENDED, read_status
from batchramp.benchmark.trials import PlannedTrial, ResolvedSuite


@dataclass(frozen=True)
class Survey:
    """What a folder holds of a race.

    Attributes:
        trials: Those asked for, in the order of running.
        beyond: Ended ones of further seeds.
        pending: Those asked for that have not ended, each identity once.
        notes: What a person should know.
        earlier: The suite that the folder holds, as resolved; None if there is none.
        held_back: Labels whose earlier trials stay shown until they have new ones.
    """

    trials: list[PlannedTrial]
    beyond: list[PlannedTrial]
    pending: list[PlannedTrial]
    notes: list[str]
    earlier: dict[str, Any] | None
    held_back: frozenset[str]


def survey(
    folder: Path, resolved: ResolvedSuite, on_seed: Callable[[], None] = lambda: None
) -> Survey:
    """Look what of a suite's trials lies in a folder, and what else.

    Args:
        folder: The results folder; it need not exist.
        resolved: What is asked.
        on_seed: Called when the data of one more seed have been hashed.

    Raises:
        ValueError: The folder holds another question, or another format.
        OSError: Something in it cannot be read.
    """
    earlier = read_earlier(folder)
    if earlier is not None:
        check_same_question(folder, earlier, resolved.suite, resolved.workload.name)
    trials = resolved.order(on_seed=on_seed)
    further = resolved.order(seeds_beyond(folder, earlier, resolved.seeds()))
    named = [trial["id"] for trial in (earlier or {}).get("trial", [])]
    here = {trial.id for trial in (*trials, *further)} | set(named)
    ended = {name for name in here if read_status(folder, name) in ENDED}
    beyond = [trial for trial in further if trial.id in ended]
    unique = {trial.id: trial for trial in trials}
    notes = others_told(folder, [*trials, *beyond], trials)
    if beyond:
        seeds = sorted({trial.seed for trial in beyond})
        listed = ", ".join(map(str, seeds[:8])) + (" ..." if seeds[8:] else "")
        notes.append(
            f"{len(seeds)} more {'seed lies' if len(seeds) == 1 else 'seeds lie'} here "
            f"and {'counts' if len(seeds) == 1 else 'count'}: {listed}"
        )
    return Survey(
        trials=trials,
        beyond=beyond,
        pending=[trial for trial in unique.values() if trial.id not in ended],
        notes=notes,
        earlier=earlier,
        held_back=held_back(earlier, [*trials, *beyond], resolved.suite, ended),
    )
