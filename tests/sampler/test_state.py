"""A state goes on exactly, and a foreign one is refused."""

import itertools
import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler

from batchramp.sampler import VariableBatchSampler

BOUNDARIES = ("keep", "drop", "wrap")


def ramp(position):
    """Sizes that grow and shrink with the position."""
    return 2 + position // 7 % 5


def through_json(state):
    return json.loads(json.dumps(state))


@given(st.data())
def test_a_resume_anywhere_equals_the_uninterrupted_rest(size_functions, data):
    num_samples = data.draw(st.integers(1, 30))
    boundary = data.draw(st.sampled_from(BOUNDARIES))
    _, keywords = data.draw(size_functions(num_samples))
    world_size = data.draw(st.sampled_from([None, 1]))
    rank = None if world_size is None else 0

    def new():
        return VariableBatchSampler(
            num_samples, boundary=boundary, rank=rank, **keywords(boundary)
        )

    epoch = data.draw(st.integers(0, 2))
    sampler = new()
    sampler.set_epoch(epoch)
    whole = list(sampler)
    after = list(sampler)
    stop = data.draw(st.integers(0, len(whole)))

    sampler = new()
    sampler.set_epoch(epoch)
    drawn = list(itertools.islice(sampler, stop))
    state = through_json(sampler.state_dict())
    for _ in range(2):  # save, load, save, load
        sampler = new()
        sampler.load_state_dict(state)
        assert sampler.state_dict() == state
    if stop < len(whole):
        assert len(sampler) == len(whole)
        assert drawn + list(sampler) == whole
    assert len(sampler) == len(after)
    assert list(sampler) == after


@given(st.data())
def test_sizes_set_by_hand_resume_too(data):
    changes = data.draw(
        st.dictionaries(st.integers(0, 8), st.integers(1, 20), max_size=5)
    )
    boundary = data.draw(st.sampled_from(BOUNDARIES))

    def train(sampler, first, last):
        drawn, batches = [], iter(sampler)
        for update in range(first, last):
            if update in changes:
                # In force at once, or one batch later: what `lookahead` means.
                ahead = sampler.position + (1 if update % 2 else 0)
                sampler.set_batch_size(changes[update], at=ahead)
            batch = next(batches, None)
            if batch is None:
                batches = iter(sampler)
                batch = next(batches)
            drawn.append(batch)
        return drawn

    whole = train(VariableBatchSampler(20, 4, boundary=boundary), 0, 9)
    stop = data.draw(st.integers(0, 9))
    sampler = VariableBatchSampler(20, 4, boundary=boundary)
    head = train(sampler, 0, stop)
    again = VariableBatchSampler(20, 4, boundary=boundary)
    again.load_state_dict(through_json(sampler.state_dict()))
    assert head + train(again, stop, 9) == whole


@pytest.mark.parametrize("keywords", [{"batch_size": 7}, {"schedule": ramp}])
def test_copies_go_on_alike(keywords):
    sampler = VariableBatchSampler(53, boundary="wrap", output="numpy", **keywords)
    list(itertools.islice(sampler, 3))
    copy = pickle.loads(pickle.dumps(sampler))
    assert isinstance(copy, BatchSampler)
    for one, two in zip(sampler, copy, strict=True):
        assert one.dtype == np.int64
        assert one.tolist() == two.tolist()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n": 21}, "n must be 20"),
        ({"n": 20.0}, "state's n must be a whole number, got 20.0"),
        (
            {"n": 10**400},
            "state's n must be 20, .* got a whole number of some 401 digits",
        ),
        ({"algo": None}, "algo must be 'exact-1', as the sampler's, got None"),
        ({"epoch": True}, "state's epoch must be a whole number, got True"),
        ({"epoch": 10**9999}, "epoch must be at most .* got a whole number of some"),
        ({"batches_yielded": 10**9999}, "at least a whole number of some 10000 digits"),
        ({"batch_sizes": 10**9999}, "pairs of position and size, got a whole number"),
        ({"batch_sizes": [[0, 10**400]]}, "got a whole number of some 401 digits"),
        ({"algo": "exact-0"}, "algo must be 'exact-1'"),
        ({"seed": 1}, "seed must be 0"),
        ({"boundary": "drop"}, "boundary must be 'keep'"),
        ({"schedule_id": "x"}, "schedule_id must be None"),
        ({"version": 3}, "version must be 1 or 2"),
        ({"epoch": -1}, "epoch must be at least 0"),
        ({"samples_consumed_global": 2.5}, "must be a whole number"),
        ({"batches_yielded": 2, "samples_consumed_global": 1}, "must be at least 2"),
        ({"batches_yielded": 2, "samples_consumed_global": 21}, "at most 20 after 2"),
        ({"epoch": 2**63}, "epoch must be at most 461168601842738787, got"),
        ({"batch_sizes": [1]}, "pairs of position and size"),
        ({"batch_sizes": [[0, "6"]]}, "must be a whole number, got '6'"),
        ({"samples_consumed_global": 20}, "at most 0 after 0 batches"),
        ({"batch_sizes": None}, "batch_sizes must be null where"),
        ({"batch_sizes": [[0, 99]]}, "batch_size must be between 1 and 20"),
        ({"batch_sizes": []}, "pairs of position and size"),
    ],
)
def test_foreign_states_are_refused(changed, message):
    sampler = VariableBatchSampler(20, 6)
    state = sampler.state_dict() | changed
    with pytest.raises(ValueError, match=message):
        sampler.load_state_dict(state)
    assert list(sampler) == list(VariableBatchSampler(20, 6))


@pytest.mark.parametrize("kind", [np.int64, np.uint8, torch.tensor])
def test_a_states_whole_numbers_may_be_of_any_kind(kind):
    sampler = VariableBatchSampler(20, 6, seed=3)
    list(itertools.islice(sampler, 2))
    state = sampler.state_dict()
    given = {k: kind(v) if isinstance(v, int) else v for k, v in state.items()}
    given["batch_sizes"] = tuple(tuple(map(kind, run)) for run in state["batch_sizes"])
    again = VariableBatchSampler(20, 6, seed=3)
    again.load_state_dict(given)
    assert json.loads(json.dumps(again.state_dict())) == state
    assert list(again) == list(VariableBatchSampler(20, 6, seed=3))[2:]


def test_states_are_small_plain_and_fresh():
    sampler = VariableBatchSampler(20, 6)
    state = sampler.state_dict()
    list(sampler)
    assert state == through_json(state) == VariableBatchSampler(20, 6).state_dict()
    assert set(sampler.state_dict()) == set(state)
    for batches, message in ((5, "at most 4"), (-1, "at least 0")):
        with pytest.raises(ValueError, match=f"batches must be {message}"):
            sampler.state_at(batches)


def test_a_state_of_another_callable_is_refused():
    sampler = VariableBatchSampler(100, schedule=lambda position: 7)
    next(iter(sampler))
    state = sampler.state_dict()
    other = VariableBatchSampler(100, schedule=lambda position: 10)
    with pytest.raises(ValueError, match="a place that the schedule comes by"):
        other.load_state_dict(state)
    with pytest.raises(ValueError, match=r"have the keys .* without seed"):
        other.load_state_dict({key: state[key] for key in state if key != "seed"})
    with pytest.raises(ValueError, match="state's n must be a whole number"):
        other.load_state_dict(state | {"n": np.arange(3)})
