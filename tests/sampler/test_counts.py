"""Which pass comes next, by a state, by the user's word and by a sampler handed over."""

import itertools
import pickle

import pytest
from torch.utils.data import DistributedSampler

from batchramp import plan
from batchramp.sampler import VariableBatchSampler

BOUNDARIES = ["keep", "drop", "wrap"]


def passes(count, *arguments, **keywords):
    sampler = VariableBatchSampler(*arguments, **keywords)
    return [list(sampler) for _ in range(count)]


def growing(boundary, epochs=4):
    return plan(
        "smith-increase", num_samples=41, epochs=epochs, boundary=boundary,
        batch_size=4, max_batch_size=16,
    )  # fmt: skip


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("exhausted", [False, True])
def test_a_state_of_a_passes_last_batch_begins_the_next(boundary, exhausted):
    made = growing(boundary)
    whole = passes(4, 41, schedule=made)
    for epoch in range(3):
        sampler = VariableBatchSampler(41, schedule=made)
        sampler.set_epoch(epoch)
        batches = iter(sampler)
        list(itertools.islice(batches, len(whole[epoch])))
        if exhausted:
            assert next(batches, None) is None
        state = sampler.state_dict()
        assert (state["epoch"], state["batches_yielded"]) == (epoch + 1, 0)
        assert sampler.state_at(len(whole[epoch])) == state
        for _ in range(
            2
        ):  # an iterator that is made and never drawn from takes nothing
            again = VariableBatchSampler(41, schedule=made)
            again.load_state_dict(state)
            iter(again)
            assert [list(again) for _ in range(epoch + 1, 4)] == whole[epoch + 1 :]
            state = pickle.loads(pickle.dumps(state))


@pytest.mark.parametrize("epochs", [4, 2.5])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_the_state_at_a_plans_end_loads_and_says_that_it_is_the_end(boundary, epochs):
    made = growing(boundary, epochs)
    sampler = VariableBatchSampler(41, schedule=made)
    whole = [list(sampler) for _ in range(4 if epochs == 4 else 3)]
    assert sum(map(len, whole)) == made.updates
    state = sampler.state_dict()
    assert (state["epoch"], state["batches_yielded"]) == (len(whole), 0)
    assert state == sampler.state_of(made.updates)
    again = VariableBatchSampler(41, schedule=made)
    again.load_state_dict(state)
    assert again.state_dict() == state
    assert len(again) == len(sampler) == len(whole[-1])  # never 0
    with pytest.raises(ValueError, match=r"where the plan ends, got . \(an iterator"):
        next(iter(again))
    again.set_epoch(1)  # by hand it is obeyed
    assert list(again) == whole[1]


def test_the_rest_of_a_finished_pass_as_it_was_once_written_is_the_next_pass():
    state = {
        "version": 1, "algo": "exact-1", "n": 20, "seed": 0, "boundary": "keep",
        "epoch": 1, "samples_consumed_global": 20, "batches_yielded": 4,
        "slices_yielded": 0, "batch_sizes": [[0, 6]], "schedule_id": None,
    }  # fmt: skip
    sampler = VariableBatchSampler(20, 6)
    sampler.load_state_dict(state)
    assert sampler.state_dict()["epoch"] == 2
    assert list(sampler) == passes(3, 20, 6)[2]
    sampler.load_state_dict(
        state | {"samples_consumed_global": 12, "batches_yielded": 2}
    )
    assert list(sampler) == passes(2, 20, 6)[1][2:]
    with pytest.raises(ValueError, match="state's indices must be '"):
        VariableBatchSampler([5] * 20, 6).load_state_dict(state)


def test_by_hand_set_epoch_is_obeyed_right_after_a_load_too():
    whole = passes(4, 20, 6)
    sampler = VariableBatchSampler(20, 6)
    sampler.set_epoch(2)
    list(itertools.islice(sampler, 2))
    state = sampler.state_dict()
    for epoch, due in [(2, whole[2][2:]), (1, whole[1]), (3, whole[3])]:
        again = VariableBatchSampler(20, 6)
        again.load_state_dict(state)
        again.set_epoch(epoch)
        assert list(again) == due


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_the_length_turns_over_when_the_iterator_is_exhausted(boundary):
    made = growing(boundary)
    whole = passes(4, 41, schedule=made)
    sampler = VariableBatchSampler(41, schedule=made)
    for epoch, batches in enumerate(whole):
        assert len(sampler) == len(batches)
        last = [i for i, _ in enumerate(sampler) if i + 1 == len(sampler)]
        assert last == [len(batches) - 1]
        following = whole[epoch + 1] if epoch < 3 else batches
        assert len(sampler) == len(following)


