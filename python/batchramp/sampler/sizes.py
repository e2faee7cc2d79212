"""Where a sampler's batch sizes come from: runs known ahead, or a function."""

from bisect import bisect_right
from collections.abc import Callable, Sequence

from batchramp._rust import Batches, advance

MAX_POSITION = 2**63
"""The furthest position of the stream."""


def position_after(
    batches: Batches, size_at: Callable[[int], int], start: int, size: int
) -> int:
    """Returns the position after a batch.

    Under `drop` that includes the tail, unless the size decided there still fits into
    it: a batch that is smaller than the one before it may.
    """
    position = batches.end(start, size)
    if batches.boundary != "drop" or position % batches.num_samples == 0:
        return position
    return batches.start(position, size_at(position))


class SizeRuns:
    """Sizes that hold from given positions on; a value, never changed.

    Args:
        batches: The stream they cut.
        runs: (position, size), sorted; the first size also holds before its position.
    """

    def __init__(self, batches: Batches, runs: Sequence[tuple[int, int]]) -> None:
        self._batches = batches
        self._starts = [0, *(start for start, _ in runs[1:])]
        self._sizes = [size for _, size in runs]

    @property
    def constant(self) -> int | None:
        """The size if there is but one."""
        sizes = set(self._sizes)
        return sizes.pop() if len(sizes) == 1 else None

    def size_at(self, position: int) -> int:
        """Returns the size decided at a position."""
        return self._sizes[bisect_right(self._starts, position) - 1]

    def batch_at(self, position: int) -> tuple[int, int]:
        """Returns start and size of the batch decided at a position."""
        size = self.size_at(position)
        start = self._batches.start(position, size)
        # Where `drop` moves it to the next pass, the size is looked up anew: any fits.
        return start, size if start == position else self.size_at(start)

    def draw(self, position: int) -> tuple[int, int, int]:
        """Returns the same, and the position from which on another size may hold."""
        start, size = self.batch_at(position)
        return start, size, self.holds_until(start)

    def holds_until(self, start: int) -> int:
        """Returns the position from which on another size may hold than at this one."""
        after = bisect_right(self._starts, start)
        return self._starts[after] if after < len(self._starts) else MAX_POSITION

    def lay(
        self, position: int, until: int, limit: int | None = None
    ) -> tuple[int, int]:
        """Lays batches up to the first start at or past `until`, at most `limit`.

        Returns:
            The position there, and how many batches were laid.
        """
        batches, count = self._batches, 0
        while position < until and count != limit:
            after = bisect_right(self._starts, position)
            stop = until
            if after < len(self._starts):
                stop = min(until, self._starts[after])
            size = self._sizes[after - 1]
            begun, laid = self._advance(position, count, size, stop, limit)
            if laid > count and batches.boundary == "drop":
                # `begun` is where the next batch of this size would begin: a smaller
                # one may still fit into the tail.
                last, _ = self._advance(position, count, size, None, laid - 1)
                begun = position_after(batches, self.size_at, last, size)
            position, count = begun, laid
        return position, count

    def _advance(
        self, position: int, count: int, size: int, stop: int | None, limit: int | None
    ) -> tuple[int, int]:
        batches = self._batches
        return advance(
            batches.num_samples, batches.boundary, position, count, size, stop, limit
        )

    def runs_from(self, position: int) -> list[list[int]]:
        """Returns the runs that matter from a position on, JSON-able.

        The one in force there is written as if it had held from 0 on.
        """
        after = bisect_right(self._starts, position)
        later = [[start, size] for start, size in self._runs()[after:]]
        return [[0, self._sizes[after - 1]], *later]

    def changed(self, position: int, size: int, *, for_good: bool) -> "SizeRuns":
        """Returns these runs with another size from a position on.

        It holds until the next run, or `for_good`.
        """
        runs = [
            run
            for run in self._runs()
            if run[0] < position or (run[0] > position and not for_good)
        ]
        return SizeRuns(self._batches, sorted([*runs, (position, size)]))

    def moved(self, drawn: int, position: int) -> "SizeRuns":
        """Returns these runs for a pass that begins at another position.

        The size in force at `drawn`, up to which batches were drawn, holds on when the
        way leads back; what was passed is forgotten.
        """
        latest = max(drawn, position)
        after = bisect_right(self._starts, latest)
        runs = [(position, self.size_at(latest)), *self._runs()[after:]]
        return SizeRuns(self._batches, runs)

    def _runs(self) -> list[tuple[int, int]]:
        return list(zip(self._starts, self._sizes, strict=True))


class CalledSizes:
    """Sizes from a pure function of the position.

    Args:
        batches: The stream they cut.
        function: Returns the size of the batch decided at a position.
        check: Returns the size if it is one, and raises ValueError otherwise.
    """

    constant = None

    def __init__(
        self,
        batches: Batches,
        function: Callable[[int], int],
        check: Callable[[int], int],
    ) -> None:
        self._batches = batches
        self._function = function
        self._check = check
        self._said: dict[int, int] = {}

    def size_at(self, position: int) -> int:
        """Returns the size decided at a position, as it was said the first time."""
        if position not in self._said:
            self._said[position] = self._ask(position)
        return self._said[position]

    def batch_at(self, position: int) -> tuple[int, int]:
        """Returns start and size of the batch decided at a position."""
        size = self.size_at(position)
        start = self._batches.start(position, size)
        return start, size if start == position else self.size_at(start)

    def draw(self, position: int) -> tuple[int, int, int]:
        """Returns the same, asking anew, and the position after that start.

        Raises:
            ValueError: If the function now says another size than in a dry run.
        """
        size = self._ask_anew(position)
        start = self._batches.start(position, size)
        size = size if start == position else self._ask_anew(start)
        return start, size, self.holds_until(start)

    def holds_until(self, start: int) -> int:
        """Returns the next position: at any another size may hold."""
        return start + 1

    def lay(
        self, position: int, until: int, limit: int | None = None
    ) -> tuple[int, int]:
        """Lays batches, one by one, as `SizeRuns.lay` does."""
        count = 0
        while position < until and count != limit:
            start, size = self.batch_at(position)
            if start >= until:
                return start, count
            position = position_after(self._batches, self.size_at, start, size)
            count += 1
        return position, count

    def forget(self, position: int) -> None:
        """Forgets what was said of other positions than those from here on."""
        self._said = {
            start: size
            for start, size in self._said.copy().items()
            if start >= position
        }

    def _ask_anew(self, position: int) -> int:
        now = self._ask(position)
        said = self._said.setdefault(position, now)
        if now != said:
            raise ValueError(
                "schedule must be a pure function of the position, got "
                f"{said} and then {now} at position {position}"
            )
        return now

    def _ask(self, position: int) -> int:
        try:
            return self._check(self._function(position))
        except (ValueError, StopIteration, RecursionError) as error:
            # A StopIteration would end the pass without a word.
            told = str(error) or type(error).__name__
            raise ValueError(f"schedule({position}): {told}") from error
