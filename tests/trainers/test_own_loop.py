"""The whole loop of docs/trainers.md, broken off anywhere, trains what a whole one does."""

import contextlib
import re
from pathlib import Path

import pytest
import torch
from torch import nn

TEXT = (Path(__file__).parents[2] / "docs" / "trainers.md").read_text()
BEGINNING, LOOP = (
    "".join(re.findall(r"```python\n(.*?)```", part, re.DOTALL))
    for part in (
        TEXT.partition("## ")[0],
        TEXT.partition("## A loop of your own\n")[2].partition("\n## ")[0],
    )
)


class BrokenOffError(Exception):
    pass


def train(folder, monkeypatch, stop):
    """Run the page's code in a folder; break off at a piece. Returns model and pieces."""
    monkeypatch.chdir(folder)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))
    dataset = torch.utils.data.TensorDataset(
        torch.arange(53), torch.linspace(-1, 1, 53)[:, None]
    )
    seen = []

    def loss_of(model, batch):
        if len(seen) == stop:
            raise BrokenOffError
        seen.append(batch[0].tolist())
        return (model(batch[1]) - batch[1] ** 2).square().mean()

    names = {"dataset": dataset, "model": model, "loss_of": loss_of}
    exec(BEGINNING, names)
    with contextlib.suppress(BrokenOffError):
        exec(LOOP, names)
    return model.state_dict(), seen


@pytest.mark.parametrize("stop", [6, 23])
def test_a_loop_broken_off_goes_on_as_if_it_were_not(stop, tmp_path, monkeypatch):
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole, pieces = train(tmp_path / "whole", monkeypatch, None)
    _, before = train(tmp_path / "broken", monkeypatch, stop)
    after, rest = train(tmp_path / "broken", monkeypatch, None)
    assert before == pieces[:stop]
    assert rest == pieces[len(pieces) - len(rest) :]
    assert len(pieces) - len(rest) <= stop < len(pieces)
    assert max(map(len, pieces)) <= 8
    for name, value in whole.items():
        assert torch.equal(value, after[name]), name
