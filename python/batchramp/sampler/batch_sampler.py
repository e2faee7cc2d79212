"""Batches of a scheduled size for any trainer that takes a torch batch sampler."""

from collections.abc import Mapping, Sized
from typing import TYPE_CHECKING, Any

from torch.utils.data import Sampler

from batchramp._rust import Batches, share
from batchramp.sampler.drawing import Drawing
from batchramp.sampler.laid import Laid, check_place
from batchramp.sampler.outputs import check_output
from batchramp.sampler.passes import Passes
from batchramp.sampler.pieces import Piece
from batchramp.sampler.sizes import MAX_POSITION, SizeRuns
from batchramp.sampler.sizing import Schedule, plan_of, read_sizes
from batchramp.sampler.sources import (
    MAX_THREADS,
    adopt,
    check_batch_size,
    check_ranks,
    check_sizes,
    choose_boundary,
)
from batchramp.sampler.state import (
    Cursor,
    check_epoch,
    read_state,
    write_state,
)
from batchramp.sampler.trainers import (
    asks_what_is_left,
    before_saving,
    counter_asking,
    counter_of,
)
from batchramp.sampler.trainers.accelerate import refuse_split
from batchramp.values import shown, whole

if TYPE_CHECKING:
    from batchramp.schedules.interface import Settings


