"""Lightning's Trainer from its checkpoints: the passes due, whoever draws ahead."""

import itertools
import logging
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

import batchramp

lightning = pytest.importorskip("lightning.pytorch")
torchdata = pytest.importorskip("torchdata.stateful_dataloader")

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers:UserWarning",
    "ignore:.*has no `.*_dataloader`:UserWarning",
    "ignore:.*your dataloader is not resumable:UserWarning",
    "ignore:.*LeafSpec:FutureWarning",
    "ignore:Checkpoint directory .* exists and is not empty:UserWarning",
    "ignore:.*isinstance.treespec, LeafSpec.:DeprecationWarning",
)

SAMPLES, EPOCHS = 40, 4
GROWING = batchramp.plan(
    "smith-increase",
    num_samples=SAMPLES,
    epochs=EPOCHS,
    batch_size=4,
    max_batch_size=16,
)
"""Its passes have 10, 4, 3 and 3 batches."""
LOADERS = {"plain": DataLoader, "stateful": torchdata.StatefulDataLoader}
SAVES = {
    "mid": ({"every_n_train_steps": 4}, 13, 12),
    "last batch": ({"every_n_train_steps": 7}, 15, 14),
    "end": ({"every_n_epochs": 1, "save_on_train_epoch_end": True}, 15, 14),
}
"""When a checkpoint is saved, the update at which all is lost, and the one after it."""


def new_sampler(sizes="plan"):
    if sizes == "plan":
        return batchramp.VariableBatchSampler(SAMPLES, schedule=GROWING)
    return batchramp.VariableBatchSampler(SAMPLES, 10)


def whole(sizes="plan"):
    sampler = new_sampler(sizes)
    return list(itertools.chain(*(list(sampler) for _ in range(EPOCHS))))


class Lost(Exception):
    """The machine is lost."""


class Learns(lightning.LightningModule):
    """Says which samples an update trains."""

    def __init__(self, trained):
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)
        self.trained = trained

    def training_step(self, batch):
        self.trained(self.global_step, batch)
        return self.linear(torch.zeros(1, 1)).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def train(
    trained,
    folder,
    sizes,
    kind,
    workers,
    save,
    *,
    resume=True,
    module=Learns,
    **keywords,
):
    """Trains from the last checkpoint of a folder on."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    keep = lightning.callbacks.ModelCheckpoint(
        folder, save_last=True, save_top_k=-1, **SAVES[save][0]
    )
    trainer = lightning.Trainer(
        **{"max_epochs": EPOCHS} | keywords,
        accelerator="cpu",
        devices=1,
        callbacks=[keep],
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = LOADERS[kind](
        range(SAMPLES),
        batch_sampler=new_sampler(sizes),
        num_workers=abs(workers),
        persistent_workers=workers < 0,
        collate_fn=list,
    )
    last = Path(folder, "last.ckpt")
    trainer.fit(Learns(trained), loader, ckpt_path=last if last.exists() else None)


def lose(folder, at, *arguments, **keywords):
    """Trains up to an update, and returns the updates and their samples."""
    seen = []

    def trained(update, samples):
        seen.append((update, samples))
        if update == at:
            raise Lost

    with pytest.raises(Lost):
        train(trained, folder, *arguments, **keywords)
    return seen


def go_on(folder, *arguments, **keywords):
    seen = []
    train(
        lambda update, samples: seen.append((update, samples)),
        folder,
        *arguments,
        **keywords,
    )
    return seen


@pytest.mark.parametrize(
    ("sizes", "workers", "reload"),
    [
        ("plan", 0, 1),
        ("plan", 2, 0),
        ("plan", 2, 1),
        ("plan", -2, 0),
        ("constant", 2, 1),
    ],
)
@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("kind", LOADERS)
def test_a_resume_trains_the_passes_due(kind, save, sizes, workers, reload, tmp_path):
    expected = list(enumerate(whole(sizes)))
    _, at, first = SAVES[save]
    if sizes == "constant":  # passes of 4 batches
        first = {"mid": 12, "last batch": 7, "end": 12}[save]
        at = first + 1
    run = (sizes, kind, workers, save)
    options = {"reload_dataloaders_every_n_epochs": reload}
    assert lose(tmp_path, at, *run, **options) == expected[: at + 1]
    assert go_on(tmp_path, *run, **options) == expected[first:]


def resume_killed(trained, folder, kind, workers, save, reload):
    options = {"reload_dataloaders_every_n_epochs": reload}
    train(trained, folder, "plan", kind, workers, save, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "workers", "reload"),
    [("plain", 0, 0), ("plain", 2, 1), ("stateful", 0, 1), ("stateful", 2, 0)],
)
@pytest.mark.parametrize("save", ["mid", "end"])
def test_a_killed_training_goes_on_from_its_last_checkpoint(
    kind, workers, reload, save, killed
):
    _, at, first = SAVES[save]
    assert killed(resume_killed, kind, workers, save, reload, at=at) == first
