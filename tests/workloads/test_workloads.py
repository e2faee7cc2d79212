"""Workloads: their data as published, their layouts, and what is said of bad files."""

import gzip
import pickle
import struct

import numpy as np
import pytest
import torch

from batchramp.user_code.loading import UserCode
from batchramp.workloads import BUILT_IN, Data, Split, Workload, find_workload
from batchramp.workloads.fashion_mnist import read_idx


def test_digits_need_no_data_and_split_by_the_seed():
    digits = find_workload("digits")
    first, again, other = (digits.load(None, seed) for seed in (1, 1, 2))
    assert first.train.inputs.shape == (1297, 64)
    assert first.test.inputs.shape == (500, 64)
    assert first.digest() == again.digest()
    assert first.digest() != other.digest()
    assert float(first.train.inputs.mean()) == pytest.approx(0, abs=1e-5)
    assert float(first.train.inputs.std()) == pytest.approx(1, abs=1e-3)
    counts = [
        torch.bincount(torch.cat([data.train.targets, data.test.targets])).tolist()
        for data in (first, other)
    ]
    # The data set's own class counts: nothing is lost or repeated by a split.
    assert counts == [[178, 182, 177, 183, 181, 182, 181, 179, 174, 180]] * 2


def test_digits_splits_are_pinned_for_ever():
    data = find_workload("digits").load(None, 42)
    assert data.train.targets[:12].tolist() == [5, 0, 5, 2, 2, 2, 6, 2, 5, 6, 9, 4]


