"""Lightning, which copies samplers, and says the pass by its own epoch."""

from typing import Any, cast

from torch.utils.data import BatchSampler, DistributedSampler

from batchramp.sampler.trainers.frames import Counter, Standing, callers, holds
from batchramp.sampler.trainers.lightning_lengths import (
    check_epoch,
    check_estimate,
    check_evaluation,
    loader_of,
)

_NAMES = ("lightning", "pytorch_lightning", "lightning_fabric")
_IN_LIGHTNING = (
    "in Lightning, set use_distributed_sampler=False (in Fabric, for setup_dataloaders)"
    " and give the sampler rank and world_size"
)
_ADVICE = (
    "write sampler.set_epoch({epoch}) before fit() if that pass is meant; to go on with "
    "pass {due}, give fit() the checkpoint that belongs to it, as ckpt_path"
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
    for frame in callers():
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in _NAMES:
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


def before_drawing(sampler: BatchSampler, standing: Standing) -> Counter | None:
    """Checks that Lightning's loop would draw the pass that it means to its end.

    Returns:
        The epoch that its training loop is in, and how far: it draws before it says so
        where workers draw ahead, and never says how far.

    Raises:
        ValueError: If it would stop before the pass ends.
    """
    loop, within = _loop_of(sampler)
    if loop is None:
        return None
    if type(loop).__name__ == "_EvaluationLoop":
        check_evaluation(loop, sampler, standing)
        return None
    if within != "setup_data" and standing.said and not standing.begun:
        # What the user says after Lightning has said its epoch, in a hook, is obeyed.
        return _count(loop, sampler, standing)._replace(
            epoch=standing.due, batches=None
        )
    counter = _count(loop, sampler, standing)
    check_epoch(loop, sampler, standing, counter, asks=within == "setup_data")
    return counter


def counter_of(sampler: BatchSampler, standing: Standing) -> Counter | None:
    """Returns the count by which Lightning sets an epoch; None by hand.

    That of its evaluation, which begins the same pass again and again, is obeyed. Fabric's
    loader counts its iterators, whatever was loaded or set before it: it goes on with
    the pass due.

    Raises:
        ValueError: If its workers have drawn at another place than its training loop
            means, or that has lost count.
    """
    calling = next(callers(1), None)
    if calling is None or calling.f_code.co_name != "_set_sampler_epoch":
        return None
    for frame in callers(3):
        if type(frame.f_locals.get("self")).__name__ == "_FabricDataLoader":
            return Counter(standing.due, "Fabric's loader", "")
    loop, _ = _loop_of(sampler)
    if type(loop).__name__ != "_FitLoop":
        return None
    _refuse_lost_count(loop)
    counter = _count(loop, sampler, standing)
    _refuse_drawn_elsewhere(loop, sampler, standing, counter)
    return counter


def counter_asking(sampler: BatchSampler, standing: Standing) -> Counter | None:
    """Returns the count of a training loop that asks how long its next epoch is.

    Raises:
        ValueError: If it multiplies a pass's length where passes differ, or has lost
            count.
    """
    loop, within = _loop_of(sampler)
    if type(loop).__name__ != "_FitLoop" or within not in (
        "setup_data",
        "on_run_start",
    ):
        return None
    _refuse_lost_count(loop)
    if any(frame.f_code.co_name == "estimated_stepping_batches" for frame in callers()):
        check_estimate(loop, standing)
    return _meant(loop, within, sampler, standing)


def _loop_of(sampler: BatchSampler) -> tuple[Any, str]:
    """Returns the loop that draws from this sampler, if any, and what it is doing."""
    doing = ""
    for frame in callers():
        loop: Any = frame.f_locals.get("self")
        kind = type(loop).__name__
        if kind == "_TrainingEpochLoop":
            doing = doing or frame.f_code.co_name
        if kind in ("_FitLoop", "_EvaluationLoop"):
            combined = loop._combined_loader
            loaders = [] if combined is None else combined.flattened
            if any(holds(one, sampler) for one in loaders):
                return loop, doing or frame.f_code.co_name
            return None, ""
    return None, ""


def _meant(
    loop: Any, within: str, sampler: BatchSampler, standing: Standing
) -> Counter:
    """The same as `_count`, but that what a hook said by hand after it is obeyed."""
    counter = _count(loop, sampler, standing)
    if within != "setup_data" and standing.said and not standing.begun:
        return counter._replace(epoch=standing.due, batches=None)
    return counter


def _count(loop: Any, sampler: BatchSampler, standing: Standing) -> Counter:
    """Where a training loop goes on: the epoch, and how many of its batches it trained.

    A checkpoint says where the loop was. Until the loop is reset, one of an epoch's last
    batch still says that epoch.
    """
    epochs, batches = loop.epoch_progress.current, loop.epoch_loop.batch_progress
    epoch, trained = epochs.processed, 0
    if loop.restarting and epochs.ready != epochs.processed:
        if batches.is_last_batch:
            epoch += 1
        else:
            trained = batches.current.processed
    if loop.trainer.overfit_batches:
        epoch = 0  # the same batches in every epoch
    # A loader with a state of its own has brought the sampler there, or will.
    own = hasattr(loader_of(loop, sampler), "load_state_dict") and standing.told
    return Counter(
        epoch,
        "Lightning's training loop",
        _ADVICE.format(epoch=epoch, due=standing.due),
        late=True,
        batches=None if own else trained,
    )


def _refuse_lost_count(loop: Any) -> None:
    """Raises ValueError where Lightning would begin an epoch at its predecessor's end.

    With `max_steps` it takes up a checkpoint of an epoch's end, or of a fit's that ended
    within one, as if it lay within the next.
    """
    epochs, batches = loop.epoch_progress.current, loop.epoch_loop.batch_progress
    ended = epochs.ready == epochs.processed and batches.current.ready > 0
    kept = batches.current.completed == batches.current.processed
    if loop.restarting and loop.max_steps != -1 and ended and kept:
        raise ValueError(
            "max_steps must be -1 where Lightning resumes from a checkpoint of an epoch's "
            f"end, got {loop.max_steps}: it would begin epoch {epochs.processed} after "
            f"the {batches.current.ready} batches of the one before; write "
            "Trainer(max_epochs=...) without max_steps, or save with "
            "ModelCheckpoint(every_n_train_steps=...)"
        )


def _refuse_drawn_elsewhere(
    loop: Any, sampler: BatchSampler, standing: Standing, counter: Counter
) -> None:
    """Raises ValueError if the iterator in hand was drawn from before a checkpoint.

    `trainer.estimated_stepping_batches` makes the iterator, before the checkpoint is read.
    """
    going_on = loop.restarting or getattr(loop, "is_resuming", False)
    if not going_on or not getattr(loader_of(loop, sampler), "num_workers", 0):
        return
    lost = loop._combined_loader_states_to_load and loop.restarting
    trained = counter.batches
    elsewhere = trained is not None and trained != standing.skipped
    if standing.begun and (standing.current != counter.epoch or elsewhere or lost):
        raise ValueError(
            "num_workers must be 0 where Lightning resumes after its workers have drawn, "
            "as for trainer.estimated_stepping_batches, got "
            f"{loader_of(loop, sampler).num_workers} workers that drew from pass "
            f"{standing.current} where epoch {counter.epoch} goes on after "
            f"{trained or 0} batches: write the plan's `updates` in its place"
        )
