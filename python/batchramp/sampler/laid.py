"""The stream of passes as given sizes lay it, wherever a sampler stands in it."""

from collections.abc import Iterator
from typing import NamedTuple

from batchramp._rust import Batches
from batchramp.sampler.sizes import MAX_POSITION, CalledSizes, SizeRuns
from batchramp.sampler.state import Cursor
from batchramp.values import shown


class Stretch(NamedTuple):
    """Batches of one length, one after another."""

    start: int
    """Position of the first."""
    length: int
    """Samples of each, over all ranks."""
    batches: int
    """How many."""


class Laid:
    """Passes cut into batches of the sizes that hold; a value, never changed.

    Args:
        batches: The stream.
        sizes: Of its batches.
        budget: The position before which the last batch begins; None is without end.
    """

    def __init__(
        self, batches: Batches, sizes: SizeRuns | CalledSizes, budget: int | None
    ) -> None:
        self.batches = batches
        self.sizes = sizes
        self.budget = budget

    def end_of(self, pass_index: int) -> int:
        """Returns the position before which a batch of this pass begins."""
        end = (pass_index + 1) * self.batches.num_samples
        return end if self.budget is None else min(end, self.budget)

    def start_of(self, pass_index: int, before: int = 0) -> Cursor:
        """Returns where a pass begins; under `wrap` as batches fall from `before` on."""
        position = pass_index * self.batches.num_samples
        if self.batches.boundary == "wrap":
            position, _ = self.sizes.lay(before, position)
        return Cursor(pass_index, position, 0, 0)

    def start_after(self, cursor: Cursor) -> Cursor:
        """Returns where the pass after a cursor's begins."""
        return self.start_of(cursor.pass_index + 1, cursor.position)

    def remaining(self, cursor: Cursor) -> int:
        """How many batches of its pass begin at or past a cursor."""
        return self.sizes.lay(cursor.position, self.end_of(cursor.pass_index))[1]

    def normal(self, cursor: Cursor) -> Cursor:
        """Returns a cursor, or the next pass's beginning where its pass is at its end."""
        if cursor.batches and not cursor.slices and not self.remaining(cursor):
            return self.start_after(cursor)
        return cursor

    def after(self, update: int) -> Cursor:
        """Returns where so many batches have been yielded since position 0.

        Raises:
            ValueError: If a plan has not as many.
        """
        until = MAX_POSITION if self.budget is None else self.budget
        position, count = self.sizes.lay(0, until, min(update, MAX_POSITION))
        if count < update:
            raise ValueError(
                f"update must be at most {count} (those that the schedule has), "
                f"got {shown(update)}"
            )
        num_samples = self.batches.num_samples
        # At a plan's end the pass is its last one, though a part of it is not planned.
        pass_index = min(position, until - 1) // num_samples
        before = self.sizes.lay(0, pass_index * num_samples)[1]
        return self.normal(Cursor(pass_index, position, count - before, 0))

    def stretches(self, start: Cursor) -> Iterator[Stretch]:
        """Yields the batches of a pass from a cursor on, by their true lengths."""
        position, end = start.position, self.end_of(start.pass_index)
        while position < end:
            first, size = self.sizes.batch_at(position)
            if first >= end:
                return
            until = min(self.sizes.holds_until(first), end)
            position, count = self.sizes.lay(first, until)
            last, _ = self.sizes.lay(first, until, count - 1)
            length = self.batches.end(last, size) - last
            if length < size and count > 1:
                yield Stretch(first, size, count - 1)
                first, count = last, 1
            yield Stretch(first, length, count)

    def check_begins(self, origin: Cursor) -> None:
        """Refuses a pass that would begin past a plan's end."""
        # The dry run is for a plan alone: nothing else ends.
        if self.budget and not origin.batches and not self.remaining(origin):
            raise ValueError(
                f"epoch must lie before {self.budget / self.batches.num_samples:g}, "
                f"where the plan ends, got {origin.pass_index} (an iterator dropped "
                "after its first batch, as by next(iter(loader)), has taken a pass too: "
                "call set_epoch with the pass that you mean)"
            )

    def check_shares(self, origin: Cursor, world_size: int) -> None:
        """Refuses a pass whose last batch, cut short, leaves a rank with no sample."""
        if world_size == 1 or isinstance(self.sizes, CalledSizes):
            return
        count = self.remaining(origin)
        if count == 0:
            return
        end = self.end_of(origin.pass_index)
        position, _ = self.sizes.lay(origin.position, end, count - 1)
        start, size = self.sizes.batch_at(position)
        length = self.batches.end(start, size) - start
        if length < world_size:
            raise ValueError(
                f"batch_size must leave every batch {world_size} samples or more "
                f"(world_size), got {size}, which leaves the last of a pass of "
                f'{self.batches.num_samples} with {length}: use boundary="drop" or '
                '"wrap"'
            )


def check_place(cursor: Cursor, laid: Laid) -> None:
    """Refuses the cursor of a state that the stream, as it is laid, does not come by.

    Raises:
        ValueError: If a plan ends before the pass before that one, or the batches stop
            elsewhere.
    """
    pass_index, end = cursor.pass_index, laid.end_of(cursor.pass_index)
    # The pass after a plan's last is where it stands when that is finished.
    if (pass_index - 1) * laid.batches.num_samples >= end:
        raise ValueError(
            f"state's epoch must lie before the plan's end, got {pass_index}"
        )
    start = laid.start_of(pass_index)
    position, batches = laid.sizes.lay(start.position, end, cursor.batches)
    if (position, batches) != (cursor.position, cursor.batches):
        raise ValueError(
            "state's batches_yielded and samples_consumed_global must be a place that "
            f"the schedule comes by, got {cursor.batches} batches and position "
            f"{cursor.position} where it has {batches} and {position}"
        )
