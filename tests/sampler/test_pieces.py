"""Batches dealt out in pieces: the contract of `batchramp._rust`, read independently."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchramp._rust import Batches, piece, pieces, share


def near_equal(length, parts):
    """The lengths of so many parts, the longer ones first."""
    return [length // parts + (part < length % parts) for part in range(parts)]


def lengths_of(length, world_size, micro_batch):
    """For each rank the lengths of its pieces; None where there are no such pieces."""
    shares = near_equal(length, world_size)
    count = -(-shares[0] // micro_batch)
    return None if shares[-1] < count else [near_equal(part, count) for part in shares]


@given(st.integers(1, 300), st.integers(1, 8), st.integers(1, 60))
def test_pieces_part_each_share_alike_on_all_ranks(length, world_size, micro_batch):
    if length < world_size:
        with pytest.raises(ValueError, match="batch_size must be at least"):
            pieces(length, world_size, micro_batch)
        return
    expected = lengths_of(length, world_size, micro_batch)
    if expected is None:
        for call in (
            lambda: pieces(length, world_size, micro_batch),
            lambda: piece(length, 0, world_size, micro_batch, 0),
        ):
            with pytest.raises(
                ValueError, match="micro_batch must be at least 2 where"
            ):
                call()
        return
    count = pieces(length, world_size, micro_batch)
    place = 0
    for rank, lengths in enumerate(expected):
        assert len(lengths) == count
        assert max(lengths) <= micro_batch
        assert place == share(length, rank, world_size)[0]
        for index, held in enumerate(lengths):
            found = piece(length, rank, world_size, micro_batch, index)
            assert found == (place, place + held)
            place += held
    assert place == length


@given(st.data())
def test_a_run_hands_out_every_batch_in_pieces(data):
    num_samples = data.draw(st.integers(3, 60))
    world_size = data.draw(st.integers(1, 3))
    size = data.draw(st.integers(world_size, num_samples))
    micro_batch = data.draw(st.integers(1, 20))
    boundary = data.draw(st.sampled_from(["keep", "drop", "wrap"]))
    rank = data.draw(st.none() | st.integers(0, world_size - 1))
    batches = Batches(num_samples, seed=3, boundary=boundary)
    until = 3 * num_samples
    out = np.empty(micro_batch, np.int64)

    def run(start, shares, into="list"):
        return batches.run(
            start, size, until, rank, world_size, shares, into, micro_batch=micro_batch
        )

    position = batches.start(0, size)
    parts = lengths_of(batches.end(position, size) - position, world_size, micro_batch)
    if parts is None:
        with pytest.raises(ValueError, match="micro_batch must be at least 2"):
            run(position, 0)
        return
    drawn, written = run(position, 0), run(position, 0, out)
    for count in itertools.count():
        start = batches.start(position, size)
        if start >= until:
            assert next(drawn, None) is next(written, None) is None
            return
        length = batches.end(start, size) - start
        parts = None
        if length >= world_size:
            parts = lengths_of(length, world_size, micro_batch)
        if parts is None:
            with pytest.raises(ValueError, match=r"micro_batch|world_size"):
                next(drawn)
            return
        ends = list(itertools.accumulate(itertools.chain.from_iterable(parts)))
        whole = np.split(batches.take(start, size), ends)
        mine = range(world_size) if rank is None else [rank]
        deals = [(index, of) for index in range(len(parts[0])) for of in mine]
        for done, (index, of) in enumerate(deals):
            assert drawn.place[1:] == (count, done)
            expected = whole[of * len(parts[0]) + index].tolist()
            assert next(drawn) == expected
            assert drawn.place[0] == start
            assert out[: next(written)].tolist() == expected
            assert next(run(start, done)) == expected
        position = batches.end(start, size)


def test_the_first_pieces_of_all_ranks_come_before_the_second():
    batches = Batches(20, order="sequential")
    dealt = batches.run(0, 11, 11, None, 2, 0, "list", micro_batch=4)
    assert list(dealt) == [[0, 1, 2], [6, 7, 8], [3, 4, 5], [9, 10]]
    assert dealt.place == (0, 1, 0)


def test_a_cap_that_no_share_reaches_changes_nothing():
    batches = Batches(1_000, seed=1)
    for rank, micro_batch in itertools.product((None, 1), (17, 18, 10**6)):
        plain = batches.run(0, 50, 1_000, rank, 3, 0, "list")
        capped = batches.run(0, 50, 1_000, rank, 3, 0, "list", micro_batch=micro_batch)
        assert list(plain) == list(capped)


def test_memory_is_asked_for_a_piece_alone():
    batches = Batches(2**45)
    huge = batches.run(0, 2**44, 2**44, 0, 1, 0, "numpy", micro_batch=5)
    assert len(next(huge)) <= 5
    out = np.empty(4, np.int64)
    with pytest.raises(ValueError, match="out must hold at least 5 samples, got 4"):
        batches.run(0, 64, 64, 0, 2, 0, out, micro_batch=5)


@pytest.mark.parametrize(
    ("shares", "rank", "micro_batch", "message"),
    [
        (4, 0, 4, r"shares must be below 4 .* got 4"),
        (8, None, 4, r"shares must be below 8 .* got 8"),
        (1, 0, None, r"shares must be below 1 .* got 1"),
        (0, 2, 4, "rank must be between 0 and 1"),
        (0, 0, 0, "micro_batch must be at least 1, got 0"),
        (0, 0, 2**64, "micro_batch must be between"),
    ],
)
def test_what_is_no_piece_is_refused(shares, rank, micro_batch, message):
    batches = Batches(100)
    with pytest.raises(ValueError, match=message):
        batches.run(0, 32, 100, rank, 2, shares, "list", micro_batch=micro_batch)
    with pytest.raises(ValueError, match=r"index must be below 4 .* got 4"):
        piece(32, 0, 2, 4, 4)
