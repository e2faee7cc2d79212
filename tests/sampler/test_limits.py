"""No argument costs memory or time that nobody has: each is taken or refused by name."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchramp.sampler import VariableBatchSampler
from batchramp.schedules import plan

# More samples than a process can address, wherever memory is promised ahead of use.
MOST, HUGE = 2**45, 2**44


@pytest.mark.parametrize("output", ["list", "numpy"])
def test_a_batch_that_no_memory_holds_is_refused(output):
    sampler = VariableBatchSampler(MOST, HUGE, output=output)
    with pytest.raises(ValueError, match=f"memory: no room for a batch of {HUGE} samp"):
        next(iter(sampler))
    assert sampler.state_dict()["batches_yielded"] == 0
    # Where each of many ranks holds a share of it, it is drawn.
    ranks = HUGE // 4
    sampler = VariableBatchSampler(MOST, HUGE, rank=7, world_size=ranks, output=output)
    assert len(next(iter(sampler))) == 4


def test_a_pass_that_no_memory_holds_is_refused():
    sampler = VariableBatchSampler(MOST, 5)
    with pytest.raises(ValueError, match=f"no room for a pass of {MOST} samples"):
        sampler.permutation()
    assert len(next(iter(sampler))) == 5
    assert len(sampler) == -(-MOST // 5)


NUMBERS = [10**400, 10**9999, -(10**9999), 2**64, float("inf"), float("nan"), 1e308]
WRONG = [
    *NUMBERS,
    "3",
    "x" * 10**6,
    None,
    3.5,
    True,
    [3],
    {},
    object(),
    np.array([1.5]),
]
ARGUMENTS = [
    "sampler", "batch_size", "schedule", "order", "seed", "boundary", "rank",
    "world_size", "output", "threads",
]  # fmt: skip


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        (argument, value)
        for argument, value in itertools.product(ARGUMENTS, WRONG)
        if not (argument == "sampler" and isinstance(value, list | np.ndarray))
        and not (argument in ("rank", "boundary", "world_size") and value is None)
    ],
    ids=itertools.count(),
)
def test_wrong_arguments_are_named_in_few_words(argument, value):
    given = {"sampler": 20, "batch_size": 6, argument: value}
    if argument == "schedule":
        del given["batch_size"]
    with pytest.raises(ValueError, match=f"{argument}|sampler must have") as refused:
        VariableBatchSampler(**given)
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize("value", WRONG, ids=itertools.count())
def test_wrong_arguments_of_methods_are_named_in_few_words(value):
    sampler = VariableBatchSampler(20, 6)
    calls = {
        "epoch": [sampler.set_epoch, sampler.permutation],
        "batch_size": [sampler.set_batch_size],
        "at": [lambda at: sampler.set_batch_size(4, at)],
        "update": [sampler.weight],
        "batches": [sampler.state_at],
        "out": [lambda out: next(sampler.batches_into(out))],
        "state": [sampler.load_state_dict],
    }
    for name, functions in calls.items():
        if name == "at" and value is None:
            continue
        for function in functions:
            with pytest.raises(ValueError, match=rf"^{name} ") as refused:
                function(value)
            assert len(str(refused.value)) < 600
    assert sampler.state_dict() == VariableBatchSampler(20, 6).state_dict()


def test_what_a_schedule_says_is_named_in_few_words():
    for value in WRONG:
        sampler = VariableBatchSampler(20, schedule=lambda _, size=value: size)
        with pytest.raises(ValueError, match=r"^schedule\(0\): batch_size ") as refused:
            next(iter(sampler))
        assert len(str(refused.value)) < 300


ANY = (
    st.none()
    | st.booleans()
    | st.integers(-2, 60)
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from([10**400, 2**45, 2**44, np.int64(5), np.float64(5), range(7)])
    | st.sampled_from(
        [torch.tensor(5), plan("constant", num_samples=20, epochs=1, batch_size=3)]
    )
    | st.sampled_from(["list", "numpy", "keep", "drop", "wrap", "exact", "bijective"])
    | st.sampled_from([range(2**70), lambda position: 3, lambda position: None])
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(ARGUMENTS), ANY, max_size=4))
def test_any_arguments_draw_a_batch_or_are_refused(drawn):
    given = {"sampler": 20, **drawn}
    if "schedule" not in given:
        given.setdefault("batch_size", 3)
    try:
        sampler = VariableBatchSampler(**given)
        batch = next(iter(sampler))
    except ValueError as error:
        assert 0 < len(str(error)) < 600  # noqa: PT017
    else:
        assert len(batch) >= 1
        assert min(batch) >= 0
        assert max(batch) < sampler.num_samples
