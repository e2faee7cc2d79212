"""Lightning, which copies samplers, and asks for a pass's length once."""

from typing import Any, cast

from torch.utils.data import BatchSampler, DistributedSampler

from batchramp.sampler.trainers.frames import Counter, Standing, callers, holds

_NAMES = ("lightning", "pytorch_lightning", "lightning_fabric")
_IN_LIGHTNING = (
    "in Lightning, set use_distributed_sampler=False (in Fabric, for setup_dataloaders)"
    " and give the sampler rank and world_size"
)
_ADVICE = (
    "write sampler.set_epoch(trainer.current_epoch) before fit(), or make the sampler "
    "anew for each Trainer"
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
    """Checks that Lightning's loop would draw the pass due to its end.

    Returns:
        The epoch that its loop is in: with workers it draws before it says so.

    Raises:
        ValueError: If it would stop before the pass ends.
    """
    for frame in callers():
        loop: Any = frame.f_locals.get("self")
        if type(loop).__name__ == "_EvaluationLoop":
            return None
        if type(loop).__name__ != "_FitLoop":
            continue
        if not any(holds(one, sampler) for one in loop._combined_loader.flattened):
            return None
        epoch = loop.epoch_progress.current.processed
        pass_index = epoch if not standing.told else standing.due
        _check_length(loop, pass_index, standing)
        return _count(epoch)
    return None


def counter_of(epoch: int) -> Counter | None:
    """Returns the count by which Lightning's training loop sets an epoch; None by hand.

    That of its evaluation, which begins the same pass again and again, is obeyed.
    """
    for frame in callers():
        kind = type(frame.f_locals.get("self")).__name__
        if kind == "_EvaluationLoop":
            return None
        if kind == "_FitLoop":
            return _count(epoch)
    return None


def counter_asking() -> Counter | None:
    """Returns the count of a training loop that asks how long its next epoch is."""
    for frame in callers():
        loop: Any = frame.f_locals.get("self")
        if type(loop).__name__ == "_FitLoop" and frame.f_code.co_name == "setup_data":
            return _count(loop.epoch_progress.current.processed)
    return None


def _count(epoch: int) -> Counter:
    return Counter(epoch, "Lightning's training loop", _ADVICE, late=True)


def _check_length(loop: Any, pass_index: int, standing: Standing) -> None:
    """Raises ValueError if Lightning's loop would stop before the pass ends.

    It asks for the length once more when its workers have drawn the first batches ahead.
    If they are all that the pass has, the answer is the next pass's.
    """
    trainer, loaders = loop.trainer, loop._combined_loader.flattened
    asked = trainer.limit_train_batches != 1.0 or trainer.overfit_batches
    if asked or len(loaders) != 1:
        return
    loader = loaders[0]
    ahead = (loader.num_workers or 0) * (loader.prefetch_factor or 0)
    batches = standing.length_of(pass_index)
    if ahead >= batches and 0 < standing.length_of(pass_index + 1) < batches:
        raise ValueError(
            f"num_workers must be 0 in Lightning where {loader.num_workers} workers draw "
            f"a pass of {batches} batches at once and the next pass is shorter: "
            "Lightning would stop at that one's length"
        )
    if loop._should_reload_train_dl:  # it is about to ask for the length anew
        return
    if loop.max_batches < batches:
        raise ValueError(
            f"len() must not grow from pass to pass, got {batches} batches where "
            f"Lightning stops after {loop.max_batches}: write Trainer("
            "reload_dataloaders_every_n_epochs=1) and num_workers=0, and "
            "sampler.set_epoch(epoch) before fit() where it resumes; or give it all "
            "passes as one epoch (docs/trainers.md has the lines)"
        )
