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
    frames = callers(8)
    first = next(frames, None)
    if first is None or not _repeats(first.f_locals.get("self"), sampler):
        return
    owners = [frame.f_locals.get("self") for frame in frames]
    workers = max(getattr(owner, "_num_workers", 0) for owner in owners)
    if not workers:
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
    loader: Any = None
    for frame, name in zip(callers(2), ("__len__", "__iter__"), strict=False):
        if frame.f_code.co_name != name:
            return False
        loader = frame.f_locals.get("self")
    return (
        loader is not None
        and _repeats(getattr(loader, "batch_sampler", None), sampler)
        and not getattr(loader, "num_workers", 0)
    )


def _repeats(owner: Any, sampler: BatchSampler) -> bool:
    return (
        type(owner).__name__ == "_RepeatSampler"
        and getattr(owner, "sampler", None) is sampler
    )
