"""What a sampler is told to draw from, and how: the arguments of its constructor."""

from collections.abc import Sequence, Sized
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import (
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
)

from batchramp.sampler.indices import read_indices
from batchramp.sampler.trainers.lightning import refuse_rebuild
from batchramp.values import shown, whole

if TYPE_CHECKING:
    from batchramp.schedules.interface import Settings

MAX_SAMPLES = 2**45
"""The most samples of any order."""

MAX_THREADS = 1024
"""The most threads: more than a machine has, and fewer than a system refuses."""


class _Horizon(Protocol):
    @property
    def num_samples(self) -> int: ...
    @property
    def budget(self) -> int: ...
    @property
    def boundary(self) -> str: ...


class StaticPlan(Protocol):
    """What the sampler reads of a `Plan`: its exact batches."""

    @property
    def horizon(self) -> _Horizon:
        """Number of samples, budget and boundary it was laid over."""
        ...

    @property
    def runs(self) -> Sequence[tuple[int, int]]:
        """(position, batch size) from which on that size holds, by position."""
        ...

    @property
    def fingerprint(self) -> str:
        """Short hash, which a sampler's state keeps."""
        ...

    def settings_at(self, position: int) -> "Settings":
        """Settings of the batch that holds a position."""
        ...


class Source(NamedTuple):
    """What the argument `sampler` stands for."""

    num_samples: int
    order: str
    seed: int
    rank: int | None
    world_size: int
    processes: int
    """What a batch size given per process is multiplied by."""
    indices: NDArray[np.int64] | None = None
    """The samples to draw; None is `0` to `num_samples - 1`."""
    theirs: DistributedSampler[Any] | None = None
    """The `DistributedSampler` that was handed over, whose epoch counts."""


def adopt(
    sampler: int | Sized | Sampler[int],
    order: str,
    seed: int,
    rank: int | None,
    world_size: int,
) -> Source:
    """Reads the argument `sampler`; exact types only, as a subclass draws otherwise."""
    indices: NDArray[np.int64] | None = None
    seed = whole("seed", seed, least=0)
    if not isinstance(order, str):
        raise ValueError(
            f"order must be auto, exact, bijective or sequential, got {shown(order)}"
        )
    if type(sampler) is DistributedSampler:
        refuse_rebuild(sampler)
        if (rank, world_size) != (0, 1):
            raise ValueError(
                "rank and world_size must be left out with a DistributedSampler, which "
                f"brings its own and multiplies batch_size, got rank={rank} and "
                f"world_size={world_size} (in Lightning, set "
                "use_distributed_sampler=False to keep them)"
            )
        if seed not in (0, sampler.seed):
            raise ValueError(
                f"seed must agree with the DistributedSampler's {sampler.seed}, got "
                f"{seed} (in Lightning, leave it to seed_everything, or set "
                "use_distributed_sampler=False and give rank and world_size)"
            )
        if not sampler.shuffle:
            order = _sequential(order)
        num_samples = _check_length(_length(cast(Sized, sampler.dataset)))
        world_size = sampler.num_replicas
        return Source(
            num_samples,
            order,
            sampler.seed,
            sampler.rank,
            world_size,
            processes=world_size,
            theirs=sampler,
        )
    if type(sampler) is RandomSampler:
        num_samples = len(sampler.data_source)
        if sampler.replacement or sampler.num_samples != num_samples:
            raise ValueError(
                "sampler must draw each of its samples once (a RandomSampler without "
                "replacement and num_samples), got "
                f"replacement={sampler.replacement}, num_samples={sampler.num_samples}"
            )
    elif type(sampler) is SequentialSampler:
        num_samples = len(sampler.data_source)
        order = _sequential(order)
    elif type(sampler) is SubsetRandomSampler:
        indices, num_samples = _of_subset(sampler.indices)
    elif isinstance(sampler, Sampler):
        raise ValueError(
            "sampler must be a number of samples, a sized data set, indices, a "
            "RandomSampler, a SubsetRandomSampler, a SequentialSampler or a "
            f"DistributedSampler, got {type(sampler).__name__}"
        )
    elif isinstance(sampler, str | bytes | bytearray):
        raise ValueError(
            "sampler must be a number of samples, a sized data set or indices, got "
            f"{shown(sampler)}"
        )
    elif (indices := read_indices(sampler)) is not None:
        num_samples = len(indices)
    elif isinstance(sampler, Sized) and getattr(sampler, "shape", None) != ():
        num_samples = _length(sampler)
    else:
        num_samples = whole("sampler (a number of samples)", sampler)
    num_samples = _check_length(num_samples)
    return Source(num_samples, order, seed, rank, world_size, 1, indices)


