"""Accelerate, which deals batches out to its processes and counts passes by itself."""

from types import FrameType
from typing import Any

from torch.utils.data import BatchSampler

from batchramp.sampler.trainers.frames import Counter, Standing, callers, holds

_LOADERS = ("DataLoaderShard", "DataLoaderDispatcher")
_WHOSE = "Accelerate's loader, which counts by itself"
_ADVICE = (
    "write loader.set_epoch(epoch), with the pass that you mean, before each pass over "
    "it, after load_state_dict and before skip_first_batches too"
)


def before_drawing(sampler: BatchSampler, standing: Standing) -> Counter | None:
    """Checks that Accelerate would deal out the pass due as it is meant.

    It deals whole batches out to its processes: each would get every W-th one, the
    schedule would run W times too fast and ranks would train on batches of different
    lengths. Dealt shares (`rank=None`) are what it needs.

    Returns:
        The pass that its loader counts, which it cannot say through
        `skip_first_batches` in several processes.

    Raises:
        ValueError: If it would deal out anything else; it says what to write instead.
    """
    dealt = False
    for frame in callers():
        owner: Any = frame.f_locals.get("self")
        kind = type(owner).__name__
        # Also for a wrapper of the user's own, which passes the batches on.
        if kind == "BatchSamplerShard":
            dealt = True
            _refuse_whole(owner.num_processes, standing)
        elif kind == "DataLoaderDispatcher":
            _refuse_dispatch(frame, kind)
        if not holds(owner, sampler):
            continue
        if kind == "SkipBatchSampler":
            _refuse_skipping(owner.skip_batches, standing)
        elif kind in _LOADERS:
            if frame.f_code.co_name == "__init__":
                raise ValueError(
                    "num_workers must be 0 with Accelerate's use_stateful_dataloader, "
                    f"got {owner.base_dataloader.num_workers}: its workers draw while "
                    "the loader is prepared, before it says which pass begins; or leave "
                    "use_stateful_dataloader out and save sampler.state_at(trained), or "
                    "leave a StatefulDataLoader out of accelerator.prepare"
                )
            if standing.rank is None and standing.world_size > 1 and not dealt:
                raise ValueError(
                    "world_size must be 1 where Accelerate runs in one process, which "
                    f"would take each share for a batch, got {standing.world_size}: "
                    "write world_size=accelerator.num_processes"
                )
            return Counter(owner.iteration, _WHOSE, _ADVICE)
    return None


def counter_of(sampler: BatchSampler, standing: Standing, epoch: int) -> Counter | None:
    """Returns the count by which Accelerate's loader sets an epoch; None by hand.

    Whenever it begins, that loader calls `set_epoch` with the number of passes that it
    has finished, which knows nothing of a state or an epoch given to the sampler.

    Raises:
        ValueError: If the loader dispatches to several processes, or is about to skip
            into a pass that its own state does not name.
    """
    for frame in callers():
        owner: Any = frame.f_locals.get("self")
        kind, name = type(owner).__name__, frame.f_code.co_name
        if kind not in _LOADERS or name != "__iter__" or not holds(owner, sampler):
            continue
        _refuse_dispatch(frame, kind)
        # In several processes the sampler's state is no part of the loader's.
        resumes = getattr(owner.base_dataloader, "next_iter_state", None) is not None
        said = standing.told and standing.due == standing.current
        if resumes and owner.batch_sampler is not sampler and not said:
            raise ValueError(
                "epoch must be said where a stateful loader resumes in several "
                f"processes, whose state does not hold it, got {epoch} from "
                f"{_WHOSE}: write loader.set_epoch(epoch), with the pass that was saved"
            )
        return Counter(epoch, _WHOSE, _ADVICE)
    return None


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


def refuse_saving(sampler: BatchSampler, standing: Standing) -> None:
    """Refuses to be saved by `accelerator.save_state` within a pass.

    A state says what was drawn, and Accelerate draws a batch ahead of what is trained,
    workers more. (At a pass's last batch both are the same.)

    Raises:
        ValueError: If `register_for_checkpointing` was given the sampler and a pass of
            its batches is being drawn; it says what to register instead.
    """
    if not any(frame.f_code.co_name == "save_custom_state" for frame in callers(1)):
        return
    within = standing.begun and not standing.finished
    for frame in callers(3):
        accelerator: Any = frame.f_locals.get("self")
        if type(accelerator).__name__ == "Accelerator":
            within = within or any(
                loader is not None
                and not loader.end_of_dataloader
                and holds(loader, sampler)
                for loader in accelerator.gradient_state.dataloader_references
            )
    if within:
        raise ValueError(
            "sampler must not be registered for checkpointing where save_state is "
            "called within a pass, as loaders draw ahead of what is trained: "
            "register an object whose state_dict returns sampler.state_at(trained) "
            "and whose load_state_dict calls sampler.load_state_dict "
            "(docs/trainers.md has the lines), or save between passes"
        )


def _refuse_skipping(batches: int, standing: Standing) -> None:
    """Raises ValueError if batches are skipped that a loaded state has skipped."""
    if batches and standing.loaded:
        raise ValueError(
            f"skip_first_batches must be left out after load_state_dict, which goes on "
            f"after {standing.loaded} batches of pass {standing.current} by itself, got "
            f"{batches} more to skip: iterate over the loader (for transformers' "
            "Trainer, write ignore_data_skip=True)"
        )


def _refuse_whole(processes: int, standing: Standing) -> None:
    """Raises ValueError if anything but shares for all processes is dealt out."""
    rank, world_size = standing.rank, standing.world_size
    if processes > 1 and (rank is not None or world_size != processes):
        raise ValueError(
            f"rank must be None and world_size {processes} where Accelerate "
            "deals the batches out to its processes, got "
            f"rank={rank} and world_size={world_size}: write rank=None, "
            "world_size=accelerator.num_processes, or keep the rank and leave "
            "the loader out of accelerator.prepare"
        )


def _refuse_dispatch(frame: FrameType, kind: str) -> None:
    """Raises ValueError if one process would cut the batches for several."""
    if kind != "DataLoaderDispatcher":
        return
    processes = frame.f_globals["PartialState"]().num_processes
    if processes > 1:
        raise ValueError(
            "dispatch_batches must be False (Accelerate would cut the batches anew "
            f"and drop what does not divide by the number of processes, got {processes}"
            "): write DataLoaderConfiguration(dispatch_batches=False)"
        )
