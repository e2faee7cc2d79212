"""Who calls the sampler: found by the frames of the call, and by what they hold."""

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any, NamedTuple, Protocol

from torch.utils.data import BatchSampler

_DEPTH = 32
"""Frames looked through: a loader's own calls, with room to spare."""
_OURS = __name__.rpartition(".trainers.")[0]


class Standing(Protocol):
    """What a trainer's guard may know of where a sampler stands."""

    @property
    def rank(self) -> int | None:
        """The rank whose shares are drawn; None is all of them in turn."""

    @property
    def world_size(self) -> int:
        """Number of ranks."""

    @property
    def micro_batch(self) -> int | None:
        """The most samples of a piece; None where shares are not cut."""

    @property
    def due(self) -> int:
        """The pass that the next iterator begins."""

    @property
    def current(self) -> int:
        """The pass where the sampler stands."""

    @property
    def begun(self) -> bool:
        """Whether an iterator has begun that pass."""

    @property
    def told(self) -> bool:
        """Whether anything was drawn, loaded or set by hand."""

    @property
    def said(self) -> bool:
        """Whether the pass due was last said by hand, or loaded."""

    @property
    def finished(self) -> bool:
        """Whether all of that pass's batches are drawn."""

    @property
    def loaded(self) -> int:
        """Batches of the pass due that come before the state that was loaded."""

    @property
    def skipped(self) -> int:
        """Batches of the current pass before the place where it was begun."""

    @property
    def planned(self) -> bool:
        """Whether the sizes are known ahead for good, and come to an end."""

    @property
    def known(self) -> bool:
        """Whether the sizes are known ahead: no function says them one by one."""

    @property
    def even(self) -> bool:
        """Whether all passes have as many batches at the sizes in force."""

    def length_of(self, pass_index: int) -> int:
        """Returns how many batches (or pieces) a pass that begins anew has, per rank."""

    def length_counted(self, counter: "Counter") -> int:
        """Returns how many there are, or will be, for a trainer that counts for itself."""


class Counter(NamedTuple):
    """A pass that a trainer says by its own count.

    Attributes:
        epoch: The pass.
        whose: Whose count it is, for errors: `Accelerate's loader`.
        advice: What to write where the count contradicts the sampler's place.
        late: Whether the trainer keeps its count in its checkpoints, and may say it
            after it has drawn of that very pass. It may then go back by itself.
        batches: How many of that pass the trainer has trained; None if it stands where
            the sampler does.
    """

    epoch: int
    whose: str
    advice: str
    late: bool = False
    batches: int | None = None


def callers(depth: int = _DEPTH) -> Iterator[FrameType]:
    """Yields the frames outside the sampler's own files, nearest first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and depth:
        if not str(frame.f_globals.get("__name__")).startswith(_OURS):
            yield frame
            depth -= 1
        frame = frame.f_back


def holds(owner: Any, sampler: BatchSampler) -> bool:
    """Whether a loader or wrapper draws from this very sampler, if through others."""
    inner = getattr(owner, "batch_sampler", None)
    while inner is not None and inner is not sampler:
        inner = getattr(inner, "batch_sampler", None)
    return inner is sampler
