"""The pieces in which a global batch is handed out, and their weights."""

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from batchramp._rust import piece, pieces
from batchramp.sampler.laid import Stretch
from batchramp.values import shown


class Piece(NamedTuple):
    """A piece of a global batch: what one forward and backward pass takes."""

    update: int
    """The batch's index in the pass."""
    weight: float
    """What to scale the piece's mean loss by: its share of the global batch times the
    world size. Summed over the pieces and averaged over the ranks, the gradients are
    then that of the mean over the global batch."""
    last: bool
    """Whether it is the batch's last, after which the optimizer steps."""


class Cut:
    """A pass's batches, each cut into pieces.

    Every rank has the same number of them, as many as its longest share needs, and a
    share is cut into pieces of equal length or differing by one.

    Args:
        stretches: The pass's batches.
        world_size: Number of ranks.
        micro_batch: The most samples of a piece, on one rank.

    Attributes:
        count: Pieces of the pass, on each rank.
    """

    def __init__(
        self, stretches: Iterable[Stretch], world_size: int, micro_batch: int
    ) -> None:
        self._world_size = world_size
        self._micro_batch = micro_batch
        self._stretches: list[tuple[Stretch, int]] = []
        self._first_updates: list[int] = []
        self._first_pieces: list[int] = []
        update = count = 0
        for stretch in stretches:
            each = pieces(stretch.length, world_size, micro_batch)
            self._stretches.append((stretch, each))
            self._first_updates.append(update)
            self._first_pieces.append(count)
            update += stretch.batches
            count += stretch.batches * each
        self._updates = update
        self.count = count

    def before(self, update: int) -> int:
        """Returns how many pieces come before a batch, the one after the last included."""
        if update >= self._updates:
            return self.count
        index = bisect_right(self._first_updates, update) - 1
        each = self._stretches[index][1]
        return self._first_pieces[index] + (update - self._first_updates[index]) * each

    def update_of(self, index: int) -> int:
        """Returns the batch that a piece is of; the number of batches after the last."""
        return self._updates if index >= self.count else self._find(index)[0]

    def piece(self, index: int, rank: int) -> Piece:
        """Returns a rank's piece.

        Raises:
            ValueError: If the pass has not as many.
        """
        if index >= self.count:
            raise ValueError(
                f"index must be at most {self.count - 1} in a pass of {self.count} "
                f"pieces, got {shown(index)}"
            )
        update, nth, length, each = self._find(index)
        first, end = piece(length, rank, self._world_size, self._micro_batch, nth)
        weight = self._world_size * (end - first) / length
        return Piece(update, weight, nth + 1 == each)

    def _find(self, index: int) -> tuple[int, int, int, int]:
        """The batch of a piece, which piece of it, the batch's length, its pieces."""
        at = bisect_right(self._first_pieces, index) - 1
        stretch, each = self._stretches[at]
        batch, nth = divmod(index - self._first_pieces[at], each)
        return self._first_updates[at] + batch, nth, stretch.length, each
