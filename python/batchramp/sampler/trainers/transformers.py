"""transformers' Trainer, which asks for a pass's length once and goes by it."""

from typing import Any

from torch.utils.data import BatchSampler

from batchramp.sampler.trainers.frames import Counter, Standing, callers, holds
from batchramp.sampler.trainers.lengths import first_other

_ADVICE = (
    "leave load_state_dict and set_epoch to the Trainer, which skips what its checkpoint "
    "had trained, and make the sampler anew in get_train_dataloader()"
)


def before_drawing(sampler: BatchSampler, standing: Standing) -> Counter | None:
    """Checks that the Trainer would draw all passes to their ends.

    It computes its `max_steps`, its decay of the learning rate and where it resumes from
    the first pass's length, and stops every pass there.

    Returns:
        The epoch that it is in, which it cannot say to a loader that Accelerate has not
        prepared, or in several processes.

    Raises:
        ValueError: If its passes differ in length, or a plan ends before them.
    """
    inner: dict[str, Any] | None = None
    for frame in callers():
        if frame.f_globals.get("__name__") != "transformers.trainer":
            continue
        names = frame.f_locals
        if inner is None and holds(names.get("train_dataloader"), sampler):
            inner = names
        if inner is not None and "num_train_epochs" in names:
            if standing.micro_batch is not None:
                raise ValueError(
                    "micro_batch must be None for transformers' Trainer, which steps "
                    "after an equal number of batches, whatever update they are of, got "
                    f"{standing.micro_batch}: leave it out, or write a loop of your own"
                )
            _check_lengths(inner["steps_in_epoch"], inner["epoch"], names, standing)
            return _count(inner["epoch"])
    return None


def counter_of(sampler: BatchSampler, epoch: int) -> Counter | None:
    """Returns the count by which the Trainer sets an epoch; None by hand."""
    for frame in callers():
        loader = frame.f_locals.get("train_dataloader")
        if frame.f_globals.get("__name__") == "transformers.trainer":
            return _count(epoch) if holds(loader, sampler) else None
    return None


def _count(epoch: int) -> Counter:
    return Counter(epoch, "transformers' Trainer", _ADVICE)


def _check_lengths(
    steps: int, epoch: int, names: dict[str, Any], standing: Standing
) -> None:
    """Raises ValueError if a pass is not as long as the Trainer's steps in an epoch."""
    last = names["num_train_epochs"]
    other = first_other(standing, steps, epoch, last)
    if other is None:
        return
    pass_index, batches = other
    if not batches:
        raise ValueError(
            f"num_train_epochs must be at most {pass_index}, where the plan ends, "
            f"got {last}"
        )
    raise ValueError(
        f"len() must be the same in every pass, got {batches} batches in pass "
        f"{pass_index} where transformers counts {steps} in each and computes its "
        "max_steps and its learning rate from that: give it all passes as one epoch "
        "(docs/trainers.md has the lines)"
    )
