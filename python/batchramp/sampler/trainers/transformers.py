"""transformers' Trainer, which asks for a pass's length once and stops there."""

from typing import Any

from torch.utils.data import BatchSampler

from batchramp.sampler.trainers.frames import Standing, callers, holds


def before_drawing(sampler: BatchSampler, standing: Standing) -> None:
    """Refuses a Trainer that would cut the pass due or means another one.

    It stops every pass at the first one's length, and resumes by that length too, at
    pass 0 unless Accelerate prepared the loader.

    Raises:
        ValueError: If so; it says what to write instead.
    """
    for frame in callers():
        if frame.f_globals.get("__name__") == "transformers.trainer":
            names = frame.f_locals
            if holds(names.get("train_dataloader"), sampler):
                _check(names, standing)
                return


def _check(names: dict[str, Any], standing: Standing) -> None:
    """Raises ValueError if transformers would cut the pass or means another one."""
    epoch, steps = names.get("epoch"), names.get("steps_in_epoch")
    pass_index = standing.due
    batches = standing.length_of(pass_index)
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
