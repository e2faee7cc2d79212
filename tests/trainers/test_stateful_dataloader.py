"""torchdata's StatefulDataLoader: saves what was trained, not what was drawn."""

import itertools
import json

import pytest
import torch
from torch.utils.data import TensorDataset

from batchramp.sampler import VariableBatchSampler

torchdata = pytest.importorskip("torchdata.stateful_dataloader")

SAMPLES = 53
LAST = 13
"""Batches of a pass."""


def ramp(position):
    return 3 + position // 7 % 5


def new_sampler():
    return VariableBatchSampler(SAMPLES, schedule=ramp, boundary="drop")


def new_loader(workers, **keywords):
    data = TensorDataset(torch.arange(SAMPLES))
    return torchdata.StatefulDataLoader(
        data, batch_sampler=new_sampler(), num_workers=workers, **keywords
    )


def indices(loader):
    return [batch[0].tolist() for batch in loader]


@pytest.fixture(scope="module")
def whole():
    sampler = new_sampler()
    found = [list(sampler) for _ in range(3)]
    assert len(found[0]) == LAST
    return found


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 6, LAST])
def test_a_resume_goes_on_and_the_next_pass_begins_at_0(workers, stop, whole):
    loader = new_loader(workers)
    trained = indices(itertools.islice(loader, stop))
    state = json.loads(json.dumps(loader.state_dict(), default=repr))
    main = state["_snapshot"]["_main_snapshot"] if workers else state
    # A finished pass is the next one's beginning.
    assert main["_index_sampler_state"]["batches_yielded"] == stop % LAST
    again = new_loader(workers)
    again.load_state_dict(loader.state_dict())
    if stop < LAST:
        assert trained + indices(again) == whole[0]
    assert indices(again) == whole[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pass_resumes_as_often_as_need_be(workers, whole):
    trained, state = [], None
    for _ in range(5):
        loader = new_loader(workers, snapshot_every_n_steps=2)
        if state is not None:
            loader.load_state_dict(state)
        trained += indices(itertools.islice(loader, 3))
        state = loader.state_dict()
    assert trained == whole[0]
    loader = new_loader(workers)
    loader.load_state_dict(state)
    assert indices(loader) == whole[1]


def test_a_state_of_a_later_pass_needs_no_set_epoch(whole):
    loader = new_loader(0)
    indices(loader)
    head = indices(itertools.islice(loader, 4))
    again = new_loader(0)
    again.load_state_dict(loader.state_dict())
    assert head + indices(again) == whole[1]
    assert indices(again) == whole[2]
