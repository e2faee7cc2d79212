"""Where a sampler stands in the stream of passes, and how it goes on from there."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from batchramp._rust import Batches, Run
from batchramp.sampler.laid import Laid
from batchramp.sampler.pieces import Cut
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
        micro_batch: The most samples of a piece; None where shares are not cut.
        budget: The position before which the last batch begins; None is without end.
        by_hand: Whether the sizes may be set by hand, and no schedule decides them.

    Attributes:
        laid: The stream as its sizes lay it; replaced, never changed.
        origin: Where the current pass began, or the state that was loaded.
        begun: Whether an iterator has begun the current pass.
        exhausted: Whether that iterator has been asked for more than the pass has.
        word: By what the sampler stands where it does: nothing yet, the user's `hand`
            (or a load), a trainer's `count`, or batches `drawn`.
    """

    def __init__(
        self,
        batches: Batches,
        sizes: SizeRuns | CalledSizes,
        rank: int | None,
        world_size: int,
        micro_batch: int | None,
        budget: int | None,
        by_hand: bool,
    ) -> None:
        self.laid = Laid(batches, sizes, budget)
        self._by_hand = by_hand
        self._batches = batches
        self.rank = rank
        self.world_size = world_size
        self.micro_batch = micro_batch
        self.begun = False
        self.exhausted = False
        self.word = ""
        self.origin = Cursor(0, 0, 0, 0)
        self._base = self.origin
        self._run: Run | None = None
        self._again = False
        self._generation = 0
        self._found = (0, 0)
        self._cuts: tuple[Cursor, Cut] | None = None
        self._held: tuple[object, int] | None = None
        self.laid.check_shares(self.origin, world_size)

    def __getstate__(self) -> dict[str, object]:
        # A run belongs to its iterator: a copy goes on from where it stands.
        return self.__dict__ | {"_base": self.cursor, "_run": None}

    @property
    def sizes(self) -> SizeRuns | CalledSizes:
        """Of the batches."""
        return self.laid.sizes

    @property
    def cursor(self) -> Cursor:
        """Where the sampler stands: it is asked for less often than batches are."""
        # Read once each, the run first: another thread may end it meanwhile.
        run, base = self._run, self._base
        return base if run is None else self._after(base, run)

    @property
    def drawn(self) -> int:
        """The position up to which batches are drawn, if only some of their shares."""
        # Sizes set since then, one after another, change no batch that is drawn.
        if self._held is not None and self._held[0] == self._place_of_run():
            return self._held[1]
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
    def told(self) -> bool:
        """Whether anything was drawn, loaded or set by hand."""
        return bool(self.word)

    @property
    def said(self) -> bool:
        """Whether the pass due was last said by hand, or loaded."""
        return self.word == "hand"

    @property
    def finished(self) -> bool:
        """Whether all batches of the current pass are drawn."""
        return self.begun and not self.laid.remaining(self.cursor)

    @property
    def place(self) -> Cursor:
        """Where the sampler stands, a finished pass being the next one's beginning."""
        cursor = self.cursor
        if self._again and self.finished:
            return self.start_of(cursor.pass_index)  # it is to be begun anew
        return self.laid.normal(cursor)

    @property
    def skipped(self) -> int:
        """Batches (pieces) of the current pass before the place where it was begun."""
        origin = self.origin
        if self.micro_batch is None:
            return origin.batches
        return self.cut.before(origin.batches)

    @property
    def planned(self) -> bool:
        """Whether the sizes are known ahead for good, and come to an end."""
        return self.laid.budget is not None

    @property
    def known(self) -> bool:
        """Whether the sizes are known ahead: no function says them one by one."""
        return isinstance(self.sizes, SizeRuns)

    @property
    def even(self) -> bool:
        """Whether all passes have as many batches at the sizes in force."""
        return self.sizes.constant is not None and self._batches.boundary != "wrap"

    @property
    def loaded(self) -> int:
        """Batches (pieces) of the pass due that come before the state that was loaded."""
        return 0 if self.begun else self.handed_out

    @property
    def left(self) -> int:
        """Batches (pieces) yet to be drawn of this pass, or of the next if none is."""
        here = 0
        if not self.begun or not self._again:
            here = self._length(self.origin) - self.handed_out
        # Past a plan's end the iterator itself says so.
        return here or self.length_of(self.due) or len(self)

    def __len__(self) -> int:
        """Batches, or pieces, of the current pass; of the next once it is exhausted."""
        origin = self.origin
        if self.exhausted and not self._again:
            following = self.start_of(self.current + 1)
            origin = following if self.laid.remaining(following) else origin
        elif not origin.batches and not self.laid.remaining(origin):
            # A plan's end was loaded.
            origin = self.laid.start_of(max(0, origin.pass_index - 1))
        return self._length(origin)

    def length_of(self, pass_index: int) -> int:
        """Returns how many batches, or pieces, a pass that begins anew has."""
        return self._length(self.start_of(pass_index))

    def length_counted(self, counter: Counter) -> int:
        """Returns the same of the pass that a trainer is about to draw, or draws.

        What it has trained of it counts, and what a loaded state leaves out does not.

        Raises:
            ValueError: If it is not the pass due, as for `count_to`.
        """
        self._check_count(counter)
        if counter.epoch != self.current:
            return self.length_of(counter.epoch)
        whole = self._length(self.origin)
        if not self.skipped or counter.batches is None:
            return whole
        return whole - self.skipped + counter.batches

    def _length(self, origin: Cursor) -> int:
        """Batches, or pieces, of a pass that begins, or goes on, at a cursor."""
        if self.micro_batch is None:
            return origin.batches + self.laid.remaining(origin)
        return self._cut(origin).count

    def _cut(self, origin: Cursor) -> Cut:
        """The pieces of a pass that begins, or goes on, at a cursor: of all of it."""
        assert self.micro_batch is not None
        if self._cuts is None or self._cuts[0] != origin:
            start = origin
            if origin.batches:
                start = self.laid.start_of(origin.pass_index)
            stretches = self.laid.stretches(start)
            self._cuts = (origin, Cut(stretches, self.world_size, self.micro_batch))
        return self._cuts[1]

    @property
    def cut(self) -> Cut:
        """The pieces of the current pass, counted from its beginning."""
        return self._cut(self.origin)

    @property
    def handed_out(self) -> int:
        """Batches, or pieces, of the current pass that each rank has been handed."""
        cursor = self.cursor
        if self.micro_batch is None:
            return cursor.batches
        ranks = self.world_size if self.rank is None else 1
        return self.cut.before(cursor.batches) + cursor.slices // ranks

    def begin(self, *, counted: bool = False) -> None:
        """Moves to the pass that an iterator draws from, by a trainer's count or not."""
        origin = self.start_of(self.due) if self.begun else self.origin
        self.laid.check_begins(origin)
        self.laid.check_shares(origin, self.world_size)
        if self.begun:
            self._place(origin)
        self.begun = True
        self.word = "count" if counted else "drawn"
        self._generation += 1

    def runs(self, output: str | NDArray[np.int64]) -> Iterator[Run]:
        """Yields the pass that was begun as runs of one size, each drawn to its end."""
        generation, cursor = self._generation, self._base
        end = self.laid.end_of(cursor.pass_index)
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
                micro_batch=self.micro_batch,
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

    def count_to(self, counter: Counter, *, drawing: bool = False) -> None:
        """Makes a pass that a trainer counts for itself the one begun next.

        Args:
            counter: The trainer's count.
            drawing: Whether its iterator is about to begin that pass.

        Raises:
            ValueError: If it is not the pass due, though something was drawn, loaded or
                set by hand.
        """
        epoch, late = counter.epoch, counter.late
        again = late and self.begun and epoch == self.current
        if again and not drawing:
            return  # it says so after its first batches are drawn
        self._check_count(counter)
        if epoch != self.current or again:
            self._go_to(epoch)
        if counter.batches:
            self._go_on(counter.batches, counter.whose)
        if late:
            self.word = "count"

    def _check_count(self, counter: Counter) -> None:
        """Refuses a count that contradicts what was drawn, loaded or set by hand."""
        epoch = counter.epoch
        again = counter.late and epoch == self.current and not self.finished
        free = not self.told or (counter.late and self.word == "count")
        if epoch != self.due and not again and not free:
            raise ValueError(
                f"epoch must be {self.due}, the pass due, got {epoch} from "
                f"{counter.whose}: {counter.advice}"
            )

    def _go_on(self, trained: int, whose: str) -> None:
        """Goes past the batches (pieces) of the pass due that a trainer has trained."""
        origin = self.start_of(self.due) if self.begun else self.origin
        updates = trained
        if self.micro_batch is not None:
            updates = self._cut(origin).update_of(trained)
            if self._cut(origin).before(updates) != trained:
                raise ValueError(
                    f"pieces must be trained to an update's end where {whose} stops, got "
                    f"{trained}, within update {updates} of the pass"
                )
        if origin.batches:
            if origin.batches != updates:
                raise ValueError(
                    f"state must be of {updates} batches of the pass, as {whose} has "
                    f"trained, got {origin.batches}"
                )
            return
        end = self.laid.end_of(origin.pass_index)
        position, found = self.sizes.lay(origin.position, end, updates)
        if found < updates:
            raise ValueError(
                f"batch sizes must leave pass {origin.pass_index} at least {updates} "
                f"batches, as {whose} has trained, got {found}"
            )
        self._place(origin)
        self._stand_at(Cursor(origin.pass_index, position, updates, 0))
        self.begun = False

    def go_to(self, pass_index: int) -> None:
        """Makes a pass the one that the next iterator begins, as the user says.

        An iterator within that very pass stays where the sampler stands until then, and
        the rest of it that was loaded stays due.
        """
        self._go_to(pass_index)
        self.word = "hand"

    def _go_to(self, pass_index: int) -> None:
        current = self.cursor
        if pass_index != current.pass_index:
            self._place(self.start_of(pass_index))
            self.begun = False
        elif self.begun:
            self._again = True

    def go_back(self, cursor: Cursor, sizes: SizeRuns | CalledSizes) -> None:
        """Makes a cursor, of other sizes perhaps, the place where the sampler stands."""
        self._lay(sizes)
        self._stand_at(self.laid.normal(cursor))
        self.begun, self.word = False, "hand"

    def resize(self, position: int, size: int, *, for_good: bool) -> None:
        """Sets the size by hand of the batches from a position on."""
        assert isinstance(self.sizes, SizeRuns)
        self._held = (self._place_of_run(), self.drawn)
        self._lay(self.sizes.changed(position, size, for_good=for_good))
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
        end = self.laid.end_of(self.cursor.pass_index)
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

    def start_of(self, pass_index: int) -> Cursor:
        """Returns where a pass begins."""
        current = self.cursor
        if pass_index == current.pass_index + 1:
            return self.laid.start_after(current)
        return self.laid.start_of(pass_index)

    def _place(self, origin: Cursor) -> None:
        """Stands at a pass's beginning, the sizes set by hand being moved along."""
        sizes = self.sizes
        if isinstance(sizes, CalledSizes):
            sizes.forget(origin.position)
        elif self._by_hand:
            self._lay(sizes.moved(self.cursor.position, origin.position))
        self._stand_at(origin)

    def _place_of_run(self) -> object:
        """What changes whenever a batch is drawn, and nothing else of the sampler's."""
        run = self._run
        return self._generation, self._base, None if run is None else run.place

    def _lay(self, sizes: SizeRuns | CalledSizes) -> None:
        self.laid = Laid(self._batches, sizes, self.laid.budget)
        self._cuts = None

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
