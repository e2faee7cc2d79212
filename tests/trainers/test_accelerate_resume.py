"""Accelerate's resume loops and checkpoints over a growing plan: right, or refused."""

import itertools

import pytest
from torch.utils.data import DataLoader

import batchramp

accelerate = pytest.importorskip("accelerate")

SAMPLES, EPOCHS = 40, 4
PLAN = batchramp.plan(
    "smith-increase",
    num_samples=SAMPLES,
    epochs=EPOCHS,
    batch_size=4,
    max_batch_size=16,
)
LINE = r"write loader\.set_epoch\(epoch\)"
LENGTHS = [10, 4, 3, 3]


def new_sampler():
    return batchramp.VariableBatchSampler(SAMPLES, schedule=PLAN)


def prepared(accelerator, sampler, workers=0):
    loader = DataLoader(range(SAMPLES), batch_sampler=sampler, num_workers=workers)
    return accelerator.prepare(loader)


def new_accelerator(**options):
    configuration = accelerate.utils.DataLoaderConfiguration(**options)
    return accelerate.Accelerator(cpu=True, dataloader_config=configuration)


def indices(loader):
    return [batch.tolist() for batch in loader]


@pytest.fixture(scope="module")
def whole():
    sampler = new_sampler()
    found = [list(sampler) for _ in range(EPOCHS)]
    assert list(map(len, found)) == LENGTHS
    return found


def resumed(start, skip, says):
    """Yields the passes of the loop in Accelerate's own examples."""
    accelerator = new_accelerator()
    loader = prepared(accelerator, new_sampler())
    for epoch in range(start, EPOCHS):
        if says == "each" or (says == "first" and epoch == start):
            loader.set_epoch(epoch)
        active = loader
        if epoch == start and skip:
            active = accelerator.skip_first_batches(loader, skip)
        yield indices(active)


@pytest.mark.parametrize(
    ("start", "skip"), [(0, 2), (1, 2), (2, 0), (0, LENGTHS[0]), (1, LENGTHS[1])]
)
@pytest.mark.parametrize("says", ["each", "first", "never"])
def test_a_loop_that_skips_is_right_or_refused(start, skip, says, whole):
    loop = resumed(start, skip, says)
    # Nothing says where to begin if the loop does not: that is pass 0.
    begun = start if says != "never" else 0
    assert next(loop) == whole[begun][skip:]
    if says == "each" or not skip:
        assert list(loop) == whole[begun + 1 :][: EPOCHS - start - 1]
    else:  # the loader has not counted what the one that skipped has drawn
        with pytest.raises(ValueError, match=LINE):
            next(loop)


def test_a_loop_that_loads_need_not_skip(whole):
    sampler = new_sampler()
    loader = prepared(new_accelerator(), sampler)
    indices(loader)
    trained = indices(itertools.islice(loader, 2))
    state = sampler.state_at(2)
    for skip in (0, 2):
        sampler = new_sampler()
        accelerator = new_accelerator()
        loader = prepared(accelerator, sampler)
        sampler.load_state_dict(state)
        loader.set_epoch(1)
        if not skip:
            assert trained + indices(loader) == whole[1]
            loader.set_epoch(2)
            assert indices(loader) == whole[2]
            continue
        loader = accelerator.skip_first_batches(loader, skip)
        with pytest.raises(ValueError, match="skip_first_batches must be left out"):
            indices(loader)


@pytest.mark.parametrize("dispatch", [False, True])
@pytest.mark.parametrize("stop", [1, 3, 4])
@pytest.mark.parametrize("says", [True, False])
def test_a_stateful_loader_resumes_or_is_refused(dispatch, stop, says, whole):
    pytest.importorskip("torchdata")
    options = {"dispatch_batches": dispatch, "use_stateful_dataloader": True}
    loader = prepared(new_accelerator(**options), new_sampler())
    indices(loader)
    trained = indices(itertools.islice(loader, stop))
    again = prepared(new_accelerator(**options), new_sampler())
    again.load_state_dict(loader.state_dict())
    finished = stop == LENGTHS[1]
    if not says:
        with pytest.raises(ValueError, match=LINE):
            indices(again)
        return
    for epoch in range(1 + finished, EPOCHS):
        again.set_epoch(epoch)
        rest = whole[1][stop:] if epoch == 1 else whole[epoch]
        assert indices(again) == rest
    assert trained == whole[1][:stop]


