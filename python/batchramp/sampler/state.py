"""A sampler's state: JSON-able, of constant size, the same on every rank."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from batchramp._rust import Batches
from batchramp.sampler.sizes import MAX_POSITION
from batchramp.values import shown, whole

_VERSION = 2
"""Version 1 knew no indices, no size that the sampler was made with, and wrote a finished
pass as the rest of it, which is nothing."""
_SINCE_VERSION_2: dict[str, Any] = {"indices": None, "batch_size": None}
_IDENTITY = ("algo", "n", "indices", "seed", "boundary", "schedule_id")
"""What a state must share with the sampler that loads it."""


class Cursor(NamedTuple):
    """Where an iteration stands, the same on every rank."""

    pass_index: int
    position: int
    """Of the next batch, or of the one whose shares are being dealt out."""
    batches: int
    """Of this pass, wholly yielded."""
    slices: int
    """Shares yielded of the batch at `position`."""


def write_state(
    cursor: Cursor,
    batches: Batches,
    batch_size: int | None,
    runs: list[list[int]] | None,
    schedule_id: str | None,
) -> dict[str, Any]:
    """Returns a new dict.

    Args:
        cursor: Where the sampler stands.
        batches: The stream it cuts.
        batch_size: The global size that the sampler was made with; None where a
            schedule decides it.
        runs: Sizes set by hand, [position, size]: the one in force and those to come;
            None where a schedule decides them.
        schedule_id: The fingerprint of the plan or the list of sizes; None for a
            callable and for sizes by hand.
    """
    return {
        "version": _VERSION,
        "algo": batches.order_version,
        "n": batches.num_samples,
        "indices": batches.indices_digest,
        "seed": batches.seed,
        "boundary": batches.boundary,
        "epoch": cursor.pass_index,
        "samples_consumed_global": (
            cursor.position - cursor.pass_index * batches.num_samples
        ),
        "batches_yielded": cursor.batches,
        "slices_yielded": cursor.slices,
        "batch_size": batch_size,
        "batch_sizes": runs,
        "schedule_id": schedule_id,
    }


def read_state(
    state: Mapping[str, Any], ours: Mapping[str, Any]
) -> tuple[Cursor, list[tuple[int, int]] | None]:
    """Returns where a state stands and the sizes set by hand.

    Args:
        state: What `write_state` returned, perhaps through JSON. What a subclass adds
            to it is left alone.
        ours: The loading sampler's own state, whose identity it must share.

    Raises:
        ValueError: If it is not a state, or belongs to another sampler.
    """
    if not isinstance(state, Mapping):
        raise ValueError(f"state must be a mapping, got {shown(state)}")
    if "version" in state:
        version = whole("state's version", state["version"])
        if version not in (1, _VERSION):
            raise ValueError(
                f"state's version must be 1 or {_VERSION}, got {shown(version)}"
            )
        if version == 1:
            state = {**_SINCE_VERSION_2, "batch_size": ours["batch_size"], **state}
    missing = [key for key in ours if key not in state]
    if missing:
        raise ValueError(
            f"state must have the keys {', '.join(ours)}, got {shown(list(state))} "
            f"without {', '.join(missing)}"
        )
    for key in _IDENTITY:
        given = state[key]
        if isinstance(ours[key], int):
            given = whole(f"state's {key}", given)
        if not isinstance(given, type(ours[key])) or given != ours[key]:
            raise ValueError(
                f"state's {key} must be {ours[key]!r}, as the sampler's, "
                f"got {shown(state[key])}"
            )
    size = state["batch_size"]
    if (size is None) != (ours["batch_size"] is None):
        raise ValueError(
            "state's batch_size must be null where a schedule decides it and only "
            f"there, got {shown(size)}"
        )
    if size is not None:
        size = whole("state's batch_size", size)
    if size != ours["batch_size"]:
        raise ValueError(
            f"state's batch_size must be {ours['batch_size']}, the global size that the "
            f"sampler was made with, got {shown(size)}: make it with "
            "that one, and call set_batch_size with the new one after the load"
        )
    epoch, consumed, batches, slices = (
        whole(f"state's {key}", state[key], least=0)
        for key in (
            "epoch",
            "samples_consumed_global",
            "batches_yielded",
            "slices_yielded",
        )
    )
    num_samples, wrap = ours["n"], ours["boundary"] == "wrap"
    check_epoch("state's epoch", epoch, num_samples)
    # A pass begins at its first sample, or under `wrap` anywhere before its last one.
    most = (2 * num_samples - 1 if wrap else num_samples) if batches else 0
    most = num_samples - 1 if wrap and not batches else most
    if not batches <= consumed <= most:
        raise ValueError(
            "state's samples_consumed_global must be at least "
            f"{shown(batches)} and at most {most} after {shown(batches)} batches of "
            f"{num_samples} samples, got {shown(consumed)}"
        )
    if slices and consumed >= num_samples:
        raise ValueError(
            f"state's slices_yielded must be 0 at a pass's end, got {shown(slices)}"
        )
    cursor = Cursor(epoch, epoch * num_samples + consumed, batches, slices)
    adjustable = ours["batch_sizes"] is not None
    return cursor, _read_runs(state["batch_sizes"], adjustable, cursor.position)


def check_epoch(name: str, epoch: Any, num_samples: int) -> int:
    """Returns the number of a pass that positions reach, or raises ValueError."""
    pass_index = whole(name, epoch, least=0)
    most = MAX_POSITION // num_samples - 3
    if pass_index > most:
        raise ValueError(f"{name} must be at most {most}, got {shown(pass_index)}")
    return pass_index


def _read_runs(
    runs: Any, adjustable: bool, position: int
) -> list[tuple[int, int]] | None:
    if (runs is None) == adjustable:
        raise ValueError(
            "state's batch_sizes must be null where a schedule decides them and "
            f"only there, got {shown(runs)}"
        )
    if runs is None:
        return None
    if (
        not isinstance(runs, list | tuple)
        or not runs
        or any(not isinstance(run, list | tuple) or len(run) != 2 for run in runs)
    ):
        raise ValueError(
            f"state's batch_sizes must be pairs of position and size, got {shown(runs)}"
        )
    found = [
        (
            whole("state's batch_sizes", at, least=0, most=MAX_POSITION),
            whole("state's batch_sizes", size),
        )
        for at, size in runs
    ]
    starts = [at for at, _ in found]
    if starts[0] != 0 or sorted({position, *starts[1:]}) != [position, *starts[1:]]:
        raise ValueError(
            "state's batch_sizes must begin at 0 and go on past the place where it "
            f"stands ({position}), by position, got {shown(runs)}"
        )
    return found
