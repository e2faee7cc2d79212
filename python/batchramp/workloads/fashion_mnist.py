"""`fashion_mnist`: Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747), IDX files."""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from batchramp.workloads.data import find, reading
from batchramp.workloads.interface import Data, Split, Workload
from batchramp.workloads.models import strided_cnn

MEAN, STD = (0.2860,), (0.3530,)
"""Of the 60,000 training images' pixels, on the scale 0 to 1."""


def read_idx(path: Path) -> Tensor:
    """Read one gzipped IDX file of unsigned bytes: shape as its header says, uint8.

    The header is big-endian: two zero bytes, the type (8: unsigned byte), the number of
    dimensions, and each dimension in 4 bytes.
    """
    with reading(path):
        content = gzip.decompress(path.read_bytes())
        if len(content) < 4 or content[:3] != b"\x00\x00\x08":
            raise ValueError("an IDX file of bytes must begin with 00 00 08")
        header = 4 + 4 * content[3]
        shape = np.frombuffer(content, ">u4", count=content[3], offset=4)
        values = np.frombuffer(content, np.uint8, offset=header)
        if values.size != shape.prod(dtype=np.int64):
            raise ValueError(f"{values.size} values where its header says {shape}")
        return torch.from_numpy(values.reshape(shape).copy())


@cache
def _read(folder: Path) -> Data:
    def split(prefix: str) -> Split:
        labels_file = folder / f"{prefix}-labels-idx1-ubyte.gz"
        images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(labels_file)
        with reading(labels_file):
            return Split(images.unsqueeze(1), labels.long())

    return Data(train=split("train"), test=split("t10k"))


def load(data_dir: Path | None, seed: int) -> Data:
    """Return the published split, whatever the seed: uint8 (samples, 1, 28, 28)."""
    del seed
    layouts = {
        f"{folder}/train-images-idx3-ubyte.gz": layout
        for folder, layout in {
            "fashion-mnist": "the four gzipped IDX files",
            "FashionMNIST/raw": "torchvision's",
        }.items()
    }
    return _read(find("fashion_mnist", data_dir, layouts).parent)


WORKLOAD = Workload(
    name="fashion_mnist",
    load=load,
    model=lambda: strided_cnn(
        MEAN, STD, size=28, widths=(16, 32), hidden=64, classes=10
    ),
    targets=("metric >= 0.89", "metric >= 0.9"),
)