@pytest.mark.parametrize("dispatch", [False, True])
def test_workers_that_draw_while_a_loader_is_prepared_are_refused(dispatch):
    pytest.importorskip("torchdata")
    options = {"dispatch_batches": dispatch, "use_stateful_dataloader": True}
    with pytest.raises(ValueError, match="num_workers must be 0 with Accelerate's"):
        prepared(new_accelerator(**options), new_sampler(), workers=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_dispatch_in_one_process_changes_nothing(workers, whole):
    accelerator = new_accelerator(dispatch_batches=True)
    loader = prepared(accelerator, new_sampler(), workers)
    assert [indices(loader) for _ in range(EPOCHS)] == whole
    shares = batchramp.VariableBatchSampler(SAMPLES, 8, rank=None, world_size=2)
    with pytest.raises(ValueError, match="world_size must be 1 where Accelerate runs"):
        indices(prepared(accelerator, shares))


class Place:
    """What docs/trainers.md registers in the sampler's place."""

    def __init__(self, sampler):
        self.sampler, self.trained = sampler, 0

    def state_dict(self):
        return self.sampler.state_at(self.trained)

    def load_state_dict(self, state):
        self.sampler.load_state_dict(state)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 3, 4])
def test_what_was_trained_is_saved_in_the_samplers_place(
    workers, stop, whole, tmp_path
):
    accelerator = new_accelerator()
    place = Place(new_sampler())
    accelerator.register_for_checkpointing(place)
    loader = prepared(accelerator, place.sampler, workers)
    for epoch in range(2):
        place.trained = 0
        loader.set_epoch(epoch)
        for batch in loader:
            place.trained += 1
            assert batch.tolist() == whole[epoch][place.trained - 1]
            if epoch == 1 and place.trained == stop:
                accelerator.save_state(str(tmp_path))
                break
    accelerator = new_accelerator()
    place = Place(new_sampler())
    accelerator.register_for_checkpointing(place)
    loader = prepared(accelerator, place.sampler, workers)
    accelerator.load_state(str(tmp_path))
    first = place.sampler.state_dict()["epoch"]
    assert first == 1 + (stop == LENGTHS[1])
    for epoch in range(first, EPOCHS):
        loader.set_epoch(epoch)
        rest = whole[1][stop:] if epoch == 1 else whole[epoch]
        assert indices(loader) == rest


@pytest.mark.parametrize("workers", [0, 2])
def test_the_sampler_itself_is_saved_between_passes_only(workers, whole, tmp_path):
    accelerator = new_accelerator()
    sampler = new_sampler()
    accelerator.register_for_checkpointing(sampler)
    loader = prepared(accelerator, sampler, workers)
    accelerator.save_state(str(tmp_path / "before"))
    told = "registered for checkpointing where save_state is called within a pass"
    for trained, _ in enumerate(loader, start=1):
        if trained < LENGTHS[0]:
            with pytest.raises(ValueError, match=told):
                accelerator.save_state(str(tmp_path / "within"))
        else:  # all that is drawn is trained
            accelerator.save_state(str(tmp_path / "last"))
    accelerator.save_state(str(tmp_path / "after"))
    for name, epoch in (("before", 0), ("last", 1), ("after", 1)):
        accelerator = new_accelerator()
        sampler = new_sampler()
        accelerator.register_for_checkpointing(sampler)
        loader = prepared(accelerator, sampler, workers)
        accelerator.load_state(str(tmp_path / name))
        loader.set_epoch(epoch)
        assert indices(loader) == whole[epoch]


@pytest.mark.parametrize("workers", [0, 2])
def test_nor_is_it_saved_within_a_pass_of_a_loader_of_ones_own(
    workers, whole, tmp_path
):
    # Nothing tells Accelerate, or the sampler, how much of what was drawn is trained.
    accelerator = new_accelerator()
    sampler = new_sampler()
    accelerator.register_for_checkpointing(sampler)
    loader = DataLoader(range(SAMPLES), batch_sampler=sampler, num_workers=workers)
    batches = iter(loader)
    assert next(batches).tolist() == whole[0][0]
    with pytest.raises(ValueError, match="save_state is called within a pass"):
        accelerator.save_state(str(tmp_path))
    assert indices(batches) == whole[0][1:]
    accelerator.save_state(str(tmp_path))
