"""Indices as the first argument, as torch's own batch samplers take them."""

import itertools
import pickle
from array import array
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

from batchramp._rust import Batches
from batchramp.sampler import VariableBatchSampler
from batchramp.sampler.sources import adopt

IDS = [7, 0, 3, 9, 4, 4, 2**40]


def flat(batches):
    return list(itertools.chain.from_iterable(batches))


def source(sampler):
    return adopt(sampler, "auto", 0, 0, 1)


@pytest.mark.parametrize(
    "ids",
    [
        IDS,
        tuple(IDS),
        np.array(IDS),
        np.array([IDS, IDS], order="F")[0],  # not contiguous
        np.array(IDS, dtype=">i8"),
        np.array(IDS, dtype=np.uint64),
        np.array(IDS, dtype=object),
        array("q", IDS),
        torch.tensor(IDS),
        list(torch.tensor(IDS)),
        list(np.array(IDS)),
        [*IDS[:3], *np.array(IDS[3:])],
        pl.Series(IDS),
        SubsetRandomSampler(IDS),
        SubsetRandomSampler(torch.tensor(IDS)),
    ],
    ids=itertools.count(),
)
def test_whole_numbers_of_one_dimension_are_the_indices(ids):
    sampler = VariableBatchSampler(ids, 3, seed=5)
    places = VariableBatchSampler(len(IDS), 3, seed=5)
    for _ in range(2):
        batches = list(sampler)
        assert batches == [[IDS[place] for place in batch] for batch in places]
        assert all(type(index) is int for batch in batches for index in batch)
    in_order = VariableBatchSampler(ids, 4, order="sequential")
    assert list(in_order) == list(BatchSampler(IDS, 4, False))


@pytest.mark.parametrize(
    "numbers",
    [
        range(5, 12),
        range(0, 20, 3),
        range(9, -1, -2),
        range(4, 5, 2**80),
        range(0, 1, 7),
    ],
)
def test_a_range_is_its_numbers(numbers):
    sampler = VariableBatchSampler(numbers, 1, order="sequential")
    assert flat(sampler) == list(numbers)
    assert source(range(100)).indices is None  # its numbers are the places
    assert source(SubsetRandomSampler(range(100))).num_samples == 100


