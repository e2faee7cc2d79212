"""Ignite's engines, which hold every epoch to one pass's length."""

from typing import Any

from torch.utils.data import BatchSampler

from batchramp.sampler.trainers.frames import Standing, callers, holds
from batchramp.sampler.trainers.lengths import first_other

_RESUME = (
    "write sampler.load_state_dict(sampler.state_of(engine.state.iteration)) before "
    "engine.run(), with an Engine (a DeterministicEngine skips by the length of a pass, "
    "for which set_epoch is enough where all are equal)"
)


def before_drawing(sampler: BatchSampler, standing: Standing) -> None:
    """Checks that an engine's run would draw what it means.

    Its one iterator goes on from pass to pass, whatever its epochs, so that epochs of
    the first pass's length run away from passes that differ in length. An engine that
    resumes takes what the loader yields first for the batch where it stopped.

    Raises:
        ValueError: If the epochs are not the passes, a plan ends before the run, or the
            sampler does not stand where the engine resumes.
    """
    state: Any = None
    skipped, called, again = 0, set(), False
    for frame in callers():
        owner: Any = frame.f_locals.get("self")
        if type(owner).__name__ == "ReproducibleBatchSampler":
            skipped = owner.start_iteration or 0
        if str(frame.f_globals.get("__name__")).startswith("ignite.engine"):
            called.add(frame.f_code.co_name)
            again = again or bool(frame.f_locals.get("should_exit"))
            found = getattr(owner, "state", None)
            if holds(getattr(found, "dataloader", None), sampler):
                state = found
    if state is None:
        return
    # Its iterator is made by the run's set-up, or anew for each pass after the first.
    if again or {"_setup_dataloader_iter", "_setup_engine"} & called == {
        "_setup_dataloader_iter"
    }:
        if not standing.planned:
            _check_epochs(state, standing)
        return
    _check_place(state, standing, skipped)
    _check_epochs(state, standing)
    _check_end(state, standing, skipped)


def _check_place(state: Any, standing: Standing, skipped: int) -> None:
    """Raises ValueError if the sampler stands elsewhere than the engine."""
    iteration, due = state.iteration, standing.due
    if skipped and standing.loaded:
        raise ValueError(
            "sampler must not be loaded into a pass where DeterministicEngine skips its "
            f"first batches by itself, got one after {standing.loaded} batches where it "
            f"skips {skipped}: write sampler.set_epoch({due}), or use an Engine"
        )
    within = standing.loaded + skipped
    stands = within
    if standing.planned:
        stands += sum(map(standing.length_of, range(due)))
    elif standing.told and standing.length_of(due) == state.epoch_length:
        iteration %= state.epoch_length
    elif standing.told:
        return
    if iteration and stands != iteration:
        raise ValueError(
            f"sampler must stand where the engine resumes, after {state.iteration} "
            f"updates, got pass {due} after {within} batches: {_RESUME}"
        )


def _check_epochs(state: Any, standing: Standing) -> None:
    """Raises ValueError if epochs of one pass's length meet passes of others."""
    length, due = state.epoch_length, standing.due
    if state.max_epochs is None or state.iteration % length:
        return
    epochs = state.max_epochs - state.iteration // length
    other = first_other(standing, length, due, due + epochs)
    if other is None or other[0] == due:  # the user's own length
        return
    pass_index, batches = other
    if batches:
        updates = sum(map(standing.length_of, range(due + epochs)))
        raise ValueError(
            f"max_epochs must be 1 where passes differ in length, got {state.max_epochs} "
            f"epochs of {length} iterations where pass {pass_index} has {batches}: write "
            "sampler.set_epoch(0) and engine.run(loader, max_epochs=1, "
            f"epoch_length={updates}), which goes over all passes"
        )


def _check_end(state: Any, standing: Standing, skipped: int) -> None:
    """Raises ValueError if a plan ends before the run."""
    if not standing.planned:
        return
    wanted = state.max_iters
    if wanted is None:
        wanted = state.max_epochs * state.epoch_length
    left, due = -standing.loaded - skipped, standing.due
    while batches := standing.length_of(due):
        left, due = left + batches, due + 1
    if wanted - state.iteration > left:
        raise ValueError(
            f"max_epochs must end with the plan, got {wanted - state.iteration} "
            f"iterations to come where it has {left} updates: write "
            "engine.run(loader, max_epochs=1, epoch_length=plan.updates)"
        )
