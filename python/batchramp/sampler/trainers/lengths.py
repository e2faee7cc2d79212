"""Passes of other lengths, for trainers that ask for one pass's and go by it."""

from batchramp.sampler.trainers.frames import Standing


def first_other(
    standing: Standing, length: int, first: int, last: int
) -> tuple[int, int] | None:
    """Returns the first of some passes that is not as long as a trainer takes it to be.

    Args:
        standing: Where the sampler stands.
        length: How many batches the trainer takes each pass to have.
        first: The first pass that it goes over.
        last: The one after its last. Of a function's sizes, which are asked for one by
            one, only the first two passes are looked at, as of one size.

    Returns:
        The pass and its length, 0 past a plan's end; None if all are as long.
    """
    if not standing.planned and (standing.even or not standing.known):
        last = min(last, first + 2)
    for pass_index in range(first, last):
        batches = standing.length_of(pass_index)
        if batches != length:
            return pass_index, batches
    return None