class VariableBatchSampler(Drawing):
    """A batch sampler whose batch size may change between any two batches.

    A batch is a function of the seed, its position and its size, so neither prefetching
    workers nor a resume nor another number of ranks changes which samples train
    together. Under `keep` every sample comes exactly once a pass, whatever the sizes.

    `iter()` begins the pass after the last one that a batch was drawn from; the first
    time, and after `set_epoch` or `load_state_dict`, what those say. Nothing happens
    before an iterator's first `next`.

    Args:
        sampler: What to draw from: a number of samples, a sized data set, a
            `RandomSampler` without replacement (its generator is not used), a
            `SequentialSampler` (the order is then `sequential`), a `DistributedSampler`
            (its data set's length, rank, world size and seed are taken over, and its
            epoch whenever that is set, not its padding; `batch_size` is then per
            process), or the indices to draw: whole numbers in a list, tuple, range,
            array or tensor of one dimension, or in a `SubsetRandomSampler`. Indices may
            repeat, and each is then drawn as often as it stands there.
        batch_size: Global batch size, over all ranks; or give `schedule`.
        drop_last: The same as `boundary="drop"`.
        schedule: A `Plan`, a list of (samples, size) pairs (from how many samples on
            which size holds), or a pure function of the position that returns the size.
        order: `exact` (uniform over all permutations given ideal bits, 4 bytes a
            sample, up to 2**32 samples), `bijective` (a keyed bijection: no memory, any
            place at once, up to 2**45 samples), `sequential`, or `auto`: exact up to
            2**24 samples, bijective above.
        seed: 0 to 2**64 - 1; equal on all ranks.
        boundary: What happens to a batch at a pass's end: `keep` (cut short, the
            default), `drop` (skipped where it does not fit) or `wrap` (runs on into
            the next pass). A `Plan` brings its own.
        rank: The rank whose contiguous share of each batch is yielded. None yields the
            shares of all ranks in turn, for a loader that deals batches out.
        world_size: Number of ranks; each needs a sample of every batch. None is 1, with
            a warning where torch's processes train together.
        micro_batch: The most samples handed out at a time: each rank's share of a batch
            comes in as many pieces, equal or differing by one (of 1 only where shares
            are equal). `piece` says what each is; `len` and `state_at` count them.
        output: `list` or `numpy` (int64 arrays).
        threads: Threads that compute whole passes: an exact order's shuffle, and
            `permutation`; at most 1,024. The order is the same for any number.

    Raises:
        ValueError: If an argument is out of its range, or two contradict.
    """

    def __init__(
        self,
        sampler: int | Sized | Sampler[int],
        batch_size: int | None = None,
        drop_last: bool = False,
        *,
        schedule: Schedule | None = None,
        order: str = "auto",
        seed: int = 0,
        boundary: str | None = None,
        rank: int | None = 0,
        world_size: int | None = None,
        micro_batch: int | None = None,
        output: str = "list",
        threads: int = 1,
    ) -> None:
        # BatchSampler.__init__ refuses batch_size=None and is skipped.
        ranks = 1 if world_size is None else world_size
        source = adopt(sampler, order, seed, rank, ranks)
        self._theirs = source.theirs
        said = rank is None or world_size is not None or source.theirs is not None
        self._alone = not said
        self._their_epoch = 0
        self._processes = source.processes
        self._rank, self._world_size = check_ranks(source.rank, source.world_size)
        self._output = check_output(output)
        check_sizes(batch_size, schedule)
        self._plan = plan_of(schedule)
        chosen = choose_boundary(boundary, drop_last, self._plan)
        self._batches = Batches(
            source.num_samples,
            seed=source.seed,
            order=source.order,
            boundary=chosen,
            threads=whole("threads", threads, least=1, most=MAX_THREADS),
            indices=source.indices,
        )
        if micro_batch is not None:
            micro_batch = whole("micro_batch", micro_batch, least=1)
        self._micro_batch = micro_batch
        self._made_with = None if batch_size is None else self._global_size(batch_size)
        sizing = read_sizes(self._made_with, schedule, self._batches, self._check_size)
        self._schedule_id = sizing.schedule_id
        self._passes = Passes(
            self._batches,
            sizing.sizes,
            self._rank,
            self._world_size,
            micro_batch,
            sizing.budget,
            by_hand=self._made_with is not None,
        )

    def __len__(self) -> int:
        """Batches (pieces, with `micro_batch`) that `iter()` yields in the current pass.

        That is the pass being drawn from (counted whole, after a load too), or, once
        its iterator is exhausted, the next one; a plan's last pass stays. Workers
        exhaust it before the loop does: take `len(loader)` before the loop there. Under
        `wrap` a batch belongs to the pass that holds its first position.
        """
        self._follow()
        passes = self._passes
        counter = counter_asking(self, passes)
        if counter is not None:
            length = passes.length_counted(counter)
        else:
            length = passes.left if asks_what_is_left(self) else len(passes)
        return length * (self._world_size if self._rank is None else 1)

    @property  # type: ignore[override]  # torch's is always a number
    def batch_size(self) -> int | None:
        """The batch size if it is constant, None if a schedule varies it.

        It is global, but per process beside a `DistributedSampler`, as in the
        constructor. None too where shares are dealt out, which differ in length. Setting
        it fixes the size from the next batch drawn on.
        """
        if self._rank is None and self._world_size > 1:
            size = None
        elif self._made_with is not None:
            size = self._passes.sizes.size_at(self._passes.drawn)
        else:
            size = self._passes.sizes.constant
        if size is None:
            refuse_split()
            return None
        return size // self._processes

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        self.set_batch_size(size)

    @property  # type: ignore[override]  # torch's is any iterable of indices
    def sampler(self) -> "VariableBatchSampler":
        """This sampler: where trainers look for a `set_epoch`."""
        return self

    @sampler.setter
    def sampler(self, sampler: object) -> None:
        if sampler is not self:
            raise ValueError(
                "sampler must not be replaced: make another VariableBatchSampler of "
                f"it, got {type(sampler).__name__}"
            )

    @property
    def start(self) -> int:
        """Index in its pass of the first batch (or piece) that the next `iter()` yields.

        0 unless a state within a pass was loaded: `enumerate(loader, sampler.start)`
        counts what `weight`, `settings`, `piece` and `state_at` take.
        """
        return self._passes.loaded

    def set_epoch(self, epoch: int) -> None:
        """Chooses the pass that the next `iter()` begins.

        The rest of a pass that `load_state_dict` brought back is kept if it is of this
        very epoch. Under `wrap`, where a pass begins depends on the batches before it:
        they are laid from position 0 at the sizes in force. A trainer that calls this by
        a count of its own is obeyed where it says the pass due, or where nothing was
        drawn, loaded or set by hand.

        Args:
            epoch: The pass, from 0.

        Raises:
            ValueError: If it is not a whole number at or above 0, or if a trainer says
                it by its own count and another pass is due.
        """
        pass_index = check_epoch("epoch", epoch, self.num_samples)
        counter = counter_of(self, self._passes, pass_index)
        if counter is None:
            self._passes.go_to(pass_index)
        else:
            self._passes.count_to(counter)

    def set_batch_size(self, size: int, at: int | None = None) -> None:
        """Sets the size of the batches that begin at or past a position.

        Args:
            size: The batch size, meant as the constructor's.
            at: First position at which it holds, until one set further on; None is the
                next batch drawn, for good.

        Raises:
            ValueError: If the position was drawn, if the size is out of range, or if
                the sizes come from a schedule.
        """
        if self._made_with is None:
            raise ValueError(
                f"batch_size must not be set where a schedule decides it, got {shown(size)}"
            )
        size = self._global_size(size)
        drawn = self._passes.drawn
        position = drawn
        if at is not None:
            position = whole("at", at, least=0, most=MAX_POSITION)
        if position < drawn:
            raise ValueError(
                f"at must be at least {drawn} (batches are drawn up to there), "
                f"got {position}"
            )
        self._passes.resize(position, size, for_good=at is None)

    def weight(self, update: int) -> float:
        """What to scale a rank's mean loss by, so that averaging over ranks is exact.

        DDP averages the ranks' gradients equally, whatever their shares. With
        world_size * share / batch the average is the mean over the global batch. With
        `micro_batch`, take `piece(index).weight`.

        Args:
            update: The batch's index in the current pass, from 0, counted from the
                pass's start after a load too. (`state_of`, and a plan's `settings_of`,
                count from the trial's start.)

        Raises:
            ValueError: If there is no such batch, or it lies before the point that was
                loaded, `rank` is None, or `micro_batch` is given.
        """
        if self._micro_batch is not None:
            raise ValueError(
                "micro_batch must be None for weight(), got "
                f"{self._micro_batch}: write piece(index).weight, of each piece's index"
            )
        rank = self._one_rank("weight")
        start, size = self._batch(update)
        length = self._batches.end(start, size) - start
        first, last = share(length, rank, self._world_size)
        return self._world_size * (last - first) / length

    def settings(self, update: int) -> "Settings":
        """Returns the batch size, rate and momentum of a batch, as its plan decides them.

        Args:
            update: As of `weight`: enumerate the loader, workers or not.

        Raises:
            ValueError: If there is no such batch, it lies before the point that was
                loaded, or the schedule is not a `Plan`.
        """
        if self._plan is None:
            raise ValueError(
                "schedule must be a Plan for settings(), which knows rates, got "
                f"{'a batch size' if self._made_with else 'one of batch sizes alone'}"
            )
        return self._plan.settings_at(self._batch(update)[0])

    def piece(self, index: int) -> Piece:
        """Returns what a piece of a global batch is: its update, weight, and if the last.

        Scale the piece's mean loss by the weight, accumulate, and step after the last.

        Args:
            index: The piece's in the current pass, from 0, counted from the pass's start
                after a load too: enumerate the loader, workers or not.

        Raises:
            ValueError: If there is no such piece, no `micro_batch`, or `rank` is None.
        """
        if self._micro_batch is None:
            raise ValueError("micro_batch must be given for piece(), got None")
        rank = self._one_rank("piece")
        return self._passes.cut.piece(whole("index", index, least=0), rank)

    def _one_rank(self, asking: str) -> int:
        if self._rank is None:
            if self._world_size > 1:
                raise ValueError(f"rank must be a number for {asking}(), got rank=None")
            return 0
        return self._rank

    def _batch(self, update: int) -> tuple[int, int]:
        """Start and size of a batch of the current pass."""
        update = whole("update", update, least=0)
        passes = self._passes
        return passes.sizes.batch_at(passes.locate("update", update, ahead=1))

    def state_dict(self) -> dict[str, Any]:
        """Returns a new JSON-able dict: the same on every rank, for any world size.

        `samples_consumed_global` is the offset in the pass `epoch`, tails that were
        skipped included; `batches_yielded` counts that pass's global batches. A pass
        whose last batch is drawn is the next one's beginning: `epoch` is the next, of
        which no batch is yielded.
        """
        before_saving(self, self._passes)
        return self._state(self._passes.place)

    def state_at(self, batches: int) -> dict[str, Any]:
        """Returns the state after the first batches of the current pass.

        For a plain `DataLoader` with workers, which draws ahead of what was trained.

        Args:
            batches: Global batches of this pass that were trained, counted from the
                pass's start after a load too; with `micro_batch` its pieces: an update
                whose last piece was not trained is begun anew.

        Raises:
            ValueError: If so many were not drawn, or the point that was loaded lies
                behind.
        """
        batches = whole("batches", batches, least=0)
        passes = self._passes
        if batches > passes.handed_out:
            raise ValueError(
                f"batches must be at most {passes.handed_out} (drawn so far), "
                f"got {shown(batches)}"
            )
        if self._micro_batch is not None:
            batches = passes.cut.update_of(batches)
        position = passes.locate("batches", batches)
        there = Cursor(passes.current, position, batches, 0)
        return self._state(passes.laid.normal(there))

    def state_of(self, update: int) -> dict[str, Any]:
        """Returns the state before an update, none of whose batches need be drawn.

        So that training may start at any update without a saved state.

        Args:
            update: The update's index from the trial's start, from 0 (`weight` and
                `settings` take it from the pass's start).

        Raises:
            ValueError: If a plan has not as many updates, or sizes were set by hand, so
                that where the update begins is not known.
        """
        update = whole("update", update, least=0)
        laid = self._passes.laid
        if self._made_with is not None and laid.sizes.constant != self._made_with:
            raise ValueError(
                "batch_size must not have been set by hand for state_of(), got other "
                f"sizes than the {self._made_with} that the sampler was made with"
            )
        return self._state(laid.after(update))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to a state: the next `iter()` yields what was left of its pass.

        It does so once; where nothing was left, it yields the next pass. The sizes set
        by hand come back too.

        Args:
            state: What `state_dict` or `state_at` returned, on any number of ranks.

        Raises:
            ValueError: If it belongs to other samples, another order, seed, boundary
                or schedule, to a sampler made with another `batch_size`, or is not a
                state.
        """
        self._follow()  # what their epoch says later is said after the load
        cursor, runs = read_state(state, self._state(self._passes.cursor))
        if cursor.slices and (
            self._rank is not None
            or self._micro_batch is not None
            or cursor.slices >= self._world_size
        ):
            raise ValueError(
                "state's slices_yielded must be 0 where ranks or pieces are others, "
                f"got {shown(cursor.slices)}"
            )
        laid = self._passes.laid
        if runs is not None:
            checked = [(at, self._check_size(size)) for at, size in runs]
            laid = Laid(self._batches, SizeRuns(self._batches, checked), laid.budget)
        # Of sizes set by hand the state knows those to come, but pieces are counted
        # from the pass's beginning.
        if runs is None or (self._micro_batch is not None and cursor.batches):
            check_place(cursor, laid)
        self._passes.go_back(cursor, laid.sizes)

    def _global_size(self, size: int) -> int:
        """The global size that a user means, checked."""
        return self._check_size(whole("batch_size", size) * self._processes)

    def _check_size(self, size: int) -> int:
        """A global batch size, checked against the samples and the ranks."""
        return check_batch_size(size, self.num_samples, self._world_size)

    def _state(self, cursor: Cursor) -> dict[str, Any]:
        if self._micro_batch is not None:
            cursor = cursor._replace(slices=0)  # an update begins with its first piece
        runs = None
        sizes = self._passes.sizes
        if self._made_with is not None and isinstance(sizes, SizeRuns):
            # The size in force, and those set for positions to come.
            runs = sizes.runs_from(cursor.position)
        return write_state(
            cursor,
            self._batches,
            self._made_with,
            runs,
            self._schedule_id,
        )
