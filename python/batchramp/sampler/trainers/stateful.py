"""StatefulDataLoader, whose workers draw for batches that it throws away."""

from typing import Any

from batchramp.sampler.trainers.frames import callers


def replays() -> int | None:
    """Returns how many batches are about to be drawn for having been trained already.

    With `snapshot_every_n_steps` torchdata goes back to its last snapshot, and throws
    away what was drawn between that and the state.

    From a state of a finished pass it makes an iterator with workers, fills their queues
    with what the sampler yields, sees that the state is a finished one's, and makes
    another iterator. What the first was given would never be trained on.

    Returns:
        How many; None where all is thrown away.
    """
    for frame in callers():
        names = frame.f_locals
        if (
            frame.f_code.co_name == "__init__"
            and type(names.get("self")).__name__
            == "_StatefulMultiProcessingDataLoaderIter"
            and names.get("next_iter_state")
        ):
            state: dict[str, Any] = names["next_iter_state"]
            steps = int(state["_steps_since_snapshot"])
            if not state["_iterator_finished"]:
                return steps
            # With steps to make up for, it draws the finished pass's own end.
            return 0 if steps else None
    return 0
