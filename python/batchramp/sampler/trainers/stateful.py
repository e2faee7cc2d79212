"""StatefulDataLoader, whose workers draw for an iterator that it throws away."""

from typing import Any

from batchramp.sampler.trainers.frames import callers


def discards() -> bool:
    """Whether what is about to be drawn is for an iterator that is thrown away.

    From a state of a finished pass, torchdata makes an iterator with workers, fills their
    queues with what the sampler yields, sees that the state is a finished one's, and
    makes another iterator. What the first was given would never be trained on.
    """
    for frame in callers():
        names = frame.f_locals
        if type(names.get("self")).__name__ != "_StatefulMultiProcessingDataLoaderIter":
            continue
        state: Any = names.get("next_iter_state")
        if frame.f_code.co_name == "__init__" and state:
            # With steps to make up for, what it draws is the finished pass's own end.
            return bool(
                state["_iterator_finished"] and not state["_steps_since_snapshot"]
            )
    return False
