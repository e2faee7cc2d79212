"""Batches of a scheduled size for any trainer that takes a torch batch sampler."""

from collections.abc import Callable, Iterator, Mapping, Sized
from typing import Any, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import BatchSampler, DistributedSampler, Sampler

from batchramp._rust import Batches, Run, Runs, share
from batchramp.sampler.outputs import Out, check_output, writable
from batchramp.sampler.passes import Passes
from batchramp.sampler.sizes import MAX_POSITION, CalledSizes, SizeRuns
from batchramp.sampler.sources import (
    MAX_THREADS,
    StaticPlan,
    adopt,
    check_batch_size,
    check_plan,
    check_ranks,
    check_sizes,
    choose_boundary,
)
from batchramp.sampler.state import (
    Cursor,
    check_epoch,
    check_place,
    read_state,
    write_state,
)
from batchramp.sampler.trainers import (
    asks_what_is_left,
    before_drawing,
    before_saving,
    counter_asking,
    counter_of,
    is_discarded,
)
from batchramp.sampler.trainers.accelerate import refuse_split
from batchramp.values import shown, whole


class VariableBatchSampler(BatchSampler):
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
            `SequentialSampler` (the order is then `sequential`) or a
            `DistributedSampler` (its data set's length, rank, world size and seed are
            taken over, not its padding, and `batch_size` is then per process).
        batch_size: Global batch size, over all ranks; or give `schedule`.
        drop_last: The same as `boundary="drop"`.
        schedule: A `Plan`, or a pure function of the position that returns the size.
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
        world_size: Number of ranks; each needs a sample of every batch.
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
        schedule: StaticPlan | Callable[[int], int] | None = None,
        order: str = "auto",
        seed: int = 0,
        boundary: str | None = None,
        rank: int | None = 0,
        world_size: int = 1,
        output: str = "list",
        threads: int = 1,
    ) -> None:
        # BatchSampler.__init__ refuses batch_size=None and is skipped.
        source = adopt(sampler, order, seed, rank, world_size)
        self._theirs = sampler if isinstance(sampler, DistributedSampler) else None
        self._their_epoch = 0
        self._processes = source.processes
        self._rank, self._world_size = check_ranks(source.rank, source.world_size)
        self._output = check_output(output)
        check_sizes(batch_size, schedule)
        planned = None if schedule is None or callable(schedule) else schedule
        chosen = choose_boundary(boundary, drop_last, planned)
        self._batches = Batches(
            source.num_samples,
            seed=source.seed,
            order=source.order,
            boundary=chosen,
            threads=whole("threads", threads, least=1, most=MAX_THREADS),
            indices=source.indices,
        )
        budget: int | None = None
        self._schedule_id: str | None = None
        self._made_with: int | None = None
        sizes: SizeRuns | CalledSizes
        if batch_size is not None:
            self._made_with = self._global_size(batch_size)
            sizes = SizeRuns(self._batches, [(0, self._made_with)])
        elif planned is not None:
            check_plan(planned, source.num_samples)
            for _, size in planned.runs:
                self._check_size(size)
            sizes = SizeRuns(self._batches, planned.runs)
            budget = planned.horizon.budget
            self._schedule_id = planned.fingerprint
        else:
            function = cast("Callable[[int], int]", schedule)
            sizes = CalledSizes(self._batches, function, self._check_size)
        self._passes = Passes(
            self._batches, sizes, self._rank, self._world_size, budget
        )

    def __iter__(self) -> Iterator[list[int]]:
        """Yields the indices of one pass's batches."""
        return cast("Iterator[list[int]]", self._draw(self._output))

    def _draw(self, output: str | NDArray[np.int64]) -> Iterator[Any]:
        # Every batch then costs a call into the run, and none into Python.
        return Runs(self._runs(output))

    def _runs(self, output: str | NDArray[np.int64]) -> Iterator[Run]:
        """Yields one pass's batches as runs of one size, each to be drawn to its end."""
        if is_discarded():
            return
        self._follow()
        counter = before_drawing(self, self._passes)
        if counter is not None:
            self._passes.count_to(counter)
        self._passes.begin()
        yield from self._passes.runs(output)

    def _follow(self) -> None:
        """Goes to the epoch of the `DistributedSampler` handed over, where it was set."""
        if self._theirs is not None and self._theirs.epoch != self._their_epoch:
            self._their_epoch = self._theirs.epoch
            self._passes.go_to(
                check_epoch("epoch", self._their_epoch, self.num_samples)
            )

    def batches_into(self, out: Out) -> Iterator[Out]:
        """Yields the same batches as `iter()`, written into a caller's memory.

        Nothing is allocated: each batch overwrites the one before it.

        Args:
            out: Contiguous int64 array or CPU tensor (pinned, for copies to a GPU that
                do not block) of one dimension, at least as long as any batch.

        Yields:
            `out[:length]`, where `length` is the batch's.

        Raises:
            ValueError: If `out` is of another kind, or too short for the next size.
        """
        array = writable(out)
        view, held = out[:0], 0
        for length in self._draw(array):
            if length != held:
                view, held = out[:length], length
            yield view

    @overload
    def permutation(self, epoch: int = 0, out: None = None) -> Tensor: ...
    @overload
    def permutation(self, epoch: int, out: Out) -> Out: ...
    def permutation(
        self, epoch: int = 0, out: Tensor | NDArray[np.int64] | None = None
    ) -> Tensor | NDArray[np.int64]:
        """Returns the order of one whole pass, whatever its batches.

        Args:
            epoch: The pass, from 0.
            out: Where to write it, as for `batches_into`, of `num_samples` elements;
                None makes a new tensor.

        Raises:
            ValueError: If an argument is out of its range, or there is no memory for
                the tensor.
        """
        pass_index = check_epoch("epoch", epoch, self.num_samples)
        if out is None:
            out = _new_tensor(self.num_samples)
        array = writable(out)
        if len(array) != self.num_samples:
            raise ValueError(
                f"out must have {self.num_samples} elements (the number of samples), "
                f"got {len(array)}"
            )
        self._batches.fill(pass_index * self.num_samples, array)
        return out

    def __len__(self) -> int:
        """Batches that `iter()` yields in the current pass.

        That is the pass being drawn from (counted whole, after a load too), or, once
        its iterator is exhausted, the next one; a plan's last pass stays. Workers
        exhaust it before the loop does: take `len(loader)` before the loop there. Under
        `wrap` a batch belongs to the pass that holds its first position.
        """
        self._follow()
        passes, counter = self._passes, counter_asking()
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

    @property
    def drop_last(self) -> bool:  # type: ignore[override]  # read, never set
        """Whether the boundary is `drop`."""
        return self.boundary == "drop"

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
    def num_samples(self) -> int:
        """Number of samples of a pass."""
        return self._batches.num_samples

    @property
    def boundary(self) -> str:
        """`keep`, `drop` or `wrap`."""
        return self._batches.boundary

    @property
    def position(self) -> int:
        """Position of the next batch drawn, tails skipped included.

        Not of the batch in hand: loaders draw ahead of what is trained. `settings` and
        `weight` take that batch's number.
        """
        return self._passes.cursor.position

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
        world_size * share / batch the average is the mean over the global batch.

        Args:
            update: The batch's index in the current pass, from 0, counted from the
                pass's start after a load too.

        Raises:
            ValueError: If there is no such batch, or it lies before the point that was
                loaded, or `rank` is None.
        """
        if self._rank is None:
            raise ValueError("rank must be a number for weight(), got rank=None")
        update = whole("update", update, least=0)
        passes = self._passes
        start, size = passes.sizes.batch_at(passes.locate("update", update, ahead=1))
        length = self._batches.end(start, size) - start
        first, last = share(length, self._rank, self._world_size)
        return self._world_size * (last - first) / length

    def state_dict(self) -> dict[str, Any]:
        """Returns a new JSON-able dict: the same on every rank, for any world size.

        `samples_consumed_global` is the offset in the pass `epoch`, tails that were
        skipped included; `batches_yielded` counts that pass's global batches. A pass
        whose last batch is drawn is the next one's beginning: `epoch` is the next, of
        which no batch is yielded.
        """
        before_saving(self)
        return self._state(self._passes.place)

    def state_at(self, batches: int) -> dict[str, Any]:
        """Returns the state after the first batches of the current pass.

        For a plain `DataLoader` with workers, which draws ahead of what was trained.

        Args:
            batches: Global batches of this pass that were trained, counted from the
                pass's start after a load too.

        Raises:
            ValueError: If so many were not drawn, or the point that was loaded lies
                behind.
        """
        batches = whole("batches", batches, least=0)
        cursor = self._passes.cursor
        if batches > cursor.batches:
            raise ValueError(
                f"batches must be at most {cursor.batches} (drawn so far), "
                f"got {shown(batches)}"
            )
        position = self._passes.locate("batches", batches)
        there = Cursor(cursor.pass_index, position, batches, 0)
        return self._state(self._passes.normal(there))

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
            self._rank is not None or cursor.slices >= self._world_size
        ):
            raise ValueError(
                "state's slices_yielded must be 0 where the world size changed, "
                f"got {shown(cursor.slices)}"
            )
        passes, sizes = self._passes, self._passes.sizes
        if self._made_with is None:
            start = passes.start_of(cursor.pass_index)
            end = passes.end_of(cursor.pass_index)
            check_place(cursor, start, sizes, self.num_samples, end)
        if runs is not None:
            checked = [(at, self._check_size(size)) for at, size in runs]
            sizes = SizeRuns(self._batches, checked)
        passes.go_back(cursor, sizes)

    def _global_size(self, size: int) -> int:
        """The global size that a user means, checked."""
        return self._check_size(whole("batch_size", size) * self._processes)

    def _check_size(self, size: int) -> int:
        """A global batch size, checked against the samples and the ranks."""
        return check_batch_size(size, self.num_samples, self._world_size)

    def _state(self, cursor: Cursor) -> dict[str, Any]:
        runs = None
        sizes = self._passes.sizes
        if self._made_with is not None and isinstance(sizes, SizeRuns):
            # The size in force, and those set for positions to come.
            runs = sizes.runs_from(cursor.position)
        return write_state(
            cursor, self._batches, None, self._made_with, runs, self._schedule_id
        )


def _new_tensor(length: int) -> Tensor:
    try:
        return torch.empty(length, dtype=torch.int64)
    except RuntimeError as error:
        raise ValueError(
            f"sampler must be small enough for memory: no room for a pass of {length} "
            "samples (give permutation an `out`, or draw batches)"
        ) from error
