"""The code of docs/trainers.md runs as it stands, where its library is installed."""

import re
from pathlib import Path

import pytest
import torch
from torch import distributed, nn

TEXT = (Path(__file__).parents[2] / "docs" / "trainers.md").read_text()
BEGINNING, *SECTIONS = re.split(r"^## ", TEXT, flags=re.MULTILINE)
NEEDED = {
    "StatefulDataLoader": "torchdata",
    "Lightning": "lightning.pytorch",
    "Accelerate": "accelerate",
    "transformers' Trainer": "transformers",
    "Ignite": "ignite",
}
SAMPLES = 101

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers:UserWarning",
    "ignore:.*logging interval:UserWarning",
    "ignore:.*no logger configured:UserWarning",
    "ignore:.*LeafSpec:FutureWarning",
    "ignore:.*isinstance.treespec, LeafSpec.:DeprecationWarning",
)


def title(section):
    return section.partition("\n")[0]


def code(section):
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def names(seen):
    """What the page takes for granted; `seen` collects the samples of each update."""
    dataset = torch.utils.data.TensorDataset(
        torch.arange(SAMPLES), torch.linspace(-1, 1, SAMPLES)[:, None]
    )
    model = nn.Linear(1, 1)

    def loss_of(model, batch):
        seen.append(batch[0].tolist())
        return model(batch[1]).square().mean()

    def train_step(batch):
        loss_of(model, batch).backward()

    return {
        "dataset": dataset,
        "model": model,
        "loss_of": loss_of,
        "train_step": train_step,
    }


def lightning_module(given):
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = given["model"]

        def training_step(self, batch):
            return given["loss_of"](self.model, batch)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    return Module()


class Rows(torch.utils.data.Dataset):
    """What transformers' Trainer draws from."""

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        return {"index": index, "x": torch.tensor([index / SAMPLES])}


class Computes(nn.Module):
    def __init__(self, given):
        super().__init__()
        self.given, self.model = given, given["model"]

    def forward(self, index, x):
        return {"loss": self.given["loss_of"](self.model, (index, x))}


@pytest.mark.parametrize("section", SECTIONS, ids=title)
def test_the_code_of_each_section_runs(section, tmp_path, monkeypatch):
    if title(section) in NEEDED:
        pytest.importorskip(NEEDED[title(section)])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    seen = []
    given = names(seen)
    if title(section) == "Lightning":
        given["lightning_module"] = lightning_module(given)
    if title(section) == "transformers' Trainer":
        given |= {"hf_dataset": Rows(), "hf_model": Computes(given)}
    if title(section) == "DDP":
        store = f"file://{tmp_path}/store"
        distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        for block in (*code(BEGINNING), *code(section)):
            exec(block, given)
    finally:
        if title(section) == "DDP":
            distributed.destroy_process_group()
    first = list(
        given["batchramp"].VariableBatchSampler(SAMPLES, schedule=given["plan"])
    )
    if title(section).startswith("Indices"):
        assert not seen
    elif title(section).startswith("Where"):
        assert [len(batch) for batch in seen] == [8] * 10 + [16]
    else:
        assert seen[: len(first)] == first
    if title(section) in ("transformers' Trainer", "Ignite"):
        assert len(seen) == given["plan"].updates


def test_every_section_names_what_it_refuses_or_needs():
    assert {title(section) for section in SECTIONS} >= set(NEEDED)
