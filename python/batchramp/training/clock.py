"""The train clock: the one object that knows what counts."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

import torch


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Clock:
    """Sums the seconds between its starts and stops, device synchronised, monotonic.

    A trial has one for training (data selection, transfer, forward, backward, update,
    and what its schedule needs in order to decide), one for evaluation and one for
    compilation and warm-up; a clock runs inside its `with` block.

    Attributes:
        seconds: What it has counted so far.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds = 0.0
        self._device = device
        self._started = 0.0

    def __enter__(self) -> Self:
        synchronize(self._device)
        self._started = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        synchronize(self._device)
        self.seconds += time.perf_counter() - self._started