class Pictures(Dataset):
    """A data set that looks like indices to whoever goes through it."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        raise AssertionError("read before training")


@pytest.mark.parametrize(
    ("samples", "length"),
    [
        (Pictures(), 6),
        (Subset(Pictures(), [5, 1]), 2),
        (TensorDataset(torch.arange(8)), 8),
        (["a", "b"], 2),
        ([{"input": 1}, {"input": 2}, {"input": 3}], 3),
        ([(torch.ones(2), 1)] * 4, 4),
        ([torch.ones(2, dtype=torch.int64)] * 4, 4),
        ([0.5, 1.5], 2),
        (torch.rand(9), 9),
        (torch.tensor([5.0, -1.0]), 2),
        ([5.0, float("nan")], 2),
        (torch.zeros(5, 3, dtype=torch.int64), 5),
        (np.zeros((4, 2), dtype=np.int64), 4),
        (np.linspace(0, 1, 7), 7),
        (np.zeros((4, 1)), 4),
        ((np.zeros(3),), 1),
        ((torch.zeros(3, requires_grad=True),), 1),
        (np.array(["a", "b"]), 2),
        (pl.DataFrame({"a": [1, 2, 3]}), 3),
        (pl.Series(["a", "b"]), 2),
    ],
    ids=itertools.count(),
)
def test_samples_themselves_are_counted(samples, length):
    assert source(samples).indices is None
    assert len(VariableBatchSampler(samples, 1)) == length


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ({3, 4}, r"got a set: write sorted\(\.\.\.\)"),
        (frozenset({3, 4}), r"got a frozenset: write sorted\(\.\.\.\)"),
        ({3: "a"}, r"got a dict: write sorted\(\.\.\.\)"),
        ({3: "a"}.keys(), r"got a dict_keys: write sorted\(\.\.\.\)"),
        ({"a": 3}.values(), r"got a dict_values: write sorted\(\.\.\.\)"),
        (iter([3, 4]), r"got a list_iterator, .* write list\(\.\.\.\)"),
        ((index for index in [3]), r"got a generator, .* write list\(\.\.\.\)"),
        ([3, -1], "between 0 and 9223372036854775807 .* got -1"),
        (torch.tensor([3, -4]), "got -4"),
        (range(3, -3, -1), "got -2"),
        ([2**63], "got 9223372036854775808"),
        ([5, -(2**70), 3], "got -1180591620717411303424"),
        (np.array([2**63], dtype=np.uint64), "got 9223372036854775808"),
        (range(2**63, 2**63 + 9, 3), "got 9223372036854775814"),
        (range(7, 2**44), r"memory: indices take 8 bytes a sample, got range\(7, "),
        ([1, "a", 2], "whole numbers alone .* got 'a' among them"),
        ([1, 2.0], r"whole numbers alone .* got 2\.0 among them"),
        ([1, None], "whole numbers alone .* got None among them"),
        ([1, True], "whole numbers alone .* got True among them"),
        ([torch.tensor(1), torch.tensor(0.5)], "whole numbers alone .* got tensor"),
        ([True, False], "got a mask of 2: write np.flatnonzero"),
        (np.arange(5) > 2, "got a mask of 5: write np.flatnonzero"),
        (torch.arange(5) > 2, r"got a mask of 5: .* mask\.nonzero\(\)"),
        ((torch.arange(5) > 2).nonzero(), r"a column of 2 .* write \.flatten\(\)"),
        (np.argwhere(np.arange(5) > 2), r"a column of 2 .* write \.flatten\(\)"),
        (np.where(np.arange(5) > 2), r"a tuple of one array, .* of 2: write \[0\]"),
        ((torch.arange(5) > 2).nonzero(as_tuple=True), r"write \[0\]"),
        (np.array([5.0, 9.0, 12.0]), r"3 whole numbers as float64: write \.astype"),
        (torch.tensor([5.0, 9.0]).half(), r"2 whole numbers as float64: .* \.long\(\)"),
        ([5.0, 9.0], r"2 whole numbers as float64: .* give len\(data\)"),
        ([], r"must have 1 to 2\*\*45 samples, got 0"),
        (range(0), r"must have 1 to 2\*\*45 samples, got 0"),
        (torch.arange(0), r"must have 1 to 2\*\*45 samples, got 0"),
        (
            SubsetRandomSampler(["a", "b"]),
            r"indices must be whole numbers .* \['a', 'b'\]",
        ),
        (SubsetRandomSampler([3, -1]), "got -1"),
        (b"ab", "must be a number of samples, a sized data set or indices"),
    ],
    ids=itertools.count(),
)
def test_what_is_no_list_of_indices_is_refused_with_the_line_to_write(sampler, message):
    with pytest.raises(ValueError, match=f"^sampler('s)? .*{message}") as refused:
        VariableBatchSampler(sampler, 1)
    assert len(str(refused.value)) < 400


def test_a_split_is_trained_on_and_nothing_else():
    """The case of the report: validation samples were drawn for the training ids."""
    data = TensorDataset(torch.arange(100))
    train, validation = torch.utils.data.random_split(data, [80, 20])
    loader = DataLoader(data, batch_sampler=VariableBatchSampler(train.indices, 32))
    for _ in range(2):
        drawn = [int(sample) for (batch,) in loader for sample in batch]
        assert sorted(drawn) == sorted(train.indices)
        assert not set(drawn) & set(validation.indices)


def test_repeats_are_drawn_as_often_as_they_are_listed():
    repeats = np.repeat([10, 20, 30], [1, 2, 5])
    sampler = VariableBatchSampler(repeats, 3, output="numpy")
    for _ in range(3):
        assert sorted(np.concatenate(list(sampler))) == sorted(repeats)


def test_a_change_of_the_list_afterwards_changes_nothing():
    ids = np.array(IDS)
    sampler = VariableBatchSampler(ids, 3)
    copied = pickle.loads(pickle.dumps(sampler))
    ids[:] = 0
    assert sorted(flat(sampler)) == sorted(IDS)
    assert list(copied) == list(VariableBatchSampler(IDS, 3))


def test_a_distributed_sampler_is_kept_beside_its_length():
    theirs = DistributedSampler(range(50), 2, 1)
    assert source(theirs).theirs is theirs
    assert (source(theirs).processes, source(theirs).num_samples) == (2, 50)
    assert source(50).theirs is None


def test_plans_and_ranks_draw_the_indices():
    horizon = SimpleNamespace(num_samples=7, budget=14, boundary="keep")
    plan = SimpleNamespace(horizon=horizon, runs=[(0, 2), (7, 4)], fingerprint="f00d")
    planned = VariableBatchSampler(IDS, schedule=plan)
    assert [sorted(flat(planned)) for _ in range(2)] == [sorted(IDS)] * 2
    whole = list(VariableBatchSampler(IDS, 7))
    shares = [
        next(iter(VariableBatchSampler(IDS, 7, rank=rank, world_size=3)))
        for rank in range(3)
    ]
    assert flat(shares) == whole[0]


ANY_INDICES = st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=40)


@given(
    ANY_INDICES | st.lists(st.integers(0, 70_000), min_size=1, max_size=40),
    st.sampled_from(["exact", "bijective", "sequential"]),
    st.sampled_from(["keep", "drop", "wrap"]),
    st.data(),
)
def test_every_way_to_draw_gives_the_indices_at_the_places(ids, order, boundary, data):
    named = {"seed": 5, "order": order, "boundary": boundary}
    indices = np.array(ids)
    places, batches = (
        Batches(len(ids), **named),
        Batches(len(ids), indices=indices, **named),
    )
    if data.draw(st.booleans()):
        batches = pickle.loads(pickle.dumps(batches))
    size = data.draw(st.integers(1, len(ids)))
    world_size = data.draw(st.integers(1, size))
    rank = data.draw(st.integers(0, world_size - 1))
    start = places.start(data.draw(st.integers(0, 200)), size)
    size = min(size, places.end(start, size) - start)  # none is cut short
    if size < world_size:
        rank, world_size = 0, 1
    expected = indices[places.take(start, size, rank, world_size)]
    assert batches.take(start, size, rank, world_size).tolist() == expected.tolist()
    out = np.empty(size, np.int64)
    batches.fill(start, out)
    assert out.tolist() == indices[places.take(start, size)].tolist()

    def share(into):
        return next(batches.run(start, size, start + 1, rank, world_size, 0, into))

    listed, array = share("list"), share("numpy")
    assert listed == array.tolist() == out[: share(out)].tolist() == expected.tolist()
    assert all(type(index) is int for index in listed)


@pytest.mark.parametrize("order", ["exact", "bijective"])
def test_threads_gather_what_one_does(order):
    indices = np.random.default_rng(0).integers(0, 2**63 - 1, 400_000)
    found = []
    for threads in (1, 2, 5):
        batches = Batches(len(indices), order=order, indices=indices, threads=threads)
        found.append(batches.take(0, len(indices)))
    assert np.array_equal(np.sort(found[0]), np.sort(indices))
    assert all(np.array_equal(found[0], others) for others in found[1:])


def test_the_digest_never_changes():
    def digest(ids):
        return Batches(len(ids), indices=np.array(ids)).indices_digest

    # XXH3's 128 bits, as the reference implementation gives them for these bytes.
    assert digest([3, 1, 4, 1, 5]) == "8deee59d1d5307ecb5d008401744d848"
    assert digest([2**63 - 1]) == "acca2b3b36ec80c98c743a61a0ed0663"
    squares = [place * place for place in range(5000)]
    assert digest(squares) == "ad7b013b0fde7e8cb1f9788f9c848f74"
    assert Batches(5).indices_digest is Batches(5).indices is None


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([1, 2], r"indices must be as many as num_samples \(3\), got 2"),
        ([1, -2, -3], "indices must not be negative, got -2"),
        ([1, 2, -(2**63)], "indices must not be negative, got -9223372036854775808"),
    ],
)
def test_indices_of_another_number_or_sign_are_refused(indices, message):
    with pytest.raises(ValueError, match=message):
        Batches(3, indices=np.array(indices))
    with pytest.raises(ValueError, match="indices must be contiguous"):
        Batches(3, indices=np.arange(6)[::2])
    with pytest.raises(TypeError):
        Batches(3, indices=np.arange(3, dtype=np.int32))
