"""StatefulDataLoader, whose workers draw for batches that it throws away."""

from typing import Any

from batchramp.sampler.trainers.frames import callers


def discards() -> bool:
    """Whether what is about to be drawn is for an iterator that is thrown away.

    From a state of a finished pass, torchdata makes an iterator with workers, fills their
    queues with what the sampler yields, sees that the state is a finished one's, and
    makes another iterator. What the first was given would never be trained on.
    """
    state = _restored()
    # With steps to make up for, what it draws is the finished pass's own end.
    return bool(state["_iterator_finished"] and not state["_steps_since_snapshot"])


def replays() -> int:
    """Returns how many batches are about to be drawn for having been trained already.

    With `snapshot_every_n_steps` torchdata goes back to its last snapshot, and throws
    away what was drawn between that and the state.
    """
    state = _restored()
    return 0 if state["_iterator_finished"] else int(state["_steps_since_snapshot"])


def _restored() -> dict[str, Any]:
    """The state from which an iterator with workers is being made."""
    for frame in callers():
        names = frame.f_locals
        if (
            type(names.get("self")).__name__ == "_StatefulMultiProcessingDataLoaderIter"
            and frame.f_code.co_name == "__init__"
            and names.get("next_iter_state")
        ):
            state: dict[str, Any] = names["next_iter_state"]
            return state
    return {"_iterator_finished": False, "_steps_since_snapshot": 0}
