"""Which pass an iterator begins, and what moves the sampler."""

import itertools

from batchramp.sampler import VariableBatchSampler


def passes(sampler, count):
    return [list(sampler) for _ in range(count)]


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


def test_an_epoch_set_while_it_is_drawn_begins_anew_with_the_next_iterator():
    # Lightning's workers have drawn the first batches when it sets the first epoch.
    sampler = VariableBatchSampler(20, 6)
    batches = iter(sampler)
    head = [next(batches)]
    sampler.set_epoch(0)
    assert len(sampler) == 4
    head += itertools.islice(batches, 2)
    assert sampler.state_dict()["batches_yielded"] == 3
    assert sampler.weight(2) == 1.0
    assert list(sampler)[:3] == head
    assert sampler.state_dict()["epoch"] == 1
    assert list(sampler)[:3] != head
    sampler.set_epoch(1)  # that pass once more
    assert (sampler.state_dict()["epoch"], len(sampler)) == (1, 4)
