"""Processes that train together, of which a sampler was told nothing."""

import warnings

from torch import distributed


def warn_of_processes() -> bool:
    """Warns if this process trains with others; returns whether it did."""
    if not distributed.is_available() or not distributed.is_initialized():
        return False
    processes = distributed.get_world_size()
    if processes == 1:
        return False
    warnings.warn(
        f"rank and world_size are left out where {processes} processes train together, so "
        f"each draws whole batches and every sample is trained {processes} times: write "
        "rank=torch.distributed.get_rank(), "
        "world_size=torch.distributed.get_world_size(), or world_size=1 if the processes "
        "have data of their own",
        stacklevel=2,
    )
    return True
