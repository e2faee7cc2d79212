"""What a sampler's batches are put into."""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from batchramp.values import shown

Out = TypeVar("Out", Tensor, NDArray[np.int64])
"""A caller's memory for indices."""


def check_output(output: Any) -> str:
    """Returns the name of a container that batches come in, or raises ValueError."""
    if not isinstance(output, str) or output not in ("list", "numpy"):
        raise ValueError(f"output must be list or numpy, got {shown(output)}")
    return output


def writable(out: Any) -> NDArray[np.int64]:
    """Returns a caller's memory as an array that shares it.

    Raises:
        ValueError: If it is not a one-dimensional contiguous int64 array or CPU tensor.
    """
    array = out
    if isinstance(out, Tensor):
        if out.device.type != "cpu":
            raise ValueError(f"out must be in CPU memory, got one on {out.device}")
        try:
            array = out.detach().numpy()
        except (TypeError, RuntimeError) as error:  # sparse, fake, lazily negated, ...
            raise ValueError(
                f"out must be a tensor of plain memory, got {type(out).__name__} of "
                f"layout {out.layout}: {error}"
            ) from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"out must be an int64 tensor or array, got {shown(out)}")
    if array.dtype != np.int64 or array.ndim != 1:
        raise ValueError(
            "out must be int64 and of one dimension, got "
            f"{array.dtype} of shape {array.shape}"
        )
    if not array.flags.carray:
        raise ValueError(
            "out must be contiguous, aligned and writable, got one that is not"
        )
    return array
