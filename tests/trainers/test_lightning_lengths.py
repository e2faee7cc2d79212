"""What Lightning does by the length of a pass: right, or refused with the line to write."""

import logging

import pytest
import torch
from torch.utils.data import DataLoader

import batchramp
from batchramp.sampler import VariableBatchSampler

lightning = pytest.importorskip("lightning.pytorch")
combined = pytest.importorskip("lightning.pytorch.utilities.combined_loader")
tuner = pytest.importorskip("lightning.pytorch.tuner")

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers:UserWarning",
    "ignore:.*has no `.*_dataloader`:UserWarning",
    "ignore:.*your dataloader is not resumable:UserWarning",
    "ignore:.*LeafSpec:FutureWarning",
    "ignore:.*isinstance.treespec, LeafSpec.:DeprecationWarning",
)

SAMPLES, EPOCHS = 40, 4
PLAN = batchramp.plan(
    "smith-increase",
    num_samples=SAMPLES,
    epochs=EPOCHS,
    batch_size=4,
    max_batch_size=16,
)
"""Its passes have 10, 4, 3 and 3 batches."""
SIZES = {"plan": {"schedule": PLAN}, "constant": {"batch_size": 4}}
RELOAD = {"reload_dataloaders_every_n_epochs": 1}


def new_loader(workers=0, **sizes):
    sampler = VariableBatchSampler(SAMPLES, **(sizes or SIZES["plan"]))
    return DataLoader(
        range(SAMPLES), batch_sampler=sampler, num_workers=workers, collate_fn=list
    )


def passes(count=EPOCHS, **sizes):
    sampler = VariableBatchSampler(SAMPLES, **(sizes or SIZES["plan"]))
    return [list(sampler) for _ in range(count)]


