"""What the README and the docs show can be typed as it stands."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from batchramp.benchmark.runner import run
from batchramp.cli import cli

ROOT = Path(__file__).parents[1]


def blocks(file, language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / file).read_text(), re.DOTALL)


COMMANDS = [
    line.partition("#")[0].strip()
    for block in blocks("README.md", "sh")
    for line in block.splitlines()
    if line.startswith("batchramp ")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one(command):
    name, *arguments = shlex.split(command)[1:]
    cli.commands[name].make_context(name, arguments)


def test_the_import_runs_in_eight_lines():
    (source,) = (b for b in blocks("README.md", "python") if "DataLoader" in b)
    lines = [line for line in source.splitlines() if line.strip()]
    assert len(lines) - 1 <= 8  # the ellipsis stands for the reader's own loop
    sizes = []
    source = source.replace("range(200)", "range(61)").replace(
        "...", "sizes.append(len(inputs))"
    )
    numbers = torch.arange(6000)
    dataset = torch.utils.data.TensorDataset(numbers, numbers)
    exec(source, {"dataset": dataset, "sizes": sizes})
    assert sizes[0] == 128
    assert sizes[-2] == 640
    assert sum(sizes) == 61 * 6000


def test_the_documented_suite_and_workload_run(tmp_path):
    (suite,) = blocks("docs/suites.md", "toml")
    (workload,) = blocks("docs/suites.md", "python")
    (tmp_path / "my_workload.py").write_text(workload)
    short = suite.replace("epochs = 12 ", "epochs = 1 ")
    own = short.replace('workload = "digits"', 'workload = "my_workload.py:rings"')
    assert short != own != suite
    for name, text in (("a", short), ("b", own)):
        (tmp_path / f"{name}.toml").write_text(text)
        results = run(tmp_path / f"{name}.toml", out=tmp_path / name, seeds=1)
        assert set(results.rows["schedule"]) == {"cosine 32", "ramp 8 to 128"}
        assert set(results.rows["status"]) == {"finished"}


def test_every_column_is_documented(tmp_path):
    from batchramp.benchmark.results import COLUMNS

    text = (ROOT / "docs/results.md").read_text()
    for column in (*COLUMNS, "trial", "panel", "schedule"):
        assert f"`{column}`" in text


def test_the_lines_about_the_sampler_run():
    names = {}
    for source in blocks("docs/sampler.md", "python"):
        exec(source, names)
    assert names["updates"] == 391


def test_the_lines_about_gradient_variance_run():
    names = {}
    for source in blocks("docs/gradient-variance.md", "python"):
        exec(source, names)
    assert names["noise"].count == 20
