"""The compiled half of batchramp.

Whole numbers that the functions here cannot take, for their size or by their rule,
raise `ValueError`, and so does a size that the system has no memory for (an array that
NumPy cannot make is a `MemoryError`); other types raise `TypeError`. Everything here may
be called from several threads.
"""

from collections.abc import Iterator, Sequence
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BUILD_PROFILE",
    "Batches",
    "GradientSum",
    "Moments",
    "Run",
    "Runs",
    "__version__",
    "advance",
    "derive_key",
    "noise_from_micro_batches",
    "noise_from_two_sizes",
    "piece",
    "pieces",
    "share",
    "squared_norm",
]

__version__: str
BUILD_PROFILE: str
"""`release` or `debug`: benchmarks refuse anything but a release."""

@final
class Batches:
    """The endless stream of passes over the samples, cut into batches.

    A batch is a function of the seed, its first position and its size. A position is
    `pass * num_samples + offset`, at most 2**63.
    """

    def __new__(
        cls,
        num_samples: int,
        *,
        seed: int | None = None,
        order: str = "auto",
        boundary: str = "keep",
        threads: int | None = None,
        indices: NDArray[np.int64] | None = None,
    ) -> Batches:
        """Makes the stream; no order is computed before a batch asks for it.

        Args:
            num_samples: Samples of one pass, 1 to 2**45; to 2**32 if `exact`.
            seed: 0 to 2**64 - 1; `None` is 0.
            order: `exact` (uniform, 4 bytes a sample), `bijective` (a keyed bijection,
                no memory), `sequential`, or `auto`: exact to 2**24 samples, bijective
                above.
            boundary: What happens to a batch at a pass's end: `keep` cuts it short,
                `drop` begins it with the next pass, `wrap` runs on into that.
            threads: Threads for whole passes, at most 1,024, which change no order;
                `None` is 1.
            indices: What to yield in the place of 0, 1, 2, ...: `num_samples` of them,
                contiguous, none negative; they may repeat. They are copied; `None` is
                those numbers themselves.
        """

    @property
    def num_samples(self) -> int:
        """Samples of one pass."""

    @property
    def indices(self) -> NDArray[np.int64] | None:
        """A copy of the indices that were given."""

    @property
    def indices_digest(self) -> str | None:
        """XXH3's 128-bit hash of them as little-endian bytes: 32 hexadecimal digits.

        The same on every machine and for ever.
        """

    @property
    def seed(self) -> int:
        """The seed of the orders."""

    @property
    def order(self) -> str:
        """`exact`, `bijective` or `sequential`: what `auto` came to."""

    @property
    def order_version(self) -> str:
        """The order with its version; one of these gives the same samples for ever."""

    @property
    def boundary(self) -> str:
        """`keep`, `drop` or `wrap`."""

    @property
    def threads(self) -> int:
        """Threads for whole passes."""

    def start(self, position: int, batch_size: int) -> int:
        """Where a batch of this size decided at `position` begins.

        There, or under `drop` with the next pass if it does not fit in this one.
        """

    def end(self, start: int, batch_size: int) -> int:
        """The position after the batch that begins at `start`."""

    def take(
        self,
        start: int,
        batch_size: int,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> NDArray[np.int64]:
        """The indices of the batch that begins at `start`, or a rank's share of it.

        Args:
            start: Its first position, as `start` returns it.
            batch_size: Its size over all ranks, 1 to `num_samples`.
            rank: The rank whose contiguous share is asked for; `None` is 0.
            world_size: The number of ranks, none of which is left without a sample;
                `None` is 1.
        """

    def fill(self, begin: int, samples: NDArray[np.int64]) -> None:
        """Writes the indices at the positions from `begin` on into an array.

        They may run on into later passes. The array must be contiguous and writable.
        """

    def run(
        self,
        start: int,
        batch_size: int,
        until: int,
        rank: int | None,
        world_size: int,
        shares: int,
        into: str | NDArray[np.int64],
        *,
        micro_batch: int | None = None,
    ) -> Run:
        """Makes an iterator over batches of one size.

        Args:
            start: Where the first begins, as `start` returns it.
            batch_size: Their size over all ranks.
            until: The position before which they begin.
            rank: The rank whose shares are yielded; `None` is all of them in turn.
            world_size: The number of ranks.
            shares: Pieces of the first batch that were yielded before, each share being
                one without `micro_batch`.
            into: `list` or `numpy` to yield such, or an array that every piece is
                written to: then its length is yielded.
            micro_batch: The most samples of a piece: every share is yielded in as many
                as `pieces` says, one after another as `piece` says. With `rank=None`
                the first pieces of all ranks come before the second. `None` is whole
                shares.
        """

    def __getnewargs_ex__(self) -> tuple[tuple[int], dict[str, object]]:
        """What pickle makes an equal stream from."""

@final
class Run:
    """Batches of one size, one after another.

    A call while another thread draws a batch raises `ValueError`.
    """

    def __iter__(self) -> Run:
        """Returns itself."""

    def __next__(self) -> list[int] | NDArray[np.int64] | int:
        """The next piece, or its length where an array is written to."""

    def stop_at(self, position: int) -> None:
        """Ends the run before the batches that begin at or past a position."""

    @property
    def batch_size(self) -> int:
        """The size of its batches."""

    @property
    def place(self) -> tuple[int, int, int]:
        """Where it stands.

        Where the batch begins that is being dealt out, or was last; the number of
        batches whose pieces were all yielded; and of the one that begins there, if not
        all were, the number of its pieces that were.
        """

@final
class Runs:
    """The batches of one run after another.

    A call while another thread draws a batch raises `ValueError` and changes nothing.
    """

    def __new__(cls, runs: Iterator[Run]) -> Runs:
        """Takes the runs, each of which is asked for when the one before has ended."""

    def __iter__(self) -> Runs:
        """Returns itself."""

    def __next__(self) -> list[int] | NDArray[np.int64] | int:
        """What the run yields."""

def advance(
    num_samples: int,
    boundary: str,
    position: int,
    update: int,
    batch_size: int,
    until_position: int | None = None,
    until_update: int | None = None,
) -> tuple[int, int]:
    """Lays batches of one size without visiting them.

    They are laid from `position`, where the counter of updates stands at `update`,
    until the first batch start at or past `until_position`, or until the counter
    reaches `until_update`, whichever comes first. Under `drop` a batch that does not
    fit moves the position to the next pass's start and counts no update, so that the
    position returned never lies in a tail too short for this size.

    Returns:
        Position and counter there.
    """

def share(length: int, rank: int, world_size: int) -> tuple[int, int]:
    """The part of a batch that belongs to a rank.

    Returns:
        Its first place in the batch and the place after its last. The parts are
        contiguous and equal, or differ by one sample.
    """

def pieces(length: int, world_size: int, micro_batch: int) -> int:
    """The number of pieces in which each rank has its share of a batch.

    It is the same on all ranks: ceil(ceil(length / world_size) / micro_batch). At
    `micro_batch=1` the batch must divide by `world_size`, or a share would have fewer
    samples than pieces.
    """

def piece(
    length: int, rank: int, world_size: int, micro_batch: int, index: int
) -> tuple[int, int]:
    """One piece of a rank's share of a batch, none longer than `micro_batch`.

    Returns:
        Its first place in the batch and the place after its last. A share's pieces are
        contiguous, and all pieces of all ranks equal, or they differ by one sample.
    """

def derive_key(seed: int, purpose: str) -> int:
    """A 64-bit key for one purpose of a seed, such as `split` or `model`.

    With `mix` the finaliser of SplitMix64, `G` = 0x9e3779b97f4a7c15 and arithmetic
    modulo 2**64, the key starts as `mix(seed + G)`; each eight bytes `w` of the purpose
    (UTF-8, little-endian, the last padded with zeros) and finally its length in bytes
    make it `mix((key ^ w) + G)`. For one purpose, two seeds never share a key.

    Args:
        seed: 0 to 2**64 - 1.
        purpose: What the key is for.
    """

def noise_from_micro_batches(
    count: int,
    batch_size: int,
    sum_squared_norms: float,
    squared_norm_of_mean: float,
    num_samples: int | None = None,
) -> tuple[float, float]:
    """Gradient noise from the gradients of disjoint micro-batches.

    Args:
        count: Number of gradients, at least 2.
        batch_size: Samples behind each, of which it is the mean.
        sum_squared_norms: Sum of their squared norms.
        squared_norm_of_mean: Squared norm of their mean.
        num_samples: Samples they were drawn from without replacement; `None` is an
            endless stream.

    Returns:
        The trace of the per-sample gradients' covariance (divisor N - 1), not below
        zero, and the unbiased squared norm of the gradient of all samples, which noise
        can push below zero.
    """

def noise_from_two_sizes(
    small_batch_size: int,
    small_squared_norm: float,
    large_batch_size: int,
    large_squared_norm: float,
    num_samples: int | None = None,
) -> tuple[float, float]:
    """Gradient noise from the squared norms of gradients at two batch sizes.

    Args:
        small_batch_size: Samples behind the first gradient, of which it is the mean.
        small_squared_norm: Its squared norm, or an average of such.
        large_batch_size: Samples behind the second, more than behind the first.
        large_squared_norm: Its squared norm, or an average of such.
        num_samples: Samples they were drawn from without replacement; `None` is an
            endless stream.

    Returns:
        Trace and squared norm as `noise_from_micro_batches` returns them, but that
        noise can push the trace below zero too.
    """

_Gradients: TypeAlias = (
    NDArray[np.float32] | NDArray[np.float64] | NDArray[np.float16] | NDArray[np.uint16]
)
"""Numbers of gradients; uint16 holds the bits of bfloat16."""

@final
class Moments:
    """Per-coordinate mean and sum of squared deviations of a stream of gradients.

    Arrays of gradients are C-contiguous and read in place. `threads` is the number of
    threads that may work, one where it is `None`; it changes no result.
    """

    def __new__(cls, length: int, *, dtype: str = "float32") -> Moments:
        """Nothing seen yet.

        Args:
            length: Coordinates of a gradient.
            dtype: Precision of the state, `float32` or `float64`.
        """

    @staticmethod
    def from_stacked(
        gradients: _Gradients, *, dtype: str = "float32", threads: int | None = None
    ) -> Moments:
        """The moments of the rows of a matrix; a `float32` state rounds float64."""

    @staticmethod
    def from_state(
        count: int,
        mean: NDArray[np.float32] | NDArray[np.float64],
        squares: NDArray[np.float32] | NDArray[np.float64],
    ) -> Moments:
        """What `count`, `mean` and `squares` gave, both arrays in one precision."""

    def update(
        self, parts: Sequence[_Gradients], *, threads: int | None = None
    ) -> None:
        """Takes one gradient, given in consecutive parts of any shape and precision."""

    def merge(self, other: Moments, *, threads: int | None = None) -> None:
        """Takes in what another one of the same length and precision has seen."""

    def copy(self) -> Moments:
        """The same, in memory of its own."""

    @property
    def length(self) -> int:
        """Coordinates of a gradient."""

    @property
    def count(self) -> int:
        """How many gradients were taken."""

    def mean(self) -> NDArray[np.float32] | NDArray[np.float64]:
        """The mean of each coordinate."""

    def squares(self) -> NDArray[np.float32] | NDArray[np.float64]:
        """The sum of squared deviations of each coordinate from its mean."""

    def variance(
        self, scale: float, *, threads: int | None = None
    ) -> NDArray[np.float32] | NDArray[np.float64]:
        """`scale` times the variance of each coordinate, divisor `count` - 1.

        NaN below two gradients.
        """

    def trace(self, scale: float, *, threads: int | None = None) -> float:
        """The sum of `variance(scale)`, added in double precision."""

def squared_norm(parts: Sequence[_Gradients], *, threads: int | None = None) -> float:
    """The squared norm of a gradient given in parts, taken in double precision."""

@final
class GradientSum:
    """The sum of some gradients, and what the noise scale needs of them.

    Squared norms are taken and added in double precision, in the same read of each
    gradient that adds it. Arguments are those of `Moments`.
    """

    def __new__(cls, length: int, *, dtype: str = "float32") -> GradientSum:
        """Nothing added yet."""

    def add(self, parts: Sequence[_Gradients], *, threads: int | None = None) -> float:
        """Adds a gradient and returns its squared norm."""

    def reset(self) -> None:
        """Forgets the gradients and keeps the memory."""

    @property
    def count(self) -> int:
        """How many gradients were added."""

    @property
    def sum_squared_norms(self) -> float:
        """The sum of the gradients' squared norms."""

    @property
    def squared_norm_of_mean(self) -> float:
        """The squared norm of the gradients' mean: NaN of none."""