class Learns(lightning.LightningModule):
    """Remembers the batches of each epoch."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)
        self.lr = 0.1
        self.seen, self.validated = {}, []

    def training_step(self, batch):
        self.seen.setdefault(self.current_epoch, []).append(batch)
        return self.linear(torch.ones(1, 1)).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr)


class Validates(Learns):
    def validation_step(self, batch):
        if not self.trainer.sanity_checking:
            trained = sum(map(len, self.seen.values()))
            self.validated.append((trained, batch))


class Estimates(Learns):
    def configure_optimizers(self):
        self.estimate = self.trainer.estimated_stepping_batches
        return super().configure_optimizers()


def fit(folder, loader, model=None, val=None, **keywords):
    model = Learns() if model is None else model
    new_trainer(folder, **keywords).fit(model, loader, val)
    return list(model.seen.values())


def new_trainer(folder, **keywords):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return lightning.Trainer(
        **{"max_epochs": EPOCHS, "enable_checkpointing": False} | keywords,
        accelerator="cpu",
        devices=1,
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("sizes", SIZES)
def test_one_batch_is_not_taken_for_all(sizes, workers, tmp_path):
    first = [found[:1] for found in passes(**SIZES[sizes])]
    loader = new_loader(workers, **SIZES[sizes])
    assert fit(tmp_path, loader, limit_train_batches=1) == first
    loader = new_loader(workers, **SIZES[sizes])
    assert fit(tmp_path, loader, fast_dev_run=True) == first[:1]


def test_a_share_is_of_each_pass_or_refused(tmp_path):
    halves = [found[: len(found) // 2] for found in passes()]
    got = fit(tmp_path, new_loader(), limit_train_batches=0.5, **RELOAD)
    assert got == halves
    with pytest.raises(ValueError, match="got 2 batches where Lightning stops after 5"):
        fit(tmp_path, new_loader(), limit_train_batches=0.5)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("sizes", SIZES)
def test_overfitting_trains_the_same_batches_in_every_epoch(sizes, workers, tmp_path):
    loader = new_loader(workers, **SIZES[sizes])
    first = passes(1, **SIZES[sizes])[0]
    assert fit(tmp_path, loader, overfit_batches=3) == [first[:3]] * EPOCHS


def test_an_estimate_of_the_updates_is_right_or_refused(tmp_path):
    for options, expected in (
        ({"batch_size": 4}, 40),
        ({"batch_size": 4, "accumulate_grad_batches": 3}, 16),
        ({"max_steps": 20}, 20),
        ({"max_steps": 9}, 9),
        ({"max_epochs": 1}, 10),
    ):
        model = Estimates()
        sizes = {"batch_size": 4} if "batch_size" in options else SIZES["plan"]
        rest = {key: value for key, value in options.items() if key != "batch_size"}
        fit(tmp_path, new_loader(**sizes), model, **rest)
        assert model.estimate == expected, options
    for options in ({}, {"max_steps": 21}, {"limit_train_batches": 0.5}):
        with pytest.raises(ValueError, match="estimated_stepping_batches must not"):
            fit(tmp_path, new_loader(), Estimates(), **RELOAD, **options)


def test_workers_that_drew_for_an_estimate_before_the_checkpoint_was_read(tmp_path):
    path = tmp_path / "saved.ckpt"
    trainer = new_trainer(tmp_path, max_epochs=2)
    trainer.fit(Learns(), new_loader(batch_size=4))
    trainer.save_checkpoint(path)
    model = Estimates()
    trainer = new_trainer(tmp_path)
    trainer.fit(model, new_loader(batch_size=4), ckpt_path=path)
    assert list(model.seen.values()) == passes(batch_size=4)[2:]
    loader = new_loader(2, batch_size=4)
    with pytest.raises(ValueError, match="workers that drew from pass 0 where epoch 2"):
        new_trainer(tmp_path).fit(Estimates(), loader, ckpt_path=path)


def test_a_pass_is_not_cut_or_repeated_beside_another_loader(tmp_path):
    def other(batches):
        return DataLoader(range(batches), batch_size=1)

    def fit_beside(batches, mode):
        loaders = combined.CombinedLoader([new_loader(), other(batches)], mode)
        return [
            [both[0] for both in found] for found in fit(tmp_path, loaders, **RELOAD)
        ]

    whole = passes()
    assert fit_beside(2, "max_size_cycle") == whole
    assert fit_beside(10, "min_size") == whole
    longer = fit_beside(12, "max_size")
    assert [
        found[: len(one)] for found, one in zip(longer, whole, strict=True)
    ] == whole
    assert all(batch is None for batch in longer[0][10:])
    with pytest.raises(
        ValueError, match="must not cut the sampler's pass of 10 batches"
    ):
        fit_beside(7, "min_size")
    with pytest.raises(ValueError, match=r"must not repeat .* write CombinedLoader"):
        fit_beside(12, "max_size_cycle")


def test_validation_comes_where_it_was_said_or_is_refused(tmp_path):
    val = DataLoader([0], collate_fn=list)
    for share, expected in (
        (1.0, [10, 14, 17, 20]),
        (0.5, [5, 10, 12, 14, 15, 16, 17]),
    ):
        model = Validates()
        fit(tmp_path, new_loader(), model, val, val_check_interval=share, **RELOAD)
        assert [trained for trained, _ in model.validated][: len(expected)] == expected
        with pytest.raises(ValueError, match="got 4 batches where Lightning validates"):
            fit(tmp_path, new_loader(), Validates(), val, val_check_interval=share)
    model = Validates()
    fit(
        tmp_path,
        new_loader(),
        model,
        val,
        val_check_interval=6,
        check_val_every_n_epoch=None,
    )
    assert [trained for trained, _ in model.validated] == [6, 12, 18]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_sampler_of_a_validation_loader_goes_by_the_epoch(workers, tmp_path):
    model = Validates()
    val = new_loader(workers, batch_size=10)
    fit(
        tmp_path,
        new_loader(),
        model,
        val,
        val_check_interval=0.5,
        max_epochs=2,
        **RELOAD,
    )
    drawn = [batch for _, batch in model.validated]
    first, second = passes(2, batch_size=10)
    assert drawn == first + first + second + second
    model.validated.clear()
    new_trainer(tmp_path).validate(model, val, verbose=False)
    assert [batch for _, batch in model.validated] == first

    def shrink(position):
        return 10 if position < SAMPLES else 5

    model = Validates()
    train, val = new_loader(batch_size=4), new_loader(schedule=shrink)
    with pytest.raises(ValueError, match="got 8 batches where Lightning's evaluation"):
        fit(tmp_path, train, model, val)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_second_fit_draws_the_passes_of_its_epochs(workers, tmp_path):
    loader, whole = new_loader(workers), passes()
    trainer = new_trainer(tmp_path, max_epochs=1, **RELOAD)
    model = Learns()
    trainer.fit(model, loader)
    trainer.fit_loop.max_epochs = 3
    trainer.fit(model, loader)
    assert list(model.seen.values()) == whole[:3]
    # A new Trainer counts from 0.
    assert fit(tmp_path, loader, max_epochs=2, **RELOAD) == whole[:2]


@pytest.mark.parametrize("workers", [0, 2])
def test_looking_for_a_learning_rate_leaves_the_passes_alone(workers, tmp_path):
    loader = new_loader(workers)
    trainer = new_trainer(tmp_path, **RELOAD)
    model = Learns()
    tuner.Tuner(trainer).lr_find(
        model, loader, num_training=12, early_stop_threshold=None, update_attr=False
    )
    model.seen.clear()
    trainer.fit(model, loader)
    assert list(model.seen.values()) == passes()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_looked_at_before_fit_shifts_nothing(workers, tmp_path):
    loader = new_loader(workers)
    next(iter(loader))
    assert fit(tmp_path, loader, **RELOAD) == passes()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_against_what_was_loaded_or_set_is_refused(workers, tmp_path):
    def prepared(act):
        loader = new_loader(workers)
        act(loader.batch_sampler)
        return loader

    saved = VariableBatchSampler(SAMPLES, **SIZES["plan"])
    list(saved)
    state = saved.state_dict()
    for act in (
        lambda sampler: sampler.set_epoch(1),
        lambda sampler: sampler.load_state_dict(state),
        list,
    ):
        with pytest.raises(
            ValueError, match=r"must be 1, the pass due.*set_epoch\(0\)"
        ):
            fit(tmp_path, prepared(act), **RELOAD)
    state["epoch"] = 0
    state |= {"samples_consumed_global": 12, "batches_yielded": 3}
    got = fit(
        tmp_path, prepared(lambda sampler: sampler.load_state_dict(state)), **RELOAD
    )
    assert got == [passes()[0][3:], *passes()[1:]]


def test_a_pass_set_in_a_hook_is_obeyed(tmp_path):
    class Shifts(Learns):
        def on_train_epoch_start(self):
            sampler = self.trainer.train_dataloader.batch_sampler
            sampler.set_epoch(self.current_epoch + 1)

    got = fit(tmp_path, new_loader(), Shifts(), max_epochs=3, **RELOAD)
    assert got == passes()[1:]


def test_a_number_of_steps_ends_within_a_pass_and_is_not_gone_on_with(tmp_path):
    # Lightning counts the pass that it left, and would go on in the next one's middle.
    expected = [batch for one in passes() for batch in one]
    for steps in (12, 14):
        path = tmp_path / f"{steps}.ckpt"
        model = Learns()
        trainer = new_trainer(tmp_path, max_steps=steps)
        trainer.fit(model, new_loader())
        trainer.save_checkpoint(path)
        assert [b for one in model.seen.values() for b in one] == expected[:steps]
        trainer = new_trainer(tmp_path, max_steps=20)
        with pytest.raises(ValueError, match="max_steps must be -1 where Lightning"):
            trainer.fit(Learns(), new_loader(), ckpt_path=path)


def test_loaders_within_loaders_are_seen_through(tmp_path):
    class Wraps(DataLoader):
        def __iter__(self):
            return self.made()

        def made(self):
            return self.made_anew()

        def made_anew(self):
            return super().__iter__()

    sampler = VariableBatchSampler(SAMPLES, **SIZES["plan"])
    loader = Wraps(
        range(SAMPLES), batch_sampler=sampler, num_workers=2, collate_fn=list
    )
    assert fit(tmp_path, loader, **RELOAD) == passes()


class Steps(Learns):
    """Steps after an update's last piece."""

    def __init__(self, sampler):
        super().__init__()
        self.sampler = sampler
        self.automatic_optimization = False
        self.steps = 0

    def training_step(self, batch, batch_idx):
        piece = self.sampler.piece(batch_idx)
        self.manual_backward(super().training_step(batch) * piece.weight)
        if piece.last:
            self.optimizers().step()
            self.optimizers().zero_grad()
            self.steps += 1


def test_pieces_are_no_updates_of_their_own(tmp_path):
    pieces = {**SIZES["plan"], "micro_batch": 3}
    with pytest.raises(
        ValueError, match=r"micro_batch must be None .* got 3: set self"
    ):
        fit(tmp_path, new_loader(**pieces))
    loader = new_loader(**pieces)
    model = Steps(loader.batch_sampler)
    assert fit(tmp_path, loader, model, **RELOAD) == passes(**pieces)
    assert model.steps == PLAN.updates
