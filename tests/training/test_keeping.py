"""A look leaves a model's state as it was, and moves neither training nor other columns."""

from dataclasses import asdict
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from batchramp.schedules import make
from batchramp.training.keeping import state_kept
from batchramp.training.loop import run_trial
from batchramp.training.trial import Trial
from batchramp.workloads import Data, Split, Workload

N = 60


class Attribute(nn.Module):
    def __init__(self):
        super().__init__()
        self.n = 0

    def forward(self, inputs):
        self.n += 1
        return inputs * (1 + 0.01 * self.n)


class Plain(Attribute):
    """Counts in place, in a tensor that is no buffer."""

    def __init__(self):
        super().__init__()
        self.n = torch.zeros(())


class Buffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("n", torch.zeros(()))

    def forward(self, inputs):
        self.n += 1
        return inputs * (1 + 0.01 * self.n)


class Replaced(Buffer):
    def forward(self, inputs):
        self.n = self.n + 1
        return inputs * (1 + 0.01 * self.n)


class Behind(Buffer):
    """Writes behind autograd's back."""

    def forward(self, inputs):
        self.n.data.add_(1)
        return inputs * (1 + 0.01 * self.n)


class Registers(nn.Module):
    def forward(self, inputs):
        if not hasattr(self, "n"):
            self.register_buffer("n", torch.zeros(()))
        self.n += 1
        return inputs * (1 + 0.01 * self.n)


LAYERS = (Attribute, Plain, Buffer, Replaced, Behind, Registers)


def run(layer, **changes):
    inputs = torch.randn(N + 30, 4, generator=torch.Generator().manual_seed(2))
    targets = (inputs.sum(1) > 0).long()
    workload = Workload(
        name="w",
        load=lambda folder, seed: None,
        model=lambda: nn.Sequential(nn.Linear(4, 8), layer(), nn.Linear(8, 2)),
    )
    trial = Trial(
        workload=workload,
        schedule=make("constant", batch_size=8, lr=0.1),
        **{"seed": 0, "epochs": Fraction(4), "cadence": Fraction(1)} | changes,
    )
    data = Data(Split(inputs[:N], targets[:N]), Split(inputs[N:], targets[N:]))
    record = run_trial(trial, data, torch.device("cpu"))
    assert (record.status, record.notes) == ("finished", ()), record.error
    return {
        row.position: {
            name: value
            for name, value in asdict(row).items()
            if not name.endswith("_seconds") and value is not None
        }
        for row in record.rows
    }


@pytest.mark.parametrize("layer", LAYERS)
def test_looks_and_measures_change_nothing(layer):
    measures = ("full_train_loss", "gradient_norm", "batch_mean", "sharpness")
    bare = run(layer)
    full = run(layer, measures=dict.fromkeys(measures, Fraction(1, 2)))
    often = run(layer, cadence=Fraction(1, 3))
    for position, row in bare.items():
        assert row.items() <= full[position].items()
        without = {k: v for k, v in row.items() if k != "train_loss"}  # since the row
        assert without.items() <= often[position].items()
    for name in measures[:2]:
        alone = run(layer, measures={name: Fraction(1, 2)})
        for position, row in alone.items():
            assert row.items() <= full[position].items()


@pytest.mark.parametrize("layer", LAYERS)
def test_a_first_look_counts_nothing(layer):
    inputs, targets = torch.ones(8, 4), torch.zeros(8, dtype=torch.int64)
    made = []

    def model():
        made.append(nn.Sequential(nn.Linear(4, 2), layer()))
        return made[-1]

    data = Data(Split(inputs, targets), Split(inputs, targets))
    trial = Trial(
        workload=Workload(name="w", load=lambda folder, seed: None, model=model),
        schedule=make("constant", batch_size=4, lr=0.1),
        seed=0,
        epochs=Fraction(3),
        cadence=Fraction(1),
    )
    record = run_trial(trial, data, torch.device("cpu"))
    assert record.status == "finished", record.error
    assert float(made[0][1].n) == record.rows[-1].updates == 6


def test_all_is_put_back_after_an_error_too():
    model = nn.Sequential(nn.Linear(2, 2), Registers(), Plain(), Buffer())
    listed, buffer = [1], model[3].n
    model[2].listed = listed

    def look():
        with state_kept(model), torch.inference_mode():
            model(torch.ones(1, 2))
            model[2].listed, model[2].new = [2], 3
            model.eval()
            raise KeyError

    with pytest.raises(KeyError):
        look()
    assert all(module.training for module in model.modules())
    assert model[2].listed is listed
    assert model[3].n is buffer
    assert [float(model[2].n), float(model[3].n)] == [0, 0]
    assert list(model[1].buffers()) == []
    assert not hasattr(model[2], "new")


def test_memory_that_cannot_be_written_is_left_alone(tmp_path):
    np.save(tmp_path / "table.npy", np.arange(6.0))
    table = np.load(tmp_path / "table.npy", mmap_mode="r")
    model = nn.Linear(2, 2)
    with pytest.warns(UserWarning, match="not writable"):
        model.register_buffer("table", torch.from_numpy(table))
    model.register_buffer("wide", torch.zeros(1).expand(5))
    with state_kept(model):
        model(torch.ones(1, 2))
    assert model.table.tolist() == list(range(6))


def test_scripted_models():
    with pytest.warns(FutureWarning, match="deprecated"):
        model = torch.jit.script(nn.Sequential(nn.Linear(2, 2), Buffer()))
    with state_kept(model):
        model(torch.ones(1, 2))
    assert float(model[1].n) == 0
