"""Accelerate, which deals batches out to its processes and counts passes by itself."""

from typing import Any

from torch.utils.data import BatchSampler

from batchramp.sampler.trainers.frames import Counter, Standing, callers, holds

_KINDS = ("BatchSamplerShard", "DataLoaderShard", "DataLoaderDispatcher")


def before_drawing(sampler: BatchSampler, standing: Standing) -> None:
    """Refuses Accelerate dealing out anything but shares of the pass that it counts.

    It deals whole batches out to its processes: each would get every W-th one, the
    schedule would run W times too fast and ranks would train on batches of different
    lengths. Dealt shares (`rank=None`) are what it needs.

    Raises:
        ValueError: If so; it says what to write instead.
    """
    rank, world_size = standing.rank, standing.world_size
    pass_index = standing.due
    dealt = False
    for frame in callers():
        owner: Any = frame.f_locals.get("self")
        kind = type(owner).__name__
        if kind not in _KINDS or not holds(owner, sampler):
            continue
        if kind == "BatchSamplerShard":
            dealt = True
            processes = owner.num_processes
            if processes > 1 and (rank is not None or world_size != processes):
                raise ValueError(
                    f"rank must be None and world_size {processes} where Accelerate "
                    "deals the batches out to its processes, got "
                    f"rank={rank} and world_size={world_size}: write rank=None, "
                    "world_size=accelerator.num_processes, or keep the rank and leave "
                    "the loader out of accelerator.prepare"
                )
            continue
        if kind == "DataLoaderDispatcher" and owner.state.num_processes > 1:
            raise ValueError(
                "dispatch_batches must be False (Accelerate would cut the batches anew "
                "and drop what does not divide by the number of processes, got "
                f"{owner.state.num_processes}): write "
                "DataLoaderConfiguration(dispatch_batches=False)"
            )
        if kind == "DataLoaderShard" and rank is None and world_size > 1 and not dealt:
            raise ValueError(
                "world_size must be 1 where Accelerate runs in one process, which would "
                f"take each share for a batch, got {world_size}: write "
                "world_size=accelerator.num_processes"
            )
        if getattr(owner, "iteration", pass_index) != pass_index:
            raise ValueError(
                f"epoch must be {owner.iteration}, as of Accelerate's loader, got "
                f"{pass_index}, as its set_epoch does not reach through "
                "skip_first_batches: write loader.set_epoch(epoch), with the pass that "
                "you mean, before skip_first_batches; for transformers, give it all "
                "passes as one epoch (docs/trainers.md has the lines)"
            )
        return


def refuse_split() -> None:
    """Refuses Accelerate's `split_batches`, which needs a size that never changes.

    Raises:
        ValueError: If Accelerate asks for the batch size in order to split by it.
    """
    for frame in callers(depth=1):
        names = frame.f_locals
        if names.get("split_batches") is True and "num_processes" in names:
            raise ValueError(
                "split_batches must be False for a batch size that varies or is dealt "
                "out: write rank=None, world_size=accelerator.num_processes, which "
                "splits each batch"
            )


def counter_of(sampler: BatchSampler, standing: Standing, epoch: int) -> Counter | None:
    """Returns the count by which Accelerate's loader sets an epoch; None by hand.

    Whenever it begins, that loader calls `set_epoch` with the number of passes that it
    has finished, which knows nothing of a state or an epoch given to the sampler.

    Raises:
        ValueError: If the loader's workers have drawn ahead of it.
    """
    for frame in callers():
        owner: Any = frame.f_locals.get("self")
        if type(owner).__name__ not in _KINDS[1:] or not holds(owner, sampler):
            continue
        base = owner.base_dataloader
        if (
            standing.begun
            and _waits(base)
            and (epoch != standing.current or owner.batch_sampler is sampler)
        ):
            raise ValueError(
                "num_workers must be 0 with Accelerate's use_stateful_dataloader in one "
                f"process or where an epoch is set, got {base.num_workers}: its workers "
                "draw before the loader begins; or use a StatefulDataLoader outside "
                "accelerator.prepare"
            )
        if frame.f_code.co_name == "set_epoch":  # the user's own, perhaps
            continue
        return Counter(
            epoch,
            "Accelerate's loader, which counts by itself",
            "write loader.set_epoch(epoch), with the pass that you mean, before each "
            "pass over it, after load_state_dict and skip_first_batches too",
        )
    return None


def _waits(loader: Any) -> bool:
    """Whether a StatefulDataLoader's workers have drawn for a pass yet to begin."""
    iterator = getattr(loader, "_iterator", None)
    return (
        iterator is not None
        and hasattr(loader, "load_state_dict")
        and loader.num_workers > 0
        and iterator._num_yielded == 0
    )
