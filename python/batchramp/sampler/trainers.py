"""Trainers that would draw from a sampler otherwise than it means, and what to write.

Some trainers wrap or rebuild a batch sampler without a word and then lose batches, the
schedule or the order. Nothing that they call says who they are, so they are recognised
by the frames of the call: nothing is imported, and nothing happens elsewhere.
"""

import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, cast

from torch.utils.data import BatchSampler, DistributedSampler

_DEPTH = 16
"""Frames looked through: a loader's own calls, with room to spare."""
_LIGHTNING = ("lightning", "pytorch_lightning", "lightning_fabric")
_OF_ACCELERATE = ("BatchSamplerShard", "DataLoaderShard", "DataLoaderDispatcher")
_IN_LIGHTNING = (
    "in Lightning, set use_distributed_sampler=False (in Fabric, for setup_dataloaders)"
    " and give the sampler rank and world_size"
)


def refuse_rebuild(theirs: DistributedSampler[Any]) -> None:
    """Refuses to stand in for a sampler of which Lightning would lose a part.

    Lightning puts a `DistributedSampler` into a copy of the user's batch sampler. What
    is built in a `*_dataloader` hook, or under `Fabric.launch`, is copied with all its
    arguments; of any other only `batch_size` and `drop_last` are kept. Fabric's
    `DistributedSampler` never shuffles beside a batch sampler.

    Args:
        theirs: The `DistributedSampler` that a constructor was given.

    Raises:
        ValueError: If a part would be lost; it says what to write instead.
    """
    for frame in _callers():
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in _LIGHTNING:
            continue
        names = frame.f_locals
        original = names.get("orig_object")
        if isinstance(original, BatchSampler):  # copied with all its arguments
            order = cast(Any, original).state_dict()["algo"]
            if not theirs.shuffle and not order.startswith("sequential"):
                raise ValueError(
                    "sampler must be shuffled as the batch sampler is, got a "
                    f"DistributedSampler with shuffle=False: {_IN_LIGHTNING}"
                )
            return
        if isinstance(names.get("batch_sampler"), BatchSampler):
            raise ValueError(
                "sampler must not be replaced in a copy that keeps batch_size and "
                "drop_last alone and loses schedule, seed, order and boundary: "
                f"{_IN_LIGHTNING}, or build it inside train_dataloader()"
            )


def refuse_drawing(
    sampler: BatchSampler,
    rank: int | None,
    world_size: int,
    pass_index: int,
    length_of: Callable[[int], int],
) -> None:
    """Refuses a trainer that is about to draw a pass otherwise than it means.

    Accelerate deals whole batches out to its processes: each would get every W-th one,
    the schedule would run W times too fast and ranks would train on batches of different
    lengths. Dealt shares (`rank=None`) are what it needs.

    Lightning and transformers ask for the first pass's length and stop every pass there:
    the rest of a longer one would never be trained on. transformers resumes by that
    length too, and at pass 0 unless Accelerate prepared the loader.

    Args:
        sampler: The sampler, about to yield a pass's first batch.
        rank: Its rank.
        world_size: Its number of ranks.
        pass_index: The pass.
        length_of: Says how many batches of all ranks a pass has.

    Raises:
        ValueError: If such a trainer draws; it says what to write instead.
    """
    loaded = sys.modules.keys()
    if "accelerate" in loaded:
        _refuse_dealing(sampler, rank, world_size, pass_index)
    if {"lightning", "pytorch_lightning", "transformers"} & loaded:
        _refuse_cut(sampler, pass_index, world_size if rank is None else 1, length_of)


def _refuse_dealing(
    sampler: BatchSampler, rank: int | None, world_size: int, pass_index: int
) -> None:
    """Raises ValueError if Accelerate deals out anything but shares of this pass."""
    dealt = False
    for frame in _callers():
        owner: Any = frame.f_locals.get("self")
        kind = type(owner).__name__
        if kind not in _OF_ACCELERATE or not _holds(owner, sampler):
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
    for frame in _callers(depth=1):
        names = frame.f_locals
        if names.get("split_batches") is True and "num_processes" in names:
            raise ValueError(
                "split_batches must be False for a batch size that varies or is dealt "
                "out: write rank=None, world_size=accelerator.num_processes, which "
                "splits each batch"
            )


