"""`digits`: scikit-learn's 8x8 digits (1,797 images), which need no download."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from batchramp._rust import Batches
from batchramp.workloads.interface import Data, Split, Workload
from batchramp.workloads.models import mlp

NUM_TRAIN = 1297
"""Training images of a split; the other 500 are the test set."""


@cache
def _read() -> NDArray[np.float32]:
    # Importing scikit-learn takes seconds, so its file is read where it lies.
    package = find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise ValueError(
            "the workload digits needs scikit-learn: pip install 'batchramp[torch]'"
        )
    file = Path(package.submodule_search_locations[0], "datasets/data/digits.csv.gz")
    return np.loadtxt(file, delimiter=",", dtype=np.float32)


def load(data_dir: Path | None, seed: int) -> Data:
    """Split the images at random by `seed`; `data_dir` is not needed.

    Inputs are float32 of shape (samples, 64), standardised by one mean and one deviation
    of the training part; targets are int64.
    """
    del data_dir
    table = _read()
    order = Batches(len(table), seed=seed, order="exact").take(0, len(table))
    pixels, classes = table[order, :-1], table[order, -1].astype(np.int64)
    train = pixels[:NUM_TRAIN]
    pixels = (pixels - train.mean()) / train.std()
    inputs, targets = torch.from_numpy(pixels), torch.from_numpy(classes)
    return Data(
        train=Split(inputs[:NUM_TRAIN], targets[:NUM_TRAIN]),
        test=Split(inputs[NUM_TRAIN:], targets[NUM_TRAIN:]),
    )


WORKLOAD = Workload(
    name="digits",
    load=load,
    model=lambda: mlp(features=64, hidden=64, classes=10),
    targets=("metric >= 0.96", "full_train_loss <= 0.02"),
)
