"""Fabric's loader counts its iterators: what was loaded or set holds all the same."""

import itertools
import json
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

import batchramp

fabric = pytest.importorskip("lightning.fabric")

PLAN = batchramp.plan(
    "smith-increase", num_samples=40, epochs=4, batch_size=4, max_batch_size=16
)
"""Its passes have 10, 4, 3 and 3 batches."""


def new_sampler():
    return batchramp.VariableBatchSampler(40, schedule=PLAN)


def set_up(sampler, workers, kind=DataLoader):
    running = fabric.Fabric(accelerator="cpu", devices=1)
    loader = kind(
        range(sampler.num_samples),
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=list,
    )
    return running.setup_dataloaders(
        loader, use_distributed_sampler=False, move_to_device=False
    )


@pytest.fixture
def whole():
    sampler = new_sampler()
    return [list(sampler) for _ in range(4)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loaded_state_holds(workers, whole):
    saved = new_sampler()
    list(saved)
    for batches, rest in ((2, [whole[1][2:], *whole[2:]]), (4, whole[2:])):
        list(itertools.islice(saved, 4))
        sampler = new_sampler()
        sampler.load_state_dict(saved.state_at(batches))
        loader = set_up(sampler, workers)
        assert [list(loader) for _ in rest] == rest
        saved.set_epoch(1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pass_that_was_set_holds(workers, whole):
    sampler = new_sampler()
    loader = set_up(sampler, workers)
    for epoch in (2, 0, 0, 3, 1):
        sampler.set_epoch(epoch)
        assert list(loader) == whole[epoch]
    # Without a word each iterator is the next pass.
    assert list(loader) == whole[2]
    list(itertools.islice(set_up(sampler, 0), 1))
    with pytest.raises(ValueError, match="where the plan ends"):
        list(loader)


def train(trained, folder, kind, workers):
    """A loop under Fabric: a state every fourth update and at a pass's end."""
    loaders = {"plain": DataLoader}
    if kind == "stateful":
        import torchdata.stateful_dataloader

        loaders[kind] = torchdata.stateful_dataloader.StatefulDataLoader
    sampler = trained.new_sampler()
    loader = set_up(sampler, workers, loaders[kind])
    holder = sampler if kind == "plain" else loader._dataloader
    saved, update, batches = Path(folder, "state.json"), 0, 0
    if saved.exists():
        update, batches, state = json.loads(saved.read_text())
        holder.load_state_dict(state)

    def save():
        plain = kind == "plain" and batches > 0
        state = sampler.state_at(batches) if plain else holder.state_dict()
        saved.write_text(json.dumps([update, batches, state]))

    while update < trained.plan.updates:
        for batch in loader:
            trained(update, batch)
            update, batches = update + 1, batches + 1
            if update % 4 == 0:
                save()
        batches = 0
        save()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("at", "first"), [(13, 12), (14, 14)], ids=["mid", "end"])
@pytest.mark.parametrize("kind", ["plain", "stateful"])
def test_a_killed_loop_goes_on_from_its_last_state(kind, at, first, workers, killed):
    if kind == "stateful":
        pytest.importorskip("torchdata.stateful_dataloader")
    assert killed(train, kind, workers, at=at) == first
