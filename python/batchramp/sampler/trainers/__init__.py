"""Trainers that would draw from a sampler otherwise than it means, and what to write.

Some trainers wrap or rebuild a batch sampler without a word and then lose batches, the
schedule or the order, or say the pass by a count of their own that knows nothing of
where the sampler stands. Nothing that they call says who they are, so they are
recognised by the frames of the call: nothing is imported, and nothing happens elsewhere.
"""

import sys

from torch.utils.data import BatchSampler

from batchramp.sampler.trainers import (
    accelerate,
    endless,
    ignite,
    lightning,
    stateful,
    transformers,
)
from batchramp.sampler.trainers.frames import Counter, Standing

__all__ = [
    "Counter",
    "asks_what_is_left",
    "batches_replayed",
    "before_drawing",
    "before_saving",
    "counter_asking",
    "counter_of",
]

_LIGHTNING = ("lightning", "pytorch_lightning")


def before_drawing(sampler: BatchSampler, standing: Standing) -> Counter | None:
    """Looks at who is about to draw the first batch of the pass due.

    Returns:
        The pass that the trainer draws for by its own count, if it has one and draws
        before it says so.

    Raises:
        ValueError: If it would draw the pass otherwise than it means; it says what to
            write instead.
    """
    loaded = sys.modules.keys()
    found = None
    endless.before_drawing(sampler, standing)
    if "ignite" in loaded:
        ignite.before_drawing(sampler, standing)
    if "accelerate" in loaded:
        found = accelerate.before_drawing(sampler, standing)
    if "transformers" in loaded:
        found = transformers.before_drawing(sampler, standing) or found
    if any(name in loaded for name in _LIGHTNING):
        found = lightning.before_drawing(sampler, standing) or found
    return found


def batches_replayed() -> int | None:
    """Returns how many of the first batches are thrown away, having been trained.

    None where all of them are, as the iterator is.
    """
    return stateful.replays() if "torchdata" in sys.modules else 0


def asks_what_is_left(sampler: BatchSampler) -> bool:
    """Whether it is an endless iterator's loader that asks how many batches to take."""
    return endless.asks(sampler)


def before_saving(sampler: BatchSampler, standing: Standing) -> None:
    """Looks at who is about to save the sampler's state.

    Raises:
        ValueError: If it means what is trained where the state says what is drawn.
    """
    if "accelerate" in sys.modules:
        accelerate.refuse_saving(sampler, standing)


def counter_of(sampler: BatchSampler, standing: Standing, epoch: int) -> Counter | None:
    """Returns whose count an epoch is that `set_epoch` is given; None by hand.

    Raises:
        ValueError: If such a trainer would draw the pass otherwise than it means.
    """
    loaded = sys.modules.keys()
    found = None
    if "accelerate" in loaded:
        found = accelerate.counter_of(sampler, standing, epoch)
    if found is None and "transformers" in loaded:
        found = transformers.counter_of(sampler, epoch)
    if found is None and any(
        name in loaded for name in (*_LIGHTNING, "lightning_fabric")
    ):
        found = lightning.counter_of(sampler, standing)
    return found


def counter_asking(sampler: BatchSampler, standing: Standing) -> Counter | None:
    """Returns the count of who asks for a pass's length before it begins, if it has one.

    Lightning stops at the length, and never asks an iterator whether there is more.

    Raises:
        ValueError: If it would multiply the length where passes differ.
    """
    loaded = sys.modules.keys()
    if any(name in loaded for name in _LIGHTNING):
        return lightning.counter_asking(sampler, standing)
    return None
