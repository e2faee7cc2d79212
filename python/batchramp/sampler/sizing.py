"""What says a sampler's batch sizes: a number, a plan, a list of pairs or a function."""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias, cast

from batchramp._rust import Batches
from batchramp.sampler.sizes import MAX_POSITION, CalledSizes, SizeRuns
from batchramp.sampler.sources import StaticPlan, check_plan
from batchramp.values import shown, whole

Schedule: TypeAlias = StaticPlan | Sequence[tuple[int, int]] | Callable[[int], int]
"""A `Plan`, (samples, size) pairs, or a function of the position."""


class Sizing(NamedTuple):
    """The sizes, and what is known of them."""

    sizes: SizeRuns | CalledSizes
    budget: int | None
    """The position before which a plan's last batch begins."""
    schedule_id: str | None
    """Names a plan or a list of pairs in a state."""


def plan_of(schedule: Schedule | None) -> StaticPlan | None:
    """Returns a schedule if it is neither a list of pairs nor a function."""
    if schedule is None or isinstance(schedule, list | tuple) or callable(schedule):
        return None
    return cast("StaticPlan", schedule)


def read_sizes(
    batch_size: int | None,
    schedule: Schedule | None,
    batches: Batches,
    check: Callable[[int], int],
) -> Sizing:
    """Returns the sizes that a sampler is made with.

    Args:
        batch_size: The one size, checked; None where `schedule` decides.
        schedule: What decides else.
        batches: The stream they cut.
        check: Returns a size if it is one, and raises ValueError otherwise.

    Raises:
        ValueError: If a size is out of range, or a plan of other samples.
    """
    if batch_size is not None:
        return Sizing(SizeRuns(batches, [(0, batch_size)]), None, None)
    if (plan := plan_of(schedule)) is not None:
        check_plan(plan, batches.num_samples)
        for _, size in plan.runs:
            check(size)
        budget = plan.horizon.budget
        return Sizing(SizeRuns(batches, plan.runs), budget, plan.fingerprint)
    if isinstance(schedule, list | tuple):
        runs = _check_ramp(schedule, check)
        written = json.dumps(runs).encode()
        name = hashlib.sha256(written).hexdigest()[:16]
        return Sizing(SizeRuns(batches, runs), None, name)
    function = cast("Callable[[int], int]", schedule)
    return Sizing(CalledSizes(batches, function, check), None, None)


def _check_ramp(
    pairs: Sequence[object], check: Callable[[int], int]
) -> list[tuple[int, int]]:
    """Returns a list of (samples, size) pairs as runs, or raises ValueError.

    Args:
        pairs: From how many samples on which size holds, ascending from 0.
        check: Returns the size if it is one, and raises ValueError otherwise.
    """
    if not pairs or any(
        not isinstance(pair, list | tuple) or len(pair) != 2 for pair in pairs
    ):
        raise ValueError(
            "schedule must be pairs of samples and batch size, as [(0, 16), (1000, 64)],"
            f" got {shown(pairs)}"
        )
    runs: list[tuple[int, int]] = []
    for at, size in cast("Sequence[tuple[int, int]]", pairs):
        samples = whole("schedule's samples", at, least=0, most=MAX_POSITION)
        if samples != 0 if not runs else samples <= runs[-1][0]:
            raise ValueError(
                "schedule must begin at 0 samples and go on by more and more, "
                f"got {shown(pairs)}"
            )
        runs.append((samples, check(size)))
    return runs