def refuse_epoch(sampler: BatchSampler, epoch: int, current: int, drawn: bool) -> None:
    """Refuses an epoch that Accelerate's loader sets from its own count.

    Whenever it begins, that loader calls `set_epoch` with the number of passes that it
    has finished, which knows nothing of a state or an epoch given to the sampler.

    Args:
        sampler: The sampler whose `set_epoch` is called.
        epoch: The pass it asks for.
        current: The pass where the sampler stands.
        drawn: Whether a batch of that pass has been drawn.

    Raises:
        ValueError: If the loader goes anywhere but to this pass or the next, or if it
            has drawn ahead of itself; it says what to write instead.
    """
    if "accelerate" not in sys.modules:
        return
    for frame in _callers():
        owner: Any = frame.f_locals.get("self")
        if type(owner).__name__ not in _OF_ACCELERATE[1:]:
            continue
        if not _holds(owner, sampler):
            continue
        base = owner.base_dataloader
        if (
            drawn
            and _waits(base)
            and (epoch != current or owner.batch_sampler is sampler)
        ):
            raise ValueError(
                "num_workers must be 0 with Accelerate's use_stateful_dataloader in one "
                f"process or where an epoch is set, got {base.num_workers}: its workers "
                "draw before the loader begins; or use a StatefulDataLoader outside "
                "accelerator.prepare"
            )
        if frame.f_code.co_name == "set_epoch":  # the user's own, perhaps
            continue
        if epoch not in (current, current + drawn):
            raise ValueError(
                f"epoch must be {current + drawn}, where the sampler stands, got "
                f"{epoch} from Accelerate's loader, which counts by itself: write "
                f"loader.set_epoch({current}) before iterating, after "
                "load_state_dict and after skip_first_batches too"
            )
        return


def _waits(loader: Any) -> bool:
    """Whether a StatefulDataLoader's workers have drawn for a pass yet to begin."""
    iterator = getattr(loader, "_iterator", None)
    return (
        iterator is not None
        and hasattr(loader, "load_state_dict")
        and loader.num_workers > 0
        and iterator._num_yielded == 0
    )


def _refuse_cut(
    sampler: BatchSampler,
    pass_index: int,
    slices: int,
    length_of: Callable[[int], int],
) -> None:
    """Raises ValueError if the pass would be cut or is not the one that is meant."""
    for frame in _callers():
        names = frame.f_locals
        if type(names.get("self")).__name__ == "_FitLoop":
            _check_lightning(names["self"], sampler, pass_index, length_of)
            return
        if frame.f_globals.get("__name__") == "transformers.trainer":
            if not _holds(names.get("train_dataloader"), sampler):
                continue
            _check_transformers(names, len(sampler) // slices, pass_index)
            return


def _check_lightning(
    loop: Any,
    sampler: BatchSampler,
    pass_index: int,
    length_of: Callable[[int], int],
) -> None:
    """Raises ValueError if Lightning's loop would stop before the pass ends.

    It asks for the length once more when its workers have drawn the first batches ahead.
    If they are all that the pass has, the answer is the next pass's.
    """
    trainer, loaders = loop.trainer, loop._combined_loader.flattened
    asked = trainer.limit_train_batches != 1.0 or trainer.overfit_batches
    if asked or len(loaders) != 1 or not _holds(loaders[0], sampler):
        return
    loader = loaders[0]
    ahead = (loader.num_workers or 0) * (loader.prefetch_factor or 0)
    batches = length_of(pass_index)
    if ahead >= batches and length_of(pass_index + 1) < batches:
        raise ValueError(
            f"num_workers must be 0 in Lightning where {loader.num_workers} workers draw "
            f"a pass of {batches} batches at once and the next pass is shorter: "
            "Lightning would stop at that one's length"
        )
    if loop._should_reload_train_dl:  # it is about to ask for the length anew
        return
    if loop.max_batches < len(sampler):
        raise ValueError(
            f"len() must not grow from pass to pass, got {len(sampler)} batches where "
            f"Lightning stops after {loop.max_batches}: write Trainer("
            "reload_dataloaders_every_n_epochs=1) and num_workers=0, and "
            "sampler.set_epoch(epoch) before fit() where it resumes; or give it all "
            "passes as one epoch (docs/trainers.md has the lines)"
        )


def _check_transformers(names: dict[str, Any], batches: int, pass_index: int) -> None:
    """Raises ValueError if transformers would cut the pass or means another one."""
    epoch, steps = names.get("epoch"), names.get("steps_in_epoch")
    if isinstance(epoch, int) and epoch != pass_index:
        raise ValueError(
            f"epoch must be {epoch}, as transformers', got {pass_index}: return "
            "self.accelerator.prepare(loader) from get_train_dataloader(), so that "
            "set_epoch reaches the sampler"
        )
    resumed = bool(names.get("epochs_trained"))
    if isinstance(steps, int) and (steps < batches or (resumed and steps != batches)):
        raise ValueError(
            f"len() must be the same in every pass, got {batches} batches where "
            f"transformers counts {steps} in each: give it all passes as one epoch "
            "(docs/trainers.md has the lines)"
        )


def _callers(depth: int = _DEPTH) -> Iterator[FrameType]:
    """Yields the frames outside the sampler's own files, nearest first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and depth:
        if not str(frame.f_globals.get("__name__")).startswith(__package__ or ""):
            yield frame
            depth -= 1
        frame = frame.f_back


def _holds(owner: Any, sampler: BatchSampler) -> bool:
    """Whether a loader or wrapper draws from this very sampler, if through others."""
    inner = getattr(owner, "batch_sampler", None)
    while inner is not None and inner is not sampler:
        inner = getattr(inner, "batch_sampler", None)
    return inner is sampler
