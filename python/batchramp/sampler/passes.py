"""Where a sampler stands in the stream of passes, and how it goes on from there."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from batchramp._rust import Batches, Run
from batchramp.sampler.sizes import (
    MAX_POSITION,
    CalledSizes,
    SizeRuns,
    position_after,
)
from batchramp.sampler.state import Cursor
from batchramp.sampler.trainers import Counter
from batchramp.values import shown


class Passes:
    """The passes over the samples, cut into batches of the sizes that hold.

    Args:
        batches: The stream.
        sizes: Of its batches.
        rank: The rank whose shares are drawn; None is all of them in turn.
        world_size: Number of ranks.
        budget: The position before which the last batch begins; None is without end.

    Attributes:
        sizes: Of the batches; replaced, never changed.
        origin: Where the current pass began, or the state that was loaded.
        begun: Whether an iterator has begun the current pass.
        exhausted: Whether that iterator has been asked for more than the pass has.
        told: Whether anything was drawn, loaded or set by hand.
    """

    def __init__(
        self,
        batches: Batches,
        sizes: SizeRuns | CalledSizes,
        rank: int | None,
        world_size: int,
        budget: int | None,
    ) -> None:
        self.sizes = sizes
        self._batches = batches
        self.rank = rank
        self.world_size = world_size
        self._budget = budget
        self.begun = False
        self.exhausted = False
        self.told = False
        self.origin = Cursor(0, 0, 0, 0)
        self._base = self.origin
        self._run: Run | None = None
        self._again = False
        self._generation = 0
        self._found = (0, 0)
        self._check_shares(self.origin)

    def __getstate__(self) -> dict[str, object]:
        # A run belongs to its iterator: a copy goes on from where it stands.
        return self.__dict__ | {"_base": self.cursor, "_run": None}

    @property
    def cursor(self) -> Cursor:
        """Where the sampler stands: it is asked for less often than batches are."""
        # Read once each, the run first: another thread may end it meanwhile.
        run, base = self._run, self._base
        return base if run is None else self._after(base, run)

    @property
    def drawn(self) -> int:
        """The position up to which batches are drawn, if only some of their shares."""
        cursor = self.cursor
        if not cursor.slices:
            return cursor.position
        start, size = self.sizes.batch_at(cursor.position)
        return position_after(self._batches, self.sizes.size_at, start, size)

    @property
    def current(self) -> int:
        """The pass where the sampler stands."""
        return self.cursor.pass_index

    @property
    def due(self) -> int:
        """The pass that the next iterator begins, or goes on with after a load."""
        return self.current + (self.begun and not self._again)

    @property
    def finished(self) -> bool:
        """Whether all batches of the current pass are drawn."""
        return self.begun and not self._remaining(self.cursor)

    @property
    def place(self) -> Cursor:
        """Where the sampler stands, a finished pass being the next one's beginning."""
        cursor = self.cursor
        if self._again and self.finished:
            return self.start_of(cursor.pass_index)  # it is to be begun anew
        return self.normal(cursor)

    @property
    def loaded(self) -> int:
        """Batches of the pass due that come before the state that was loaded."""
        return 0 if self.begun else self.origin.batches

    @property
    def planned(self) -> bool:
        """Whether the sizes are known ahead for good, and come to an end."""
        return self._budget is not None

    @property
    def even(self) -> bool:
        """Whether all passes have as many batches at the sizes in force."""
        return self.sizes.constant is not None and self._batches.boundary != "wrap"

    @property
    def left(self) -> int:
        """Batches of the pass being drawn from, or of the next one where none is left."""
        here = 0
        if not self.begun:
            here = self._remaining(self.origin)
        elif not self._again:
            here = self._remaining(self.cursor)
        # Past a plan's end the iterator itself says so.
        return here or self.length_of(self.due) or len(self)

    def normal(self, cursor: Cursor) -> Cursor:
        """Returns a cursor, or the next pass's beginning where its pass is at its end."""
        if cursor.batches and not cursor.slices and not self._remaining(cursor):
            return self.start_after(cursor)
        return cursor

    def __len__(self) -> int:
        """Batches of the current pass, or of the next once its iterator is exhausted."""
        origin = self.origin
        if self.exhausted and not self._again:
            following = self.start_of(self.current + 1)
            origin = following if self._remaining(following) else origin
        elif not origin.batches and not self._remaining(origin) and origin.pass_index:
            origin = self.start_of(origin.pass_index - 1)  # a plan's end was loaded
        return origin.batches + self._remaining(origin)

    def length_counted(self, counter: Counter) -> int:
        """Returns the batches of the pass that a trainer is about to draw, or draws."""
        if self.begun and counter.epoch != self.current:
            return self.length_of(self.due)
        if self.told:
            return self.origin.batches + self._remaining(self.origin)
        return self.length_of(counter.epoch)

    def begin(self) -> None:
        """Moves to the pass that an iterator draws from."""
        origin = self.start_of(self.due) if self.begun else self.origin
        # The dry run is for a plan alone: nothing else ends.
        if self._budget and not origin.batches and not self._remaining(origin):
            raise ValueError(
                f"epoch must lie before {self._budget / self._batches.num_samples:g}, "
                f"where the plan ends, got {origin.pass_index} (an iterator dropped "
                "after its first batch, as by next(iter(loader)), has taken a pass too: "
                "call set_epoch with the pass that you mean)"
            )
        self._check_shares(origin)
        if self.begun:
            self._place(origin)
        self.begun = self.told = True
        self._generation += 1

    def runs(self, output: str | NDArray[np.int64]) -> Iterator[Run]:
        """Yields the pass that was begun as runs of one size, each drawn to its end."""
        generation, cursor = self._generation, self._base
        end = self.end_of(cursor.pass_index)
        while cursor.position < end:
            start, size, until = self.sizes.draw(cursor.position)
            if start >= end:
                break
            run = self._batches.run(
                start,
                size,
                min(until, end),
                self.rank,
                self.world_size,
                cursor.slices,
                output,
            )
            # An iterator that set_epoch, a load or a newer one left behind runs on for
            # its owner, but is no longer where the sampler stands.
            if generation == self._generation:
                self._run = run
            yield run
            cursor = self._after(cursor, run)
            if generation == self._generation:
                self._run, self._base = None, cursor
        if generation == self._generation:
            self.exhausted = True

    def count_to(self, counter: Counter) -> None:
        """Makes a pass that a trainer counts for itself the one begun next.

        Raises:
            ValueError: If it is not the pass due, though something was drawn, loaded or
                set by hand.
        """
        epoch = counter.epoch
        if counter.late and self.begun and epoch == self.current:
            return  # it says so after its first batches are drawn
        if not self.told:
            self._go_to(epoch)
        elif epoch != self.due:
            raise ValueError(
                f"epoch must be {self.due}, the pass due, got {epoch} from "
                f"{counter.whose}: {counter.advice}"
            )
        elif epoch != self.current:
            self._go_to(epoch)

    def go_to(self, pass_index: int) -> None:
        """Makes a pass the one that the next iterator begins, as the user says.

        An iterator within that very pass stays where the sampler stands until then, and
        the rest of it that was loaded stays due.
        """
        self.told = True
        self._go_to(pass_index)

    def _go_to(self, pass_index: int) -> None:
        current = self.cursor
        if pass_index != current.pass_index:
            self._place(self.start_of(pass_index))
            self.begun = False
        elif self.begun:
            self._again = True

    def go_back(self, cursor: Cursor, sizes: SizeRuns | CalledSizes) -> None:
        """Makes a cursor, of other sizes perhaps, the place where the sampler stands."""
        self.sizes = sizes
        self._stand_at(self.normal(cursor))
        self.begun, self.told = False, True

    def resize(self, position: int, size: int, *, for_good: bool) -> None:
        """Sets the size by hand of the batches from a position on."""
        assert isinstance(self.sizes, SizeRuns)
        self.sizes = self.sizes.changed(position, size, for_good=for_good)
        if self._run is not None:
            self._run.stop_at(position)
        # A batch found further on was found at the sizes before.
        self._found = (self.origin.position, self.origin.batches)

    def locate(self, name: str, batches: int, ahead: int = 0) -> int:
        """Returns the position after so many batches of the current pass.

        Args:
            name: What the number is called, for errors.
            batches: How many, from the pass's beginning on.
            ahead: How many more there must be.

        Raises:
            ValueError: If there are not as many, or the point that was loaded lies
                behind.
        """
        origin = self.origin
        if batches < origin.batches:
            raise ValueError(
                f"{name} must be at least {origin.batches} (the batches before "
                f"the state that was loaded), got {shown(batches)}"
            )
        # Asked for batch after batch, it goes on from the one before.
        position, found = self._found
        if batches < found:
            position, found = origin.position, origin.batches
        end = self.end_of(self.cursor.pass_index)
        wanted = min(batches, MAX_POSITION) - found
        position, count = self.sizes.lay(position, end, wanted)
        more = self.sizes.lay(position, end, ahead)[1]
        if found + count < batches or more < ahead:
            most = found + count + more - ahead
            raise ValueError(
                f"{name} must be at most {most} in a pass of {found + count + more} "
                f"batches, got {shown(batches)}"
            )
        self._found = (position, batches)
        return position

    def length_of(self, pass_index: int) -> int:
        """Returns how many batches a pass that begins anew has."""
        return self._remaining(self.start_of(pass_index))

    def end_of(self, pass_index: int) -> int:
        """Returns the position before which a batch of this pass begins."""
        end = (pass_index + 1) * self._batches.num_samples
        return end if self._budget is None else min(end, self._budget)

    def start_of(self, pass_index: int) -> Cursor:
        """Returns where a pass begins."""
        current = self.cursor
        if pass_index == current.pass_index + 1:
            return self.start_after(current)
        return self._start(pass_index, 0)

    def start_after(self, cursor: Cursor) -> Cursor:
        """Returns where the pass after a cursor's begins."""
        return self._start(cursor.pass_index + 1, cursor.position)

    def _start(self, pass_index: int, before: int) -> Cursor:
        """Where a pass begins; under `wrap` as its batches fall from `before` on."""
        position = pass_index * self._batches.num_samples
        if self._batches.boundary == "wrap":
            position, _ = self.sizes.lay(before, position)
        return Cursor(pass_index, position, 0, 0)

    def _place(self, origin: Cursor) -> None:
        """Stands at a pass's beginning, the sizes set by hand being moved along."""
        sizes = self.sizes
        if isinstance(sizes, CalledSizes):
            sizes.forget(origin.position)
        elif self._budget is None:
            self.sizes = sizes.moved(self.cursor.position, origin.position)
        self._stand_at(origin)

    def _stand_at(self, cursor: Cursor) -> None:
        self._run, self._base = None, cursor
        self.origin = cursor
        self._found = (cursor.position, cursor.batches)
        self._again = self.exhausted = False
        self._generation += 1

    def _after(self, base: Cursor, run: Run) -> Cursor:
        """Where a run stands that began at `base`."""
        start, count, shares = run.place
        batches = base.batches + count
        if shares:
            return Cursor(base.pass_index, start, batches, shares)
        if not count:
            return base
        after = position_after(self._batches, self.sizes.size_at, start, run.batch_size)
        return Cursor(base.pass_index, after, batches, 0)

    def _remaining(self, cursor: Cursor) -> int:
        """How many batches of its pass begin at or past the cursor."""
        end = self.end_of(cursor.pass_index)
        return self.sizes.lay(cursor.position, end)[1]

    def _check_shares(self, origin: Cursor) -> None:
        """Refuses a pass whose last batch, cut short, leaves a rank with no sample."""
        if self.world_size == 1 or isinstance(self.sizes, CalledSizes):
            return
        count = self._remaining(origin)
        if count == 0:
            return
        end = self.end_of(origin.pass_index)
        position, _ = self.sizes.lay(origin.position, end, count - 1)
        start, size = self.sizes.batch_at(position)
        length = self._batches.end(start, size) - start
        if length < self.world_size:
            raise ValueError(
                f"batch_size must leave every batch {self.world_size} samples or more "
                f"(world_size), got {size}, which leaves the last of a pass of "
                f'{self._batches.num_samples} with {length}: use boundary="drop" or '
                '"wrap"'
            )
