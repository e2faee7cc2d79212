"""Workloads and schedules that an installed package registers."""

import sys

import pytest

from batchramp.benchmark.runner import run
from batchramp.schedules import make
from batchramp.workloads import find_workload

SUITE = """
name = "plugged"
workload = "plugged-digits"
epochs = 1
seeds = 1

[[panel]]
baseline = "plugged"
targets = ["metric >= 0.5"]

[[panel.entry]]
label = "plugged"
schedule = "plugged-constant"
set = { size = 64 }
"""
MODULE = """
from dataclasses import replace

from batchramp.schedules import make
from batchramp.workloads import find_workload

digits = replace(find_workload("digits"), name="plugged")


def constant(size=32):
    return make("constant", batch_size=size, lr=0.1)
"""
POINTS = """
[batchramp.workloads]
plugged-digits = plugged_batchramp:digits

[batchramp.schedules]
plugged-constant = plugged_batchramp:constant
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    site = tmp_path / "site"
    metadata = site / "plugged-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\n")
    (metadata / "entry_points.txt").write_text(POINTS)
    (site / "plugged_batchramp.py").write_text(MODULE)
    monkeypatch.syspath_prepend(site)
    yield site
    sys.modules.pop("plugged_batchramp", None)


def test_entry_points_are_found_and_run(installed, tmp_path):
    assert find_workload("plugged-digits").name == "plugged"
    assert make("plugged-constant", size=8).parameters()["batch_size"] == 8
    with pytest.raises(ValueError, match="unknown parameter of plugged-constant"):
        make("plugged-constant", sise=8)
    (tmp_path / "suite.toml").write_text(SUITE)
    first = run(tmp_path / "suite.toml", out=tmp_path / "a")
    assert first.rows["updates"].max() == 21
    module = installed / "plugged_batchramp.py"
    module.write_text(MODULE + "# edited\n")
    edited = run(tmp_path / "suite.toml", out=tmp_path / "b")
    assert set(first.rows["trial"]).isdisjoint(edited.rows["trial"])


def test_without_the_package_the_names_are_unknown():
    with pytest.raises(ValueError, match="unknown schedule 'plugged-constant'"):
        make("plugged-constant")
