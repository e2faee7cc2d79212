"""Lightning's Trainer and Fabric: nothing is rebuilt without a word, no pass is cut."""

import itertools
import logging
import os

import pytest
import torch
from torch.utils.data import DataLoader, SequentialSampler, TensorDataset

from batchramp.sampler import VariableBatchSampler

lightning = pytest.importorskip("lightning.pytorch")
fabric = pytest.importorskip("lightning.fabric")

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers:UserWarning",
    "ignore:.*has no `.*_dataloader`:UserWarning",
    "ignore:.*logging interval:UserWarning",
    "ignore:.*LeafSpec:FutureWarning",
    "ignore:Checkpoint directory .* exists and is not empty:UserWarning",
    "ignore:.*isinstance.treespec, LeafSpec.:DeprecationWarning",
)

SAMPLES = 53
REBUILT = "sampler must not be replaced in a copy that keeps batch_size"


def even(position):
    return 3 + position // 7 % 5


def grow(position):
    return 5 if position < SAMPLES else 10


def shrink(position):
    return 10 if position < SAMPLES else 5


def loader_of(sampler, **keywords):
    data = TensorDataset(torch.arange(SAMPLES))
    return DataLoader(data, batch_sampler=sampler, **keywords)


def passes(count, **keywords):
    sampler = VariableBatchSampler(SAMPLES, **keywords)
    return [list(sampler) for _ in range(count)]


class Tiny(lightning.LightningModule):
    """Remembers the batches of each epoch; builds its sampler in the hook, if told how."""

    def __init__(self, **keywords):
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)
        self.keywords = keywords
        self.seen = {}

    def training_step(self, batch):
        self.seen.setdefault(self.current_epoch, []).append(batch[0].tolist())
        return self.linear(batch[0][:, None].float()).mean() * 0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Hooked(Tiny):
    def train_dataloader(self):
        return loader_of(VariableBatchSampler(SAMPLES, **self.keywords))


