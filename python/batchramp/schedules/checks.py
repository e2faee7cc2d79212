"""What a schedule says, which may be a user's own, checked before anything follows it."""

import json
from collections.abc import Collection
from itertools import islice
from typing import Any

from batchramp.schedules.interface import (
    EVIDENCE,
    Horizon,
    Mark,
    Progress,
    Schedule,
    Settings,
)
from batchramp.schedules.parameters import (
    choice,
    momentum_coefficient,
    real_number,
    whole_number,
)
from batchramp.values import plain_text, shown

MAX_EVENTS = 100_000
"""The most events of a schedule: a plan has a stage for each, and shows them all."""


def check_schedule(given: Any) -> Schedule:
    """Returns a schedule, and refuses one whose declarations no trainer could honour.

    Raises:
        ValueError: If it is none, has no name, has parameters that are not JSON, asks
            for unknown evidence, or is adaptive and has a rate that follows the total
            number of updates.
    """
    if not isinstance(given, Schedule):
        is_class = isinstance(given, type) and issubclass(given, Schedule)
        raise ValueError(
            "schedule must be a Schedule, a name of batchramp.schedules.names() or "
            f"file.py:name, got {shown(given)}"
            f"{', a class: call it to make one' if is_class else ''}"
        )
    name = plain_text("name of a schedule", getattr(given, "name", None))
    _check_parameters(name, given.parameters())
    evidence: Any = given.evidence
    if isinstance(evidence, str) or not isinstance(evidence, Collection):
        raise ValueError(
            f"evidence of schedule {name} must be a set of names, got {shown(evidence)}"
        )
    for kind in sorted(evidence, key=str):
        choice(f"evidence of schedule {name}", kind, EVIDENCE)
    if evidence and given.needs_total_updates:
        raise ValueError(
            f"schedule {name!r} must not be adaptive and follow the total number of "
            "updates, which an adaptive schedule cannot know"
        )
    return given


def _check_parameters(name: str, parameters: Any) -> None:
    of = f"parameters() of schedule {name!r}"
    if not isinstance(parameters, dict):
        raise ValueError(f"{of} must return a dict, got {shown(parameters)}")
    for key, value in parameters.items():
        if not isinstance(key, str):
            raise ValueError(f"{of} must have strings as keys, got {shown(key)}")
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"{of} must return JSON values, got {shown(value)} as {shown(key)} "
                f"({error})"
            ) from error


def declared_events(schedule: Schedule, horizon: Horizon) -> tuple[Mark, ...]:
    """Returns a schedule's events.

    Raises:
        ValueError: If they are no marks, or more than `MAX_EVENTS`.
    """
    of = f"events of schedule {schedule.name!r}"
    declared: Any = schedule.events(horizon)
    try:
        events = tuple(islice(iter(declared), MAX_EVENTS + 1))
    except TypeError as error:
        raise ValueError(f"{of} must be marks, got {shown(declared)}") from error
    if len(events) > MAX_EVENTS:
        raise ValueError(f"{of} must be at most {MAX_EVENTS}, got more")
    for event in events:
        if not isinstance(event, Mark):
            raise ValueError(f"{of} must be marks, got {shown(event)}")
    return events


def decided(schedule: Schedule, horizon: Horizon, at: Progress, state: Any) -> Settings:
    """Returns what a schedule decides at a place without evidence.

    Raises:
        ValueError: If it returns no settings and state, or settings out of range.
    """
    where = f"schedule {schedule.name!r} at position {at.position}"
    found: Any = schedule.decide(at, None, state)
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise ValueError(
            f"{where}: decide must return settings and a state, got {shown(found)}"
        )
    settings = found[0]
    if not all(hasattr(settings, name) for name in Settings._fields):
        raise ValueError(
            f"{where}: decide must return Settings(batch_size, lr, momentum) first, "
            f"got {shown(settings)}"
        )
    try:
        size = whole_number("batch_size", settings.batch_size)
        lr = real_number("lr", settings.lr, "finite and at least 0")
        momentum = momentum_coefficient(settings.momentum)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if lr < 0:
        raise ValueError(f"{where}: lr must be finite and at least 0, got {lr}")
    if size > horizon.num_samples:
        raise ValueError(
            f"{where}: batch_size must be at most {horizon.num_samples} (the number of "
            f"samples), got {size}"
        )
    return Settings(size, lr, momentum)


def first_settings(schedule: Schedule, horizon: Horizon) -> Settings:
    """Returns what a schedule decides for the first update, before any evidence.

    For an adaptive schedule, which has no plan to show what it says.

    Raises:
        ValueError: If the schedule does not fit the horizon, or what it declares or
            decides is not what `Schedule` asks for.
    """
    declared_events(schedule, horizon)
    return decided(schedule, horizon, Progress(0, 0), schedule.init(horizon))