@pytest.mark.parametrize(
    ("name", "train", "test", "shape"),
    [
        ("fashion_mnist", 60_000, 10_000, (1, 28, 28)),
        ("cifar10", 50_000, 10_000, (3, 32, 32)),
    ],
)
def test_published_data_sets_are_read_whole(data_dir, name, train, test, shape):
    workload = find_workload(name)
    data = workload.load(data_dir, 0)
    assert data.train.inputs.shape == (train, *shape)
    assert data.test.inputs.shape == (test, *shape)
    assert data.train.inputs.dtype == torch.uint8
    for split, size in ((data.train, train), (data.test, test)):
        assert torch.bincount(split.targets).tolist() == [size // 10] * 10
    standardize = workload.model()[0]
    scores = standardize(data.train.inputs[:20_000])
    assert scores.mean((0, 2, 3)).tolist() == pytest.approx([0] * shape[0], abs=0.02)
    assert scores.std((0, 2, 3)).tolist() == pytest.approx([1] * shape[0], abs=0.02)


@pytest.mark.parametrize("name", BUILT_IN)
def test_models_give_a_score_a_class_and_learn_from_one_batch(name, request):
    workload = find_workload(name)
    data_dir = None if name == "digits" else request.getfixturevalue("data_dir")
    data = workload.load(data_dir, 0)
    inputs, targets = data.train.inputs[:64], data.train.targets[:64]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = workload.model()
    losses = []
    for _ in range(60):
        loss = workload.loss(model(inputs), targets)
        assert loss.shape == (64,)
        gradients = torch.autograd.grad(loss.mean(), list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient
        losses.append(float(loss.detach().mean()))
    assert losses[-1] < losses[0] / 2
    scores = workload.metric(model(inputs), targets)
    assert scores.shape == (64,)
    assert 0 <= float(scores.mean()) <= 1


def write_cifar_batches(folder, samples=20):
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    pixels = {}
    for name in names:
        pixels[name] = generator.integers(0, 256, (samples, 3072), dtype=np.uint8)
        labels = generator.integers(0, 10, samples).tolist()
        batch = {"data": pixels[name], "labels": labels, "batch_label": name}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    return pixels


def test_cifar10_reads_torchvisions_layout(tmp_path):
    pixels = write_cifar_batches(tmp_path / "cifar10" / "cifar-10-batches-py")
    data = find_workload("cifar10").load(tmp_path, 0)
    assert data.train.inputs.shape == (100, 3, 32, 32)
    third = data.train.inputs[40:60].reshape(20, -1).numpy()
    assert np.array_equal(third, pixels["data_batch_3"])
    assert np.array_equal(
        data.test.inputs.reshape(20, -1).numpy(), pixels["test_batch"]
    )


class Harmful:
    def __reduce__(self):
        return print, ("run by a pickle",)


def test_a_cifar_file_cannot_run_code(tmp_path, capsys):
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar_batches(folder)
    (folder / "data_batch_2").write_bytes(pickle.dumps({"data": Harmful()}))
    with pytest.raises(ValueError, match=r"data_batch_2 is damaged.*arrays only"):
        find_workload("cifar10").load(tmp_path, 0)
    assert capsys.readouterr().out == ""


def idx(values):
    header = struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    return header + values.astype(np.uint8).tobytes()


def test_idx_files_are_read_as_their_header_says(tmp_path):
    values = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(idx(values)))
    assert np.array_equal(read_idx(path).numpy(), values)


@pytest.mark.parametrize(
    "content",
    [
        b"no gzip at all",
        gzip.compress(b""),
        gzip.compress(b"\x00\x00\x0d\x01\x00\x00\x00\x02ab"),
        gzip.compress(idx(np.zeros((3, 4)))[:-1]),
        gzip.compress(idx(np.zeros((3, 4))))[:-9],
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path, content):
    path = tmp_path / "train-images.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"train-images\.gz is damaged: \S"):
        read_idx(path)


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10"])
def test_a_missing_data_directory_says_what_it_must_hold(name, tmp_path):
    load = find_workload(name).load
    with pytest.raises(ValueError, match=r"needs data: --data DIR"):
        load(None, 0)
    with pytest.raises(ValueError, match=r"must hold .*, and does not"):
        load(tmp_path, 0)


def test_a_users_workload_takes_twenty_lines(tmp_path):
    source = """
import torch
from torch import nn

from batchramp.workloads import Data, Split, Workload


def load(data_dir, seed):
    generator = torch.Generator().manual_seed(seed % 2**63)
    x = torch.randn(600, 2, generator=generator)
    y = (x.norm(dim=1) > 1.2).long()
    return Data(train=Split(x[:500], y[:500]), test=Split(x[500:], y[500:]))


def model():
    return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))


rings = Workload(name="rings", load=load, model=model, targets=("metric >= 0.9",))
"""
    assert len(source.strip().splitlines()) <= 20
    (tmp_path / "own.py").write_text(source)
    workload = find_workload("own.py:rings", UserCode(tmp_path))
    assert isinstance(workload, Workload)
    assert len(workload.load(None, 3).train) == 500
    with pytest.raises(ValueError, match=r"unknown name 'ring': did you mean rings"):
        find_workload("own.py:ring", UserCode(tmp_path))
    with pytest.raises(ValueError, match=r"must be a batchramp\.workloads\.Workload"):
        find_workload("own.py:model", UserCode(tmp_path))
    with pytest.raises(ValueError, match=r"there is no file .*absent\.py"):
        find_workload("absent.py:rings", UserCode(tmp_path))


def test_an_unknown_workload_names_the_nearest():
    with pytest.raises(ValueError, match=r"unknown workload 'digit': .*digits"):
        find_workload("digit")


def test_splits_must_match_and_digests_see_every_byte():
    ones, zeros = torch.ones(4, 2), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(ValueError, match="same length, at least 1, got 4 and 3"):
        Split(ones, zeros[:3])
    whole = Data(Split(ones, zeros), Split(ones, zeros))
    changed = ones.clone()
    changed[3, 1] = 2
    other = Data(Split(ones, zeros), Split(changed, zeros))
    assert whole.digest() != other.digest()
    assert whole.digest() == Data(Split(ones, zeros), Split(ones, zeros)).digest()


def test_labels_that_do_not_match_their_images_are_named(tmp_path):
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    for part in ("train", "t10k"):
        images = folder / f"{part}-images-idx3-ubyte.gz"
        images.write_bytes(gzip.compress(idx(np.zeros((4, 28, 28)))))
        labels = folder / f"{part}-labels-idx1-ubyte.gz"
        labels.write_bytes(gzip.compress(idx(np.zeros(3))))
    with pytest.raises(ValueError, match=r"train-labels\S* is damaged: .*got 4 and 3"):
        find_workload("fashion_mnist").load(tmp_path, 0)
