"""`cifar10`: CIFAR-10 (Krizhevsky 2009), Hugging Face's Parquet or torchvision's files."""

from __future__ import annotations

import io
import pickle
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import torch

from batchramp.workloads.data import find, reading
from batchramp.workloads.interface import Data, Split, Workload
from batchramp.workloads.models import strided_cnn

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""Per channel, of the 50,000 training images' pixels, on the scale 0 to 1."""


def _read_parquet(files: list[Path]) -> Split:
    from PIL import Image

    images, labels = [], []
    for file in files:
        with reading(file):
            table = pl.read_parquet(file)
            for encoded in table["img"].struct.field("bytes"):
                with Image.open(io.BytesIO(encoded)) as image:
                    images.append(np.asarray(image.convert("RGB")))
            labels.append(table["label"].to_numpy())
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return Split(pixels, torch.from_numpy(np.concatenate(labels).astype(np.int64)))


class _ArraysOnly(pickle.Unpickler):
    # A pickle may run any code; these files need only NumPy's array constructors.
    _ALLOWED = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> object:
        if (module, name) in self._ALLOWED:
            return super().find_class(module, name)
        raise ValueError(f"a CIFAR-10 batch must hold arrays only, got {module}.{name}")


def _read_batches(files: list[Path]) -> Split:
    images, labels = [], []
    for file in files:
        with reading(file), file.open("rb") as stream:
            batch = _ArraysOnly(stream, encoding="latin1").load()
            images.append(np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32))
            labels.append(np.asarray(batch["labels"], np.int64))
    return Split(
        torch.from_numpy(np.concatenate(images)),
        torch.from_numpy(np.concatenate(labels)),
    )


@cache
def _read(found: Path) -> Data:
    folder = found.parent
    if found.name == "data_batch_1":
        train = [folder / f"data_batch_{number}" for number in range(1, 6)]
        return Data(
            train=_read_batches(train), test=_read_batches([folder / "test_batch"])
        )
    # Names end in -of-00003: sorted, they give the original order of the samples.
    train, test = (
        sorted(folder.glob(f"{part}-*.parquet")) for part in ("train", "test")
    )
    if not test:
        raise ValueError(f"data directory {folder} must hold test-*.parquet")
    return Data(train=_read_parquet(train), test=_read_parquet(test))


def load(data_dir: Path | None, seed: int) -> Data:
    """Return the published split, whatever the seed: uint8 (samples, 3, 32, 32)."""
    del seed
    layouts = {
        "cifar10/plain_text/train-00000-of-00003.parquet": "Hugging Face's Parquet",
        "cifar10/plain_text/train-00000-of-00001.parquet": "the same in one file",
        "cifar10/cifar-10-batches-py/data_batch_1": "torchvision's",
        "cifar-10-batches-py/data_batch_1": "torchvision's",
    }
    return _read(find("cifar10", data_dir, layouts))


WORKLOAD = Workload(
    name="cifar10",
    load=load,
    model=lambda: strided_cnn(
        MEAN, STD, size=32, widths=(32, 64), hidden=128, classes=10
    ),
    targets=("metric >= 0.6", "metric >= 0.64"),
)
