"""Which batches come, against the words of the design."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchramp._rust import Batches
from batchramp.sampler import VariableBatchSampler
from batchramp.schedules.plan import plan

BOUNDARIES = ("keep", "drop", "wrap")


def ramp(position):
    """Sizes that grow and shrink with the position."""
    return 2 + position // 7 % 5


def runs_plan(num_samples, runs, budget, boundary="keep"):
    horizon = SimpleNamespace(num_samples=num_samples, budget=budget, boundary=boundary)
    return SimpleNamespace(horizon=horizon, runs=runs, fingerprint="f00d")


def passes(sampler, count):
    return [list(sampler) for _ in range(count)]


def definition(num_samples, boundary, size_at, seed, count):
    """The batches of the first passes, straight from the words of the design."""
    batches = Batches(num_samples, seed=seed, boundary=boundary)
    position, found = 0, [[] for _ in range(count)]
    while True:
        size = size_at(position)
        start = batches.start(position, size)
        size = size_at(start)
        if start // num_samples >= count:
            return found
        found[start // num_samples].append(batches.take(start, size).tolist())
        position = batches.end(start, size)


def passes_again(sampler, epoch):
    sampler.set_epoch(epoch)
    sampler.set_epoch(epoch)
    return passes(sampler, 1)


@given(st.data())
def test_batches_are_those_of_the_definition(size_functions, data):
    num_samples = data.draw(st.integers(1, 40))
    boundary = data.draw(st.sampled_from(BOUNDARIES))
    function, keywords = data.draw(size_functions(num_samples))
    sampler = VariableBatchSampler(
        num_samples, seed=3, boundary=boundary, **keywords(boundary)
    )
    expected = definition(num_samples, boundary, function, 3, 3)
    for batches in expected:
        assert len(sampler) == len(batches)
        assert list(sampler) == batches
        if boundary == "keep":
            assert sorted(itertools.chain(*batches)) == list(range(num_samples))
    assert passes_again(sampler, 1) == expected[1:2]


def test_sizes_set_by_hand_act_where_they_are_told_to():
    sampler = VariableBatchSampler(20, 4, order="sequential")
    batches = iter(sampler)
    next(batches)
    sampler.batch_size = np.int64(2)
    assert next(batches) == [4, 5]
    sampler.set_batch_size(5, at=8)
    assert next(batches) == [6, 7]
    assert sampler.batch_size == 5
    assert next(batches) == [8, 9, 10, 11, 12]
    assert len(sampler) == 4 + 2
    with pytest.raises(ValueError, match=r"at must be at least 13 .* got 12"):
        sampler.set_batch_size(3, at=12)
    for size in (0, 21, 2.0, True):
        with pytest.raises(ValueError, match="batch_size must be"):
            sampler.batch_size = size
    with pytest.raises(ValueError, match="a schedule decides it"):
        VariableBatchSampler(20, schedule=ramp).batch_size = 3


def test_a_callable_that_is_not_pure_is_caught():
    sizes = iter([3] * 7 + [4] * 99)
    sampler = VariableBatchSampler(20, schedule=lambda _: next(sizes))
    assert len(sampler) == 7
    with pytest.raises(ValueError, match="pure function"):
        list(sampler)
    with pytest.raises(ValueError, match=r"schedule\(0\): batch_size must be .* got 0"):
        next(iter(VariableBatchSampler(20, schedule=lambda _: 0)))


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_plan_gives_its_own_updates(boundary):
    made = plan(
        "smith-increase", num_samples=101, epochs=6, boundary=boundary, batch_size=4,
        max_batch_size=64,
    )  # fmt: skip
    sampler = VariableBatchSampler(101, schedule=made)
    got = passes(sampler, 6)
    assert sum(map(len, got)) == made.updates
    assert sampler.boundary == boundary
    assert sampler.state_dict()["schedule_id"] == made.fingerprint
    assert len(sampler) == len(got[-1])
    for _ in range(2):
        with pytest.raises(ValueError, match=r"epoch must lie before 6,.* got 6"):
            next(iter(sampler))
    last = VariableBatchSampler(101, schedule=made)
    last.load_state_dict(sampler.state_dict())
    assert len(last) == len(got[-1])
    with pytest.raises(ValueError, match=r"plan ends.* \(an iterator dropped"):
        next(iter(last))


def test_a_callable_is_not_asked_past_the_pass():
    sizes = {0: 3, 3: 2, 5: 5}
    sampler = VariableBatchSampler(10, schedule=sizes.__getitem__, rank=0)
    assert len(sampler) == 3
    assert [len(batch) for batch in sampler] == [3, 2, 5]
    assert sampler.weight(2) == 1.0
    with pytest.raises(ValueError, match="update must be at most 2 in a pass of 3"):
        sampler.weight(3)


def test_a_plan_may_end_within_a_pass():
    sampler = VariableBatchSampler(10, schedule=runs_plan(10, [(0, 4)], 15))
    assert [len(batch) for batch in sampler] == [4, 4, 2]
    assert len(sampler) == 2
    assert [len(batch) for batch in sampler] == [4, 4]
    with pytest.raises(ValueError, match=r"before 1\.5, where the plan ends"):
        list(sampler)


def test_batch_size_is_none_where_it_varies():
    assert VariableBatchSampler(20, schedule=ramp).batch_size is None
    varying = runs_plan(20, [(0, 4), (8, 5)], 100)
    assert VariableBatchSampler(20, schedule=varying).batch_size is None
    assert VariableBatchSampler(20, schedule=runs_plan(20, [(0, 4)], 9)).batch_size == 4
    assert VariableBatchSampler(20, 4).batch_size == 4
