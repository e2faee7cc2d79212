"""Threads, several iterators, exhaustion and mangled states: named, or right."""

import itertools
import json
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from batchramp.sampler import VariableBatchSampler
from batchramp.schedules.plan import plan

BOUNDARIES = ("keep", "drop", "wrap")


def ramp(position):
    return 2 + position // 7 % 5


def in_threads(function, count=4):
    """What each of several threads got or raised."""
    found = []

    def run():
        try:
            found.append(function())
        except ValueError as error:
            found.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == count
    return found


SIZES = [{"batch_size": 7}, {"schedule": ramp}]


@pytest.mark.parametrize("sizes", SIZES)
def test_threads_with_iterators_of_their_own_get_whole_passes_or_are_told(sizes):
    sampler = VariableBatchSampler(5000, **sizes)
    found = in_threads(lambda: list(sampler))
    told = [one for one in found if isinstance(one, str)]
    assert all("must be used by one thread at a time" in one for one in told)
    assert len(told) < len(found)
    for batches in (one for one in found if not isinstance(one, str)):
        assert sorted(itertools.chain(*batches)) == list(range(5000))


@pytest.mark.parametrize("sizes", SIZES)
def test_threads_that_share_an_iterator_get_each_batch_once(sizes):
    sampler = VariableBatchSampler(5000, **sizes)
    shared = iter(sampler)
    got, errors = [], 0
    for found in in_threads(lambda: [got.append(batch) for batch in shared]):
        if isinstance(found, str):
            assert "must be used by one thread at a time" in found
            errors += 1
    assert errors < 4
    assert sorted(itertools.chain(*got)) == list(range(5000))


def test_of_two_iterators_each_goes_on_and_the_newer_is_where_the_sampler_stands():
    passes = VariableBatchSampler(20, 6)
    first, second = list(passes), list(passes)
    sampler = VariableBatchSampler(20, 6)
    old = iter(sampler)
    head = [next(old)]
    new = iter(sampler)
    got = []
    for batch in new:
        got.append(batch)
        head += itertools.islice(old, 1)
    assert (head, got) == (first, second)
    assert sampler.state_dict()["epoch"] == 2


def test_an_iterator_that_ended_stays_ended():
    sampler = VariableBatchSampler(20, 6)
    batches = iter(sampler)
    assert len(list(batches)) == 4
    for _ in range(3):
        assert next(batches, None) is None
    assert sampler.state_dict()["epoch"] == 1
    assert sampler.state_dict()["batches_yielded"] == 0


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_plans_states_are_checked_against_the_plan(boundary):
    made = plan(
        "smith-increase", num_samples=101, epochs=6, boundary=boundary, batch_size=4,
        max_batch_size=64,
    )  # fmt: skip
    sampler = VariableBatchSampler(101, schedule=made)
    states = []
    for _ in range(6):
        for _ in sampler:
            states.append(sampler.state_dict())
            VariableBatchSampler(101, schedule=made).load_state_dict(states[-1])
    assert states[-1]["epoch"] == 6
    other = VariableBatchSampler(101, schedule=made)
    with pytest.raises(ValueError, match="epoch must lie before the plan's end, got 7"):
        other.load_state_dict(states[-1] | {"epoch": 7})
    for key in ("batches_yielded", "samples_consumed_global"):
        with pytest.raises(ValueError, match="must be"):
            other.load_state_dict(states[0] | {key: states[0][key] - 1})
    assert other.state_dict()["batches_yielded"] == 0


def attempt(function):
    """What a call returns, or what it refuses with."""
    try:
        return function(), None
    except ValueError as error:
        return None, str(error)


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-3, 60)
    | st.floats()
    | st.sampled_from(["", "1", "keep", "f00d"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["", "1", "keep", "f00d"]), inner, max_size=3)
    ),
    max_leaves=8,
)
NO_JSON = [10**400, 10**9999, np.int64(1), np.arange(3), torch.tensor(2), object()]
PAIRS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 25)).map(list), max_size=4
)


@given(st.data())
def test_a_mangled_state_is_refused_by_name_or_goes_on_rightly(data):
    boundary = data.draw(st.sampled_from(BOUNDARIES))
    kind = data.draw(st.sampled_from(["set", "called", "planned"]))
    world_size = data.draw(st.sampled_from([1, 2]))

    def new():
        if kind == "planned":
            sizes = {
                "schedule": plan(
                    "umeda-increasing-batch", num_samples=20, epochs=3,
                    boundary=boundary, batch_size=4, max_batch_size=8,
                )
            }  # fmt: skip
        else:
            sizes = {"schedule": ramp} if kind == "called" else {"batch_size": 6}
        rank = 0 if world_size == 1 else None
        return VariableBatchSampler(
            20, boundary=boundary, rank=rank, world_size=world_size, **sizes
        )

    sampler = new()
    list(itertools.islice(sampler, data.draw(st.integers(0, 8))))
    state = sampler.state_dict()
    by_json = data.draw(st.booleans())
    junk = JUNK if by_json else JUNK | st.sampled_from(NO_JSON)
    for key in data.draw(st.lists(st.sampled_from(sorted(state)), max_size=3)):
        state[key] = data.draw(PAIRS if key == "batch_sizes" else junk)
    if by_json:
        state = json.loads(json.dumps(state))
    again = new()
    before = again.state_dict()
    _, told = attempt(lambda: again.load_state_dict(state))
    if told is not None:
        assert "must" in told
        assert len(told) < 600
        assert again.state_dict() == before
        return
    # It was taken: then that is where the sampler stands, and its pass goes to the end.
    missing = {} if state["version"] == 2 else again.state_dict()
    assert again.state_dict() == {**missing, **state, "version": 2}
    rest, told = attempt(lambda: list(again))
    if told is not None:
        assert "must" in told
        return
    assert sum(map(len, rest)) <= 40
    assert again.state_dict()["epoch"] == state["epoch"] + 1
    assert all(0 <= index < 20 for batch in rest for index in batch)