def new_trainer(folder, **keywords):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return lightning.Trainer(
        **{"devices": 1, "max_epochs": 3, "enable_checkpointing": False} | keywords,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def message(function, *arguments):
    """What a call refuses with."""
    try:
        return f"returned {function(*arguments)}"
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("sizes", [{"batch_size": 6}, {"schedule": grow}])
def test_epochs_are_passes(tmp_path, sizes):
    model = Tiny()
    sampler = VariableBatchSampler(SAMPLES, **sizes)
    new_trainer(tmp_path).fit(model, loader_of(sampler))
    assert list(model.seen.values()) == passes(3, **sizes)


def test_passes_that_would_be_cut_are_refused(tmp_path):
    sampler = VariableBatchSampler(SAMPLES, schedule=shrink)
    with pytest.raises(
        ValueError, match="got 11 batches where Lightning stops after 6"
    ):
        new_trainer(tmp_path).fit(Tiny(), loader_of(sampler))
    model = Tiny()
    sampler = VariableBatchSampler(SAMPLES, schedule=shrink)
    trainer = new_trainer(tmp_path, reload_dataloaders_every_n_epochs=1)
    trainer.fit(model, loader_of(sampler))
    assert list(model.seen.values()) == passes(3, schedule=shrink)


@pytest.mark.parametrize("reload", [0, 1])
def test_a_pass_that_workers_draw_at_once_is_not_cut_to_the_next_ones_length(
    tmp_path, reload
):
    def double(position):
        return 18 if position < SAMPLES else 30

    model = Tiny()
    loader = loader_of(VariableBatchSampler(SAMPLES, schedule=double), num_workers=2)
    trainer = new_trainer(tmp_path, reload_dataloaders_every_n_epochs=reload)
    trainer.fit(model, loader)
    assert [len(found) for found in model.seen.values()] == [3, 2, 2]
    assert list(model.seen.values()) == passes(3, schedule=double)


def test_a_limit_that_was_asked_for_is_kept(tmp_path):
    model = Tiny()
    sampler = VariableBatchSampler(SAMPLES, schedule=shrink)
    new_trainer(tmp_path, limit_train_batches=4).fit(model, loader_of(sampler))
    assert list(model.seen.values()) == [
        found[:4] for found in passes(3, schedule=shrink)
    ]


def test_a_checkpoint_at_an_epochs_end_resumes_in_the_next_pass(tmp_path):
    trainer = new_trainer(tmp_path, max_epochs=1)
    trainer.fit(Tiny(), loader_of(VariableBatchSampler(SAMPLES, 6)))
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    model = Tiny()
    loader = loader_of(VariableBatchSampler(SAMPLES, 6))
    new_trainer(tmp_path).fit(model, loader, ckpt_path=tmp_path / "saved.ckpt")
    assert list(model.seen.values()) == passes(3, batch_size=6)[1:]


def work(folder):
    """What one of two processes sees."""
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    share = {"rank": rank, "world_size": world_size, "boundary": "drop"}

    def in_lightning(module, sampler=None, **options):
        trainer = new_trainer(
            folder, max_epochs=2, devices=2, strategy="ddp", **options
        )
        trainer.fit(module, None if sampler is None else loader_of(sampler))
        return list(module.seen.values())

    def alone(**keywords):
        return VariableBatchSampler(SAMPLES, boundary="drop", **keywords)

    found = {
        "own share": in_lightning(
            Tiny(),
            VariableBatchSampler(SAMPLES, schedule=even, **share),
            use_distributed_sampler=False,
            reload_dataloaders_every_n_epochs=1,
        ),
        "hook": in_lightning(Hooked(schedule=even, boundary="drop")),
        "hook, per process": in_lightning(Hooked(batch_size=6, boundary="drop")),
        "rebuilt schedule": message(in_lightning, Tiny(), alone(schedule=even)),
        "rebuilt size": message(in_lightning, Tiny(), alone(batch_size=6)),
        "rebuilt share": message(
            in_lightning, Tiny(), VariableBatchSampler(SAMPLES, 6, **share)
        ),
        "hook, twice": message(in_lightning, Hooked(batch_size=6, **share)),
        "hook, seed": message(
            in_lightning, Hooked(batch_size=6, boundary="drop", seed=3)
        ),
    }
    launched = fabric.Fabric(accelerator="cpu", devices=2, strategy="ddp")
    launched.launch()

    def in_fabric(sampler, **options):
        loader = launched.setup_dataloaders(loader_of(sampler), **options)
        return [[batch[0].tolist() for batch in loader] for _ in range(2)]

    mine = VariableBatchSampler(SAMPLES, schedule=even, **share)
    found["fabric, own share"] = in_fabric(mine, use_distributed_sampler=False)
    found["fabric, rebuilt"] = message(in_fabric, alone(schedule=even))
    found["fabric, rebuilt size"] = message(in_fabric, alone(batch_size=6))

    # Under `launch(function)` Fabric copies all arguments, and puts in a
    # DistributedSampler that does not shuffle. (Last, as it never takes back what it
    # patched when the function raises.)
    def train(running, order):
        loader = loader_of(alone(schedule=even, order=order))
        return [batch[0].tolist() for batch in running.setup_dataloaders(loader)]

    found["launched, in order"] = launched.launch(train, "sequential")
    found["launched, shuffled"] = message(launched.launch, train, "auto")
    return found


@pytest.mark.timeout(240)
def test_two_processes_share_batches_or_are_told_what_to_write(in_processes, tmp_path):
    for rank, found in enumerate(in_processes(work, str(tmp_path))):
        share = {"rank": rank, "world_size": 2, "boundary": "drop"}
        for what in ("own share", "hook", "fabric, own share"):
            assert found[what] == passes(2, schedule=even, **share), what
        assert found["hook, per process"] == passes(2, batch_size=12, **share)
        for what in (
            "rebuilt schedule",
            "rebuilt size",
            "rebuilt share",
            "fabric, rebuilt",
            "fabric, rebuilt size",
        ):
            told = found[what].startswith((REBUILT, "either batch_size or schedule"))
            assert told, (what, found[what])
            assert "use_distributed_sampler=False" in found[what]
        told = found["launched, shuffled"]
        assert told.startswith("sampler must be shuffled as the batch sampler is"), told
        ordered = VariableBatchSampler(
            SequentialSampler(range(SAMPLES)), schedule=even, **share
        )
        assert found["launched, in order"] == list(ordered)
        assert found["hook, twice"].startswith("rank and world_size must be left out")
        assert found["hook, seed"].startswith("seed must agree with")


def test_prediction_comes_in_the_order_of_the_data(tmp_path):
    class Predicts(Tiny):
        def predict_step(self, batch):
            return batch[0]

    loader = loader_of(VariableBatchSampler(SAMPLES, 6))
    got = new_trainer(tmp_path).predict(Predicts(), loader)
    assert torch.cat(got).tolist() == list(range(SAMPLES))
    loader = loader_of(VariableBatchSampler(SAMPLES, schedule=even))
    with pytest.raises(ValueError, match="either batch_size or schedule must be given"):
        new_trainer(tmp_path).predict(Predicts(), loader)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_checkpoint_within_an_epoch_resumes_with_a_stateful_loader(tmp_path, workers):
    torchdata = pytest.importorskip("torchdata.stateful_dataloader")

    def fit(**keywords):
        model = Tiny()
        loader = torchdata.StatefulDataLoader(
            TensorDataset(torch.arange(SAMPLES)),
            batch_sampler=VariableBatchSampler(SAMPLES, 6),
            num_workers=workers,
        )
        keep = lightning.callbacks.ModelCheckpoint(
            tmp_path, every_n_train_steps=13, save_top_k=-1, filename="{step}"
        )
        trainer = new_trainer(tmp_path, enable_checkpointing=True, callbacks=[keep])
        trainer.fit(model, loader, **keywords)
        return list(itertools.chain(*model.seen.values()))

    whole = fit()
    assert whole == list(itertools.chain(*passes(3, batch_size=6)))
    assert fit(ckpt_path=tmp_path / "step=13.ckpt") == whole[13:]
