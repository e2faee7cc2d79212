"""Loaders that keep one endless iterator for all passes: timm's and ultralytics'."""

from typing import Any

from torch.utils.data import BatchSampler

from batchramp.sampler.trainers.frames import Standing, callers


def before_drawing(sampler: BatchSampler, standing: Standing) -> None:
    """Refuses an endless iterator whose workers draw from passes that are yet to begin.

    Such a loader asks for the length when an epoch of its loop begins. Without workers
    that is when a pass ends; with workers the sampler stands some batches further on.

    Raises:
        ValueError: If passes may differ in length or a plan ends, or if `set_epoch` was
            called for a pass that workers have drawn from.
    """
    workers, endless = 0, False
    for frame in callers(8):
        owner: Any = frame.f_locals.get("self")
        endless = endless or _repeats(owner, sampler)
        workers = workers or getattr(owner, "_num_workers", 0)
    if not endless or not workers:
        return
    advice = (
        "write DataLoader(..., persistent_workers=True), which keeps its workers from "
        "pass to pass"
    )
    if standing.planned or not standing.even:
        raise ValueError(
            "num_workers must be 0 where one endless iterator draws passes that may "
            f"differ in length or come to an end, got {workers}: {advice}"
        )
    if standing.begun and standing.due == standing.current:
        raise ValueError(
            "set_epoch must be left out where the workers of one endless iterator have "
            f"drawn from pass {standing.due} before it was called: leave it out, or "
            f"{advice}"
        )


def asks(sampler: BatchSampler) -> bool:
    """Whether it is such a loader without workers that asks how many batches to take."""
    owners = [frame.f_locals.get("self") for frame in callers(2)]
    names = [frame.f_code.co_name for frame in callers(2)]
    return (
        names == ["__len__", "__iter__"]
        and owners[0] is owners[1]
        and _repeats(getattr(owners[0], "batch_sampler", None), sampler)
        and not getattr(owners[0], "num_workers", 0)
    )


def _repeats(owner: Any, sampler: BatchSampler) -> bool:
    return (
        type(owner).__name__ == "_RepeatSampler"
        and getattr(owner, "sampler", None) is sampler
    )
