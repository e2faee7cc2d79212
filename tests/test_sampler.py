"""The drop-in contract of `VariableBatchSampler`, through real loaders."""

import itertools
import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
)

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


def through_json(state):
    return json.loads(json.dumps(state))


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


@st.composite
def size_functions(draw, num_samples):
    """A pure function of the position, and a sampler's keywords that mean it."""
    kind = draw(st.sampled_from(["fixed", "plan", "callable"]))
    sizes = draw(st.lists(st.integers(1, num_samples), min_size=1, max_size=6))
    every = draw(st.integers(1, 20))
    if kind == "fixed":
        return (lambda _: sizes[0]), lambda _: {"batch_size": sizes[0]}

    def function(position):
        return sizes[min(position // every, len(sizes) - 1)]

    if kind == "callable":
        return function, lambda _: {"schedule": function}
    runs = [(index * every, size) for index, size in enumerate(sizes)]
    far = 100 * num_samples
    return function, lambda boundary: {
        "schedule": runs_plan(num_samples, runs, far, boundary)
    }


@given(st.data())
def test_batches_are_those_of_the_definition(data):
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


def passes_again(sampler, epoch):
    sampler.set_epoch(epoch)
    sampler.set_epoch(epoch)
    return passes(sampler, 1)


@given(st.data())
def test_a_resume_anywhere_equals_the_uninterrupted_rest(data):
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
    assert len(sampler) == len(whole)
    rest = list(sampler)
    assert drawn + rest == whole
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
    again = VariableBatchSampler(20, 7, boundary=boundary)
    again.load_state_dict(through_json(sampler.state_dict()))
    assert head + train(again, stop, 9) == whole


def loader_of(sampler, workers, **kwargs):
    data = TensorDataset(torch.arange(sampler.num_samples))
    return DataLoader(data, batch_sampler=sampler, num_workers=workers, **kwargs)


def indices(loader):
    return [batch[0].tolist() for batch in loader]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_sees_every_sample_once_a_pass(workers):
    sampler = VariableBatchSampler(53, schedule=ramp)
    loader = loader_of(sampler, workers)
    assert len(loader) == len(sampler)
    first, second = indices(loader), indices(loader)
    expected = passes(VariableBatchSampler(53, schedule=ramp), 2)
    assert [first, second] == expected
    assert first != second
    assert sorted(itertools.chain(*first)) == list(range(53))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_resumes_from_what_was_trained(workers):
    whole = passes(VariableBatchSampler(53, schedule=ramp), 2)
    sampler = VariableBatchSampler(53, schedule=ramp)
    trained = list(itertools.islice(loader_of(sampler, workers), 4))
    # Workers are ahead: the sampler's own state is not the trainer's.
    assert sampler.state_dict()["batches_yielded"] == (4 if workers == 0 else 8)
    state = through_json(sampler.state_at(len(trained)))
    again = VariableBatchSampler(53, schedule=ramp)
    again.load_state_dict(state)
    loader = loader_of(again, workers)
    assert indices(loader) == whole[0][4:]
    assert indices(loader) == whole[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_rest_of_a_finished_pass_is_empty_once(workers):
    sampler = VariableBatchSampler(20, 6)
    first, second = passes(VariableBatchSampler(20, 6), 2)
    assert indices(loader_of(sampler, workers)) == first
    again = VariableBatchSampler(20, 6)
    again.load_state_dict(sampler.state_dict())
    loader = loader_of(again, workers)
    assert indices(loader) == []
    assert indices(loader) == second


def test_persistent_workers_go_from_pass_to_pass():
    loader = loader_of(VariableBatchSampler(20, 6), 2, persistent_workers=True)
    got = [indices(loader) for _ in range(3)]
    assert got == passes(VariableBatchSampler(20, 6), 3)


def test_nothing_happens_before_the_first_next():
    sampler = VariableBatchSampler(20, 6)
    before = sampler.state_dict()
    iter(sampler)
    iter(sampler)
    assert sampler.state_dict() == before
    assert list(sampler) == passes(VariableBatchSampler(20, 6), 1)[0]


def test_a_pass_broken_off_is_not_gone_back_to():
    expected = passes(VariableBatchSampler(20, 6), 2)
    sampler = VariableBatchSampler(20, 6)
    assert list(itertools.islice(sampler, 2)) == expected[0][:2]
    assert list(sampler) == expected[1]


def test_set_epoch_keeps_the_rest_of_its_own_pass_only():
    sampler = VariableBatchSampler(20, 6)
    first = list(itertools.islice(sampler, 2))
    state = sampler.state_dict()
    whole = passes(VariableBatchSampler(20, 6), 3)
    sampler.load_state_dict(state)
    sampler.set_epoch(0)
    assert first + list(sampler) == whole[0]
    sampler.load_state_dict(state)
    sampler.set_epoch(2)
    assert list(sampler) == whole[2]
    sampler.set_epoch(0)
    assert list(sampler) == whole[0]


def test_an_iterator_left_behind_does_not_move_the_sampler():
    sampler = VariableBatchSampler(20, 6)
    old = iter(sampler)
    next(old)
    sampler.set_epoch(5)
    next(old)
    assert sampler.state_dict()["epoch"] == 5
    sampler.set_epoch(1)
    assert list(sampler) == passes(VariableBatchSampler(20, 6), 2)[1]


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
    assert len(sampler) == 0
    for _ in range(2):
        with pytest.raises(ValueError, match=r"epoch must lie before 6,.* got 6"):
            next(iter(sampler))
    last = VariableBatchSampler(101, schedule=made)
    last.load_state_dict(sampler.state_dict())
    assert list(last) == []


def test_a_callable_is_not_asked_past_the_pass():
    sizes = {0: 3, 3: 2, 5: 5}
    sampler = VariableBatchSampler(10, schedule=sizes.__getitem__, rank=0)
    assert len(sampler) == 3
    assert [len(batch) for batch in sampler] == [3, 2, 5]
    assert sampler.weight(2) == 1.0
    with pytest.raises(ValueError, match="update must be below 3"):
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


@pytest.mark.parametrize("keywords", [{"batch_size": 7}, {"schedule": ramp}])
def test_copies_go_on_alike(keywords):
    sampler = VariableBatchSampler(53, boundary="wrap", output="numpy", **keywords)
    list(itertools.islice(sampler, 3))
    copy = pickle.loads(pickle.dumps(sampler))
    assert isinstance(copy, BatchSampler)
    for one, two in zip(sampler, copy, strict=True):
        assert one.dtype == np.int64
        assert one.tolist() == two.tolist()


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
    assert rebuilt.batch_size == 12
    assert [len(batch) for batch in rebuilt] == [6]
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
        SubsetRandomSampler(range(5)),
        RandomSampler(range(5), replacement=True),
        RandomSampler(range(5), num_samples=3),
        BatchSampler(SequentialSampler(range(5)), 2, False),
    ):
        with pytest.raises(ValueError, match="sampler must"):
            VariableBatchSampler(sampler, 2)
    with pytest.raises(ValueError, match="must agree with the DistributedSampler"):
        VariableBatchSampler(theirs, 4, rank=1, world_size=3)
    with pytest.raises(ValueError, match="order must be auto or sequential"):
        VariableBatchSampler(SequentialSampler(range(5)), 2, order="exact")


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
        assert head + list(again) == whole
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


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n": 21}, "n must be 20"),
        ({"algo": "exact-0"}, "algo must be 'exact-1'"),
        ({"seed": 1}, "seed must be 0"),
        ({"boundary": "drop"}, "boundary must be 'keep'"),
        ({"schedule_id": "x"}, "schedule_id must be None"),
        ({"version": 2}, "version must be 1"),
        ({"epoch": -1}, "epoch must be at least 0"),
        ({"samples_consumed_global": 2.5}, "must be a whole number"),
        ({"samples_consumed_global": 20}, "at most 19 after 0 batches"),
        ({"batch_sizes": None}, "batch_sizes must be null where"),
        ({"batch_sizes": [[0, 99]]}, "batch_size must be between 1 and 20"),
        ({"batch_sizes": []}, "pairs of position and size"),
        ({"more": 1}, "state must have the keys"),
    ],
)
def test_foreign_states_are_refused(changed, message):
    sampler = VariableBatchSampler(20, 6)
    state = sampler.state_dict() | changed
    with pytest.raises(ValueError, match=message):
        sampler.load_state_dict(state)
    assert list(sampler) == list(VariableBatchSampler(20, 6))


def test_states_are_small_plain_and_fresh():
    sampler = VariableBatchSampler(20, 6)
    state = sampler.state_dict()
    list(sampler)
    assert state == through_json(state) == VariableBatchSampler(20, 6).state_dict()
    assert set(sampler.state_dict()) == set(state)
    for batches, message in ((5, "at most 4"), (-1, "at least 0")):
        with pytest.raises(ValueError, match=f"batches must be {message}"):
            sampler.state_at(batches)


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        ((0, 1), {}, "num_samples must be between 1"),
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
