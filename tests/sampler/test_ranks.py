"""Ranks share each global batch."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchramp.sampler import VariableBatchSampler

BOUNDARIES = ("keep", "drop", "wrap")


def through_json(state):
    return json.loads(json.dumps(state))


@given(
    st.integers(4, 60),
    st.integers(1, 4),
    st.integers(0, 56),
    st.sampled_from(BOUNDARIES),
)
def test_ranks_share_each_batch(num_samples, world_size, more, boundary):
    size = min(world_size + more, num_samples)
    if boundary == "keep" and 0 < num_samples % size < world_size:
        with pytest.raises(ValueError, match="batch_size must leave every batch"):
            VariableBatchSampler(num_samples, size, world_size=world_size)
        return
    keywords = {"boundary": boundary, "world_size": world_size}
    ranks = [
        VariableBatchSampler(num_samples, size, rank=rank, **keywords)
        for rank in range(world_size)
    ]
    dealt = VariableBatchSampler(num_samples, size, rank=None, **keywords)
    assert len(dealt) == world_size * len(ranks[0])
    whole = list(VariableBatchSampler(num_samples, size, boundary=boundary))
    shares = list(zip(*ranks, strict=True))
    assert [list(itertools.chain(*share)) for share in shares] == whole
    assert list(dealt) == [part for share in shares for part in share]
    for update, share in enumerate(shares):
        for rank, part in zip(ranks, share, strict=True):
            expected = world_size * len(part) / len(whole[update])
            assert rank.weight(update) == pytest.approx(expected)
    # The state is global: another number of ranks goes on from it.
    assert ranks[0].state_dict() == dealt.state_dict()


def test_shares_dealt_out_in_turn_resume_within_a_batch():
    def new():
        return VariableBatchSampler(24, 7, boundary="drop", rank=None, world_size=3)

    whole = list(new())
    for stop in range(len(whole) + 1):
        sampler, again = new(), new()
        head = list(itertools.islice(sampler, stop))
        again.load_state_dict(through_json(sampler.state_dict()))
        rest = list(again) if stop < len(whole) else []
        assert head + rest == whole
    list(itertools.islice(sampler, 4))
    with pytest.raises(ValueError, match="slices_yielded must be 0"):
        VariableBatchSampler(24, 7, boundary="drop").load_state_dict(
            sampler.state_dict()
        )


def test_weights_are_of_the_pass_being_drawn():
    sampler = VariableBatchSampler(10, 4, boundary="wrap", rank=0, world_size=3)
    list(sampler)
    assert [sampler.weight(update) for update in (0, 1, 0)] == [1.5, 1.5, 1.5]
    with pytest.raises(ValueError, match="update must be"):
        sampler.weight(3)
    with pytest.raises(ValueError, match="rank must be a number"):
        VariableBatchSampler(10, 4, boundary="drop", rank=None, world_size=2).weight(0)
