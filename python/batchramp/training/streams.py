"""Random streams: every global generator, set from a trial's seed and put back.

A model, a loss or a user's own loading may draw from torch's generators (on the CPU and
on each GPU), from NumPy's legacy one (`numpy.random.rand`) and from `random`. A trial
sets them all, so that what it draws follows from its seed alone: not from the trials
before it, nor from the looks and measures in between.
"""

# ruff: noqa: NPY002 (the legacy generator is the global one)

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from batchramp._rust import derive_key


@contextmanager
def kept() -> Iterator[None]:
    """Put every global generator back as it was, whatever is drawn inside."""
    python, legacy = random.getstate(), np.random.get_state(legacy=False)
    cpu = torch.get_rng_state()
    on_gpu = _cuda_runs()
    gpus = torch.cuda.get_rng_state_all() if on_gpu else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
        torch.set_rng_state(cpu)
        if on_gpu:
            torch.cuda.set_rng_state_all(gpus)
        elif torch.cuda.is_available():
            torch.cuda.seed_all()  # how CUDA begins where nobody has seeded it


@contextmanager
def seeded(seed: int, stream: str) -> Iterator[None]:
    """Set every global generator from a seed and a stream's name; put all back after.

    Args:
        seed: A trial's seed.
        stream: What is drawn, such as `"model"`; each name is a stream of its own.
    """
    with kept():
        begin(seed, stream)
        yield


def begin(seed: int, stream: str) -> None:
    """Set every global generator, as `seeded` does; to put them back is the caller's."""
    key = derive_key(seed, stream)
    random.seed(key)
    np.random.seed([key % 2**32, key >> 32])
    # As torch.manual_seed sets it, which would take 0.2 ms for devices not there.
    torch.default_generator.manual_seed(key)
    if _cuda_runs() or torch.cuda.is_available():
        torch.cuda.manual_seed_all(key)


def _cuda_runs() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