def test_a_size_made_with_another_is_not_taken_over_in_silence():
    sampler = VariableBatchSampler(20, 6)
    list(itertools.islice(sampler, 2))
    state = sampler.state_dict()
    other = VariableBatchSampler(20, 5)
    with pytest.raises(
        ValueError, match=r"state's batch_size must be 5, .* got 6.*set_batch_size"
    ):
        other.load_state_dict(state)
    with pytest.raises(ValueError, match="state's batch_size must be null where"):
        VariableBatchSampler(20, schedule=lambda _: 6).load_state_dict(state)
    again = VariableBatchSampler(20, 6)
    again.load_state_dict(state)
    again.set_batch_size(5)
    assert [len(batch) for batch in again] == [5, 3]
    # Set by hand, a size comes back by the state.
    grown = VariableBatchSampler(20, 6)
    grown.load_state_dict(again.state_dict())
    assert [len(batch) for batch in grown] == [5, 5, 5, 5]


def test_what_a_subclass_adds_to_a_state_is_its_own():
    class Counted(VariableBatchSampler):
        trained = 0

        def state_dict(self):
            return super().state_dict() | {"trained": self.trained}

        def load_state_dict(self, state):
            super().load_state_dict(state)
            self.trained = state["trained"]

    sampler = Counted(20, 6)
    sampler.trained = 7
    batches = iter(sampler)
    next(batches)
    again = Counted(20, 6)
    again.load_state_dict(sampler.state_dict())
    assert again.trained == 7
    assert list(again) == list(batches)


def handed_over(rank=0, seed=0, **keywords):
    return DistributedSampler(
        range(41), num_replicas=2, rank=rank, seed=seed, **keywords
    )


def test_a_distributed_samplers_own_epoch_is_followed():
    whole = passes(6, 41, 8, boundary="drop", world_size=2)
    theirs = handed_over()
    theirs.set_epoch(1)  # before it is handed over
    sampler = VariableBatchSampler(theirs, 4, boundary="drop")
    assert list(sampler) == whole[1]
    got = []
    for epoch in (2, 3, 5):
        theirs.set_epoch(epoch)
        assert len(sampler) == len(whole[epoch])
        got.append(list(sampler))
    assert got == [whole[2], whole[3], whole[5]]
    theirs.set_epoch(3)
    head = list(itertools.islice(sampler, 2))
    state = sampler.state_dict()
    theirs = handed_over()
    again = VariableBatchSampler(theirs, 4, boundary="drop")
    again.load_state_dict(state)
    theirs.set_epoch(3)  # the loop's own, in the epoch that it goes on with
    assert head + list(again) == whole[3]
    assert list(again) == whole[4]  # left alone, passes follow each other


def test_beside_a_distributed_sampler_a_size_is_per_process_everywhere():
    sampler = VariableBatchSampler(handed_over(), 4, boundary="drop")
    assert sampler.batch_size == 4
    assert [len(batch) for batch in sampler] == [4] * 5
    sampler.batch_size = 5
    assert sampler.batch_size == 5
    assert [len(batch) for batch in sampler] == [5] * 4
    sampler.set_batch_size(3, at=82)
    assert [len(batch) for batch in sampler] == [3] * 6
    state = sampler.state_dict()
    assert (state["batch_size"], state["batch_sizes"]) == (8, [[0, 6]])  # global
    with pytest.raises(ValueError, match=r"batch_size must be between 1 and 41 .*42"):
        sampler.set_batch_size(21)
    made = growing("drop")
    planned = VariableBatchSampler(handed_over(), schedule=made)
    assert [len(batch) for batch in planned] == [2] * 10  # a plan's are global


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("loaded", [False, True])
def test_of_sizes_set_between_two_batches_the_last_one_holds(boundary, loaded):
    sampler = VariableBatchSampler(10, 2, boundary=boundary, order="sequential")
    batches = iter(sampler)
    next(batches)
    if loaded:
        again = VariableBatchSampler(10, 2, boundary=boundary, order="sequential")
        again.load_state_dict(sampler.state_dict())
        sampler, batches = again, iter(again)
    sampler.set_batch_size(9)  # under `drop` it would not fit into the pass
    sampler.set_batch_size(3)
    assert next(batches) == [2, 3, 4]
