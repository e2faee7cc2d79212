"""What the constructor takes over, and what it refuses by name."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
)

from batchramp.sampler import VariableBatchSampler


def ramp(position):
    """Sizes that grow and shrink with the position."""
    return 2 + position // 7 % 5


def runs_plan(num_samples, runs, budget, boundary="keep"):
    horizon = SimpleNamespace(num_samples=num_samples, budget=budget, boundary=boundary)
    return SimpleNamespace(horizon=horizon, runs=runs, fingerprint="f00d")


def passes(sampler, count):
    return [list(sampler) for _ in range(count)]


def test_trainers_find_what_they_look_for():
    sampler = VariableBatchSampler(RandomSampler(range(20)), 6, True)
    assert (sampler.drop_last, sampler.boundary) == (True, "drop")
    sampler.sampler.set_epoch(1)
    assert list(sampler) == passes(VariableBatchSampler(20, 6, True), 2)[1]
    # Lightning builds another one like this.
    rebuilt = type(sampler)(
        DistributedSampler(range(20), 2, 1),
        batch_size=sampler.batch_size,
        drop_last=sampler.drop_last,
    )
    assert rebuilt.batch_size == 6  # per process, as it was given
    assert [len(batch) for batch in rebuilt] == [6]
    with pytest.raises(ValueError, match="sampler must not be replaced"):
        sampler.sampler = RandomSampler(range(20))
    with pytest.raises(ValueError, match="use_distributed_sampler=False"):
        VariableBatchSampler(
            20, batch_size=VariableBatchSampler(20, schedule=ramp).batch_size
        )


def test_samplers_are_adopted():
    assert list(VariableBatchSampler(SequentialSampler(range(5)), 2)) == [
        [0, 1], [2, 3], [4],
    ]  # fmt: skip
    theirs = DistributedSampler(range(50), 3, 2, seed=9)
    ours = VariableBatchSampler(theirs, 4, True)
    same = VariableBatchSampler(50, 12, True, seed=9, rank=2, world_size=3)
    assert list(ours) == list(same)
    ordered = DistributedSampler(range(6), 2, 1, shuffle=False)
    assert list(VariableBatchSampler(ordered, 3)) == [[3, 4, 5]]
    assert list(VariableBatchSampler(np.int64(3), 3, order="sequential")) == [[0, 1, 2]]
    for sampler in (
        RandomSampler(range(5), replacement=True),
        RandomSampler(range(5), num_samples=3),
        BatchSampler(SequentialSampler(range(5)), 2, False),
    ):
        with pytest.raises(ValueError, match="sampler must"):
            VariableBatchSampler(sampler, 2)
    # It brings its own rank, and a batch size given per process is multiplied once.
    for keywords, message in (
        ({"rank": 2, "world_size": 3}, "rank and world_size must be left out"),
        ({"seed": 4}, "seed must agree with the DistributedSampler's 9, got 4"),
    ):
        with pytest.raises(ValueError, match=message):
            VariableBatchSampler(theirs, 4, True, **keywords)
    with pytest.raises(ValueError, match="order must be auto or sequential"):
        VariableBatchSampler(SequentialSampler(range(5)), 2, order="exact")


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        ((0, 1), {}, r"sampler must have 1 to 2\*\*45 samples, got 0"),
        ((20, 0), {}, "batch_size must be between 1 and 20 .* got 0"),
        ((20, -3), {}, "got -3"),
        ((20, 21), {}, "got 21"),
        ((20, 2.0), {}, r"batch_size must be a whole number, got 2\.0"),
        ((20, True), {}, "got True"),
        ((20,), {}, "either batch_size or schedule"),
        ((20, 2), {"schedule": ramp}, "either batch_size or schedule .*got batch_size=2"),
        ((20, 2), {"rank": 2, "world_size": 2}, "rank must be between 0 and 1"),
        ((20, 2), {"rank": -1}, "rank must be at least 0"),
        ((20, 2), {"world_size": 0}, "world_size must be at least 1"),
        ((20, 2), {"world_size": 3}, r"batch_size must be at least 3 \(world_size\)"),
        ((20, 2), {"seed": 2**64}, "seed must be between"),
        ((20, 2), {"seed": 0.5}, "seed must be a whole number"),
        ((2**32 + 1, 2), {"order": "exact"}, 'ask for order="bijective"'),
        ((-1, 2), {}, "sampler must have .* got -1"),
        (("exact", 2), {}, "sampler must be a number of samples, .* got 'exact'"),
        ((20, torch.tensor(True)), {}, "batch_size must be a whole number"),
        ((20, np.True_), {}, "batch_size must be a whole number"),
        ((20, 2), {"order": None}, "order must be auto, exact, .* got None"),
        ((20, 2), {"boundary": 1}, "boundary must be keep, drop or wrap, got 1"),
        ((20, 2), {"boundary": []}, r"boundary must be keep, drop or wrap, got \[\]"),
        ((20, 2), {"output": np.arange(6)}, "output must be list or numpy"),
        ((20, 2), {"threads": 0}, "threads must be at least 1, got 0"),
        ((20, 2), {"boundary": "pad"}, "boundary must be keep"),
        ((20, 2, True), {"boundary": "keep"}, "boundary must agree"),
        ((20, 2, 1), {}, "drop_last must be True or False"),
        ((20, 2), {"output": "tensor"}, "output must be list or numpy"),
        ((20.0, 2), {}, "sampler .* must be a whole number"),
        ((21,), {"schedule": runs_plan(20, [(0, 4)], 40)}, "planned over 21 samples"),
        (
            (20,),
            {"schedule": runs_plan(20, [(0, 4)], 40), "boundary": "wrap"},
            "boundary must agree .*'keep'",
        ),
    ],
)  # fmt: skip
def test_bad_input_names_the_argument(arguments, keywords, message):
    with pytest.raises(ValueError, match=message):
        VariableBatchSampler(*arguments, **keywords)


def test_numbers_of_every_kind_are_taken():
    for four in (4, np.int64(4), np.array(4), torch.tensor(4)):
        assert [len(batch) for batch in VariableBatchSampler(four, four)] == [4]


def test_bad_arguments_of_methods_are_named():
    sampler = VariableBatchSampler(20, 6)
    with pytest.raises(ValueError, match=r"at must be at most 9223372036854775808"):
        sampler.set_batch_size(4, at=2**64)
    with pytest.raises(ValueError, match="update must be at most 3 in a pass of 4"):
        sampler.weight(2**64)


def test_a_schedule_that_raises_does_not_end_the_pass_without_a_word():
    def schedule(position):
        if position > 5:
            raise StopIteration
        return 3

    batches = iter(VariableBatchSampler(20, schedule=schedule))
    assert [len(next(batches)) for _ in range(2)] == [3, 3]
    with pytest.raises(ValueError, match=r"schedule\(6\): StopIteration"):
        next(batches)