def _of_subset(listed: Sequence[int]) -> tuple[NDArray[np.int64] | None, int]:
    """The indices of a `SubsetRandomSampler`, if not the places, and their number."""
    indices = read_indices(listed)
    if indices is None and not isinstance(listed, range):
        raise ValueError(
            "sampler's indices must be whole numbers (of a SubsetRandomSampler), got "
            f"{shown(listed)}"
        )
    return indices, len(listed)


def _length(samples: Sized) -> int:
    try:
        return len(samples)
    except OverflowError as error:  # Python's own limit of a length
        raise ValueError(
            f"sampler must have 1 to 2**45 samples, got {shown(samples)}"
        ) from error


def _check_length(num_samples: int) -> int:
    if not 1 <= num_samples <= MAX_SAMPLES:
        told = shown(num_samples)
        raise ValueError(f"sampler must have 1 to 2**45 samples, got {told}")
    return num_samples


def _sequential(order: str) -> str:
    if order not in ("auto", "sequential"):
        raise ValueError(
            "order must be auto or sequential for a sampler that does not shuffle, "
            f"got {shown(order)}"
        )
    return "sequential"


def check_ranks(rank: int | None, world_size: int) -> tuple[int | None, int]:
    """Returns rank and world size as ints, or raises ValueError."""
    world_size = whole("world_size", world_size, least=1, most=MAX_SAMPLES)
    if rank is None:
        return None, world_size
    rank = whole("rank", rank, least=0)
    if rank >= world_size:
        raise ValueError(
            f"rank must be between 0 and {world_size - 1} (world_size - 1), "
            f"got {shown(rank)}"
        )
    return rank, world_size


def check_batch_size(size: int, num_samples: int, world_size: int) -> int:
    """Returns a global batch size as an int, or raises ValueError."""
    size = whole("batch_size", size)
    if not 1 <= size <= num_samples:
        raise ValueError(
            f"batch_size must be between 1 and {num_samples} "
            f"(the number of samples), got {shown(size)}"
        )
    if size < world_size:
        raise ValueError(
            f"batch_size must be at least {world_size} (world_size), so that "
            f"every rank has a sample, got {size}"
        )
    return size


def check_sizes(batch_size: object, schedule: object) -> None:
    """Raises ValueError unless one of the two says the sizes."""
    if (batch_size is None) == (schedule is None):
        raise ValueError(
            "either batch_size or schedule must be given, got "
            f"batch_size={shown(batch_size)} and schedule={shown(schedule)} (a trainer "
            "that rebuilds its sampler loses the schedule: in Lightning, set "
            "use_distributed_sampler=False and give rank and world_size)"
        )


def choose_boundary(
    boundary: str | None, drop_last: bool, plan: StaticPlan | None
) -> str:
    """Returns the one boundary that all three ask for, or raises ValueError."""
    if not isinstance(drop_last, bool):
        raise ValueError(f"drop_last must be True or False, got {shown(drop_last)}")
    if boundary is not None and not isinstance(boundary, str):
        raise ValueError(f"boundary must be keep, drop or wrap, got {shown(boundary)}")
    wishes = [] if boundary is None else [boundary]
    if drop_last:
        wishes.append("drop")
    if plan is not None:
        if not hasattr(plan, "runs") or not hasattr(plan, "horizon"):
            raise ValueError(
                "schedule must be a Plan (see batchramp.plan), pairs as [(0, 16), "
                f"(1000, 64)], or a function of the position, got {shown(plan)}"
            )
        wishes.append(plan.horizon.boundary)
    if len(set(wishes)) > 1:
        theirs = "" if plan is None else f", a plan with boundary={wishes[-1]!r}"
        raise ValueError(
            "boundary must agree with drop_last and with the plan's, "
            f"got boundary={shown(boundary)}, drop_last={drop_last}{theirs}"
        )
    return wishes[0] if wishes else "keep"


def check_plan(plan: StaticPlan, num_samples: int) -> None:
    """Raises ValueError unless the plan was laid over so many samples."""
    if plan.horizon.num_samples != num_samples:
        raise ValueError(
            f"schedule must be planned over {num_samples} samples (as many as sampler "
            f"has), got a plan over {plan.horizon.num_samples}"
        )
