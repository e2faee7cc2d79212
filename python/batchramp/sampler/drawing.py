"""How a sampler's batches are drawn, into what, and for whom."""

from collections.abc import Iterator
from typing import Any, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import BatchSampler, DistributedSampler

from batchramp._rust import Batches, Run, Runs
from batchramp.sampler.outputs import Out, writable
from batchramp.sampler.passes import Passes
from batchramp.sampler.state import check_epoch
from batchramp.sampler.trainers import (
    batches_replayed,
    before_drawing,
)
from batchramp.sampler.trainers.ranks import warn_of_processes


class Drawing(BatchSampler):
    """What draws the batches of the passes: `VariableBatchSampler` says which."""

    _batches: Batches
    _passes: Passes
    _output: str
    _theirs: DistributedSampler[Any] | None
    _their_epoch: int
    _alone: bool
    """Whether nothing was said of other ranks."""

    @property
    def num_samples(self) -> int:
        """Number of samples of a pass."""
        return self._batches.num_samples

    @property
    def boundary(self) -> str:
        """`keep`, `drop` or `wrap`."""
        return self._batches.boundary

    @property
    def drop_last(self) -> bool:  # type: ignore[override]  # read, never set
        """Whether the boundary is `drop`."""
        return self.boundary == "drop"

    @property
    def position(self) -> int:
        """Position of the next batch drawn, tails skipped included.

        Not of the batch in hand: loaders draw ahead of what is trained. `settings` and
        `weight` take that batch's number.
        """
        return self._passes.cursor.position

    def __iter__(self) -> Iterator[list[int]]:
        """Yields the indices of one pass's batches."""
        return cast("Iterator[list[int]]", self._draw(self._output))

    def _draw(self, output: str | NDArray[np.int64]) -> Iterator[Any]:
        # Every batch then costs a call into the run, and none into Python.
        return Runs(self._runs(output))

    def _runs(self, output: str | NDArray[np.int64]) -> Iterator[Run]:
        """Yields one pass's batches as runs of one size, each to be drawn to its end."""
        replayed = batches_replayed()
        if replayed is None:
            return
        self._follow()
        counter = before_drawing(self, self._passes)
        if self._alone and warn_of_processes():
            self._alone = False  # once is enough
        if counter is not None:
            self._passes.count_to(counter, drawing=True)
        self._passes.begin(counted=counter is not None)
        # A pass that was trained to its end goes on with the next one.
        trained = replayed > 0 and replayed >= self._passes.left
        yield from self._passes.runs(output)
        if trained:
            self._passes.begin(counted=counter is not None)
            yield from self._passes.runs(output)

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

    def _follow(self) -> None:
        """Goes to the epoch of the `DistributedSampler` handed over, where it was set."""
        if self._theirs is not None and self._theirs.epoch != self._their_epoch:
            self._their_epoch = self._theirs.epoch
            self._passes.go_to(
                check_epoch("epoch", self._their_epoch, self.num_samples)
            )


def _new_tensor(length: int) -> Tensor:
    try:
        return torch.empty(length, dtype=torch.int64)
    except RuntimeError as error:
        raise ValueError(
            f"sampler must be small enough for memory: no room for a pass of {length} "
            "samples (give permutation an `out`, or draw batches)"
        ) from error
