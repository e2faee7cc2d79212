"""How many batches Lightning takes an epoch to have, and what it does by that number."""

import math
from typing import Any

from torch.utils.data import BatchSampler

from batchramp.sampler.trainers.frames import Counter, Standing, holds
from batchramp.sampler.trainers.lengths import first_other

_MODES = {"min_size": min, "max_size_cycle": max, "max_size": max}
_RELOAD = "write Trainer(reload_dataloaders_every_n_epochs=1)"


def loader_of(loop: Any, sampler: BatchSampler) -> Any:
    """Returns the loop's loader that draws from this sampler."""
    return next(one for one in loop._combined_loader.flattened if holds(one, sampler))


def check_epoch(
    loop: Any, sampler: BatchSampler, standing: Standing, counter: Counter, asks: bool
) -> None:
    """Checks that a training loop goes as far in a pass as its limit says.

    Args:
        loop: The loop; its `max_batches` is the length that it goes by.
        sampler: The sampler.
        standing: Where it stands, about to draw.
        counter: The epoch that the loop draws for.
        asks: Whether the loop is about to ask for the length anew.

    Raises:
        ValueError: If the pass would be cut or repeated, or validation would come at
            another place than was said, or never.
    """
    trainer, combined = loop.trainer, loop._combined_loader
    if standing.micro_batch is not None and (
        trainer.lightning_module.automatic_optimization
    ):
        raise ValueError(
            "micro_batch must be None where Lightning steps after every batch, got "
            f"{standing.micro_batch}: set self.automatic_optimization = False in the "
            "module, and step where sampler.piece(batch_idx).last is true"
        )
    mode, limit = combined._mode, trainer.limit_train_batches
    batches = _pass_length(standing, counter)
    lengths = [
        batches if holds(one, sampler) else _sized(one) for one in combined.flattened
    ]
    meant = _MODES[mode](_limited(length, limit) for length in lengths)
    ours = _limited(batches, limit)
    if meant < ours or (meant > ours and mode == "max_size_cycle"):
        does, other = (
            ("cut", "max_size_cycle") if meant < ours else ("repeat", "max_size")
        )
        raise ValueError(
            f"CombinedLoader's mode must not {does} the sampler's pass of {ours} batches, "
            f'got {mode}, an epoch of {meant}: write CombinedLoader(loaders, "{other}")'
        )
    if asks:
        return
    if min(_MODES[mode](lengths), loop.max_batches) != meant:
        raise ValueError(
            f"len() must not differ from pass to pass, got {meant} batches where "
            f"Lightning stops after {loop.max_batches}: {_RELOAD}"
        )
    if _validates_at(trainer, meant) not in (None, trainer.val_check_batch):
        raise ValueError(
            f"len() must not differ from pass to pass, got {meant} batches where "
            f"Lightning validates after every {trainer.val_check_batch}: {_RELOAD}"
        )


def check_evaluation(loop: Any, sampler: BatchSampler, standing: Standing) -> None:
    """Checks that an evaluation loop goes as far in a pass as its limit says.

    Raises:
        ValueError: If the pass would be cut to another one's length.
    """
    trainer = loop.trainer
    if trainer.sanity_checking or not hasattr(loop, "_stage"):
        return
    loaders = loop._combined_loader.flattened
    index = loaders.index(loader_of(loop, sampler))
    stage = loop._stage.dataloader_prefix
    batches = _slices(standing) * standing.length_of(standing.due)
    meant = _limited(batches, getattr(trainer, f"limit_{stage}_batches"))
    stops = loop.max_batches[index]
    if min(batches, stops) != meant:
        raise ValueError(
            f"len() must not differ from pass to pass, got {meant} batches where "
            f"Lightning's evaluation stops after {stops}: give that loader's sampler a "
            "constant batch_size"
        )


def check_estimate(loop: Any, standing: Standing) -> None:
    """Checks that Lightning's estimate of all updates is their number.

    It multiplies the first pass's by the number of epochs.

    Raises:
        ValueError: If passes differ in length.
    """
    trainer = loop.trainer
    epochs, most = trainer.max_epochs, trainer.max_steps
    first = standing.length_of(0)
    if epochs == -1 or first_other(standing, first, 0, epochs) is None:
        return

    def updates(length: int) -> int:
        limited = _limited(_slices(standing) * length, trainer.limit_train_batches)
        return -int(-limited // trainer.accumulate_grad_batches)

    estimate = updates(first) * epochs
    total, epoch = 0, 0
    while epoch < epochs and (most == -1 or total < most):
        length = standing.length_of(epoch)
        if length != first and most == -1:
            break
        total, epoch = total + updates(length), epoch + 1
    if most == -1 or min(estimate, most) != min(total, most):
        raise ValueError(
            "trainer.estimated_stepping_batches must not be used where passes differ in "
            f"length, got {estimate}, the first pass's updates times {epochs}: write the "
            "plan's `updates` (or its own sum, of sizes that are no plan)"
        )


def _pass_length(standing: Standing, counter: Counter) -> int:
    """The batches that a loader yields in the pass that is about to be drawn."""
    length = (
        standing.length_of(counter.epoch)
        if standing.begun
        else standing.length_counted(counter)
    )
    return _slices(standing) * length


def _slices(standing: Standing) -> int:
    """How many batches a loader counts where a sampler's pass has one."""
    return standing.world_size if standing.rank is None else 1


def _sized(loader: Any) -> float:
    try:
        return float(len(loader))
    except (TypeError, NotImplementedError):
        return math.inf


def _limited(length: float, limit: float) -> float:
    """Lightning's own: a number of batches, or a share (1 is a batch, 1.0 is all)."""
    if isinstance(limit, int):
        return min(length, limit)
    return length if length == math.inf else int(length * limit)


def _validates_at(trainer: Any, batches: float) -> int | None:
    """The batch after which a share of the epoch has it validate, if it is a share."""
    share = trainer.val_check_interval
    if (
        not trainer.enable_validation
        or trainer.check_val_every_n_epoch is None
        or getattr(trainer, "_val_check_time_interval", None) is not None
        or not isinstance(share, float)
        or batches == math.inf
    ):
        return None
    return max(1, int(batches * share))
