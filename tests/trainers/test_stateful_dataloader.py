"""torchdata's StatefulDataLoader: saves what was trained, not what was drawn."""

import itertools
import json

import pytest
import torch
from torch.utils.data import TensorDataset

import batchramp
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


PLAN = batchramp.plan(
    "smith-increase", num_samples=40, epochs=4, batch_size=4, max_batch_size=16
)
"""Its passes have 10, 4, 3 and 3 batches."""
CHANGES = [
    (0, {}),
    (2, {}),
    (2, {"persistent_workers": True}),
    (2, {"snapshot_every_n_steps": 3}),
]


def planned(workers, state=None, **keywords):
    sampler = VariableBatchSampler(40, schedule=PLAN)
    loader = torchdata.StatefulDataLoader(
        TensorDataset(torch.arange(40)),
        batch_sampler=sampler,
        num_workers=workers,
        **keywords,
    )
    if state is not None:
        loader.load_state_dict(state)
    return loader


@pytest.fixture(scope="module")
def all_passes():
    sampler = VariableBatchSampler(40, schedule=PLAN)
    found = [list(sampler) for _ in range(4)]
    assert list(map(len, found)) == [10, 4, 3, 3]
    return found


@pytest.mark.parametrize(("workers", "keywords"), CHANGES)
@pytest.mark.parametrize(
    ("stop", "says"), [(0, False), (1, True), (3, False), (4, True), (4, False)]
)
def test_a_growing_plan_resumes_within_a_pass_and_at_its_end(
    workers, keywords, stop, says, all_passes
):
    loader = planned(workers, **keywords)
    indices(loader)
    trained = indices(itertools.islice(loader, stop)) if stop else []
    state = loader.state_dict()
    loader = planned(workers, state, **keywords)
    for epoch in range(1 + (stop == 4), 4):
        if says:
            loader.batch_sampler.set_epoch(epoch)
        found = indices(loader)
        assert (trained + found if epoch == 1 else found) == all_passes[epoch]


@pytest.mark.parametrize("workers", [0, 2])
def test_saves_and_loads_may_follow_each_other(workers, all_passes):
    # Three updates a session, over the ends of passes.
    trained, state = [], None
    for _ in range(7):
        loader = planned(workers, state)
        for batch in loader:
            trained.append(batch[0].tolist())
            if len(trained) % 3 == 0:
                break
        state = loader.state_dict()
    assert trained == list(itertools.chain(*all_passes))[: len(trained)]
    assert len(trained) > 14


@pytest.mark.parametrize("workers", [0, 2])
def test_an_iterator_that_is_never_drawn_from_uses_nothing_up(workers, all_passes):
    loader = planned(workers)
    indices(loader)
    state = loader.state_dict()
    loader = planned(workers, state)
    if not workers:
        iter(loader)  # with workers that draws
    assert [indices(loader) for _ in range(3)] == all_passes[1:]
    with pytest.raises(ValueError, match="where the plan ends"):
        indices(loader)
    # The end of a plan can be saved and loaded too.
    loader = planned(workers)
    for _ in range(4):
        indices(loader)
    loader = planned(workers, loader.state_dict())
    with pytest.raises(ValueError, match="where the plan ends"):
        indices(loader)
