"""Several runs a side, copies of one, and runs that really were made."""

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import batchramp
from batchramp.benchmark.compare import compare, read_side
from batchramp.benchmark.suite import parse_suite

LOOKS = [2, 3, 4, 2, 3, 4, 4, 3]


def rows_of(comparison, schedule="a"):
    return {row.quantity: row for row in comparison.rows if row.schedule == schedule}


def texts(comparison, code):
    return [note.text for note in comparison.notes if note.code == code]


def test_several_runs_a_side_make_the_run_the_unit(side):
    generator = np.random.default_rng(4)

    def runs(name, pace, count=3):
        return [
            side(f"{name}{k}", pace=pace * math.exp(0.02 * generator.standard_normal()))
            for k in range(count)
        ]

    slower = compare(runs("x", 0.5), runs("y", 0.8, 4))
    row = rows_of(slower)["train_seconds"]
    assert (row.verdict, row.note) == ("slower", "")
    assert row.low < 1.6 < row.high
    assert (slower.base_runs, slower.new_runs) == (3, 4)
    assert rows_of(slower)["updates"].verdict == "equal"
    assert compare(runs("x", 0.5), runs("y", 0.5)).exit_code == 0


def test_the_runs_of_a_side_must_repeat_their_learning(side):
    other = [3, *LOOKS[1:]]
    base = [side("x"), side("y", other), side("z")]
    comparison = compare(base, [side(name) for name in "uvw"])
    row = rows_of(comparison)["updates"]
    assert row.verdict == "undecided"
    assert row.note == "the runs of base differ on 1 of 8 seeds"
    assert comparison.exit_code == 3
    asked = [side("x"), side("y", identity={"cadence": "2"}), side("z")]
    told = compare(asked, [side(name) for name in "uvw"])
    assert texts(told, 3) == ["cadence is 1 in base, 2 in base 2"]
    newer = [side(name, identity={"torch": "2.16.0"}) for name in "uvw"]
    told = compare([side(name) for name in "xyz"], newer)
    assert texts(told, 0) == ["torch is 2.15.0 in base, 2.16.0 in new, new 2 and new 3"]


def test_a_target_reached_in_some_runs_has_no_mean_of_seconds(side):
    partly = [side("u"), side("v"), side("w", [*LOOKS[:7], None])]
    row = rows_of(compare([side(name) for name in "xyz"], partly))["train_seconds"]
    assert row.verdict == "undecided"
    assert row.note == "1 of 8 seeds: reached in some runs only"
    assert (row.base_reached, row.base_trials) == (24, 24)
    assert (row.new_reached, row.new_trials) == (23, 24)


def test_a_trial_that_diverged_in_some_runs_has_no_mean_of_seconds(run_of, trial):
    def build(name, diverged=()):
        trials = [
            trial(
                look,
                id=f"{name}-{seed}",
                status="diverged" if seed in diverged else "finished",
            )
            for seed, look in enumerate(LOOKS)
        ]
        return run_of({"a": {"trials": trials}})

    base = [build(name) for name in "xyz"]
    comparison = compare(base, [build("u"), build("v"), build("w", [2])])
    row = rows_of(comparison)["total_train_seconds"]
    assert row.note == "1 of 8 seeds: diverged in some runs only"
    assert row.verdict == "undecided"
    gone = [build(name, range(8)) for name in "uvw"]
    row = rows_of(compare(gone, [build(name, range(8)) for name in "rst"]))
    assert row["total_train_seconds"].note == "diverged on both sides"


def copied(results):
    """The results, as a copy of their folder would be read."""
    return replace(results, rows=results.rows.clone())


def test_a_copy_of_a_run_is_no_run_of_its_own(side):
    runs = [side(name) for name in "uvwxyz"]
    told = r"runs must be measured by themselves, got base 2 and base 3 with 8 of 8"
    with pytest.raises(ValueError, match=told):
        compare([runs[0], runs[1], copied(runs[1])], runs[3:])
    with pytest.raises(ValueError, match="got base and new 3 with 8 of 8 trials equal"):
        compare(runs[:3], [*runs[3:5], copied(runs[0])])
    with pytest.raises(ValueError, match="got base and base 2"):
        compare([runs[0]] * 3, runs[3:])
    # A folder that was copied half way, and went on by itself.
    shared, own = runs[1].rows, runs[0].rows
    parts = [shared.filter(pl.col("seed") < 2), own.filter(pl.col("seed") >= 2)]
    mixed = replace(
        runs[0],
        rows=pl.concat(parts),
        metadata={**runs[0].metadata, **runs[1].metadata},
    )
    with pytest.raises(ValueError, match="got base and base 2 with 2 of 8 trials"):
        compare([mixed, *runs[1:3]], runs[3:])
    assert compare(runs[0], copied(runs[0])).exit_code == 0
    assert compare(runs[:3], runs[3:]).exit_code == 0


def test_of_several_runs_a_row_is_of_all_and_names_what_one_lost(side):
    base = [side(name) for name in "xyz"]
    new = [side("u"), side("v", LOOKS[:5]), side("w")]
    row = rows_of(compare(base, new))["updates"]
    assert (row.verdict, row.pairs, row.seeds) == ("equal", 5, 8)
    assert (row.base_trials, row.new_trials) == (15, 15)
    assert row.note == "new 2 has 5 of 8 seeds"
    # Runs that differ: the column is their mean, not the first one's.
    other = [side("u", [2] * 8), side("v", [4] * 8), side("w", [4] * 8)]
    row = rows_of(compare(base, other))["updates"]
    assert row.new == pytest.approx((20 * 40 * 40) ** (1 / 3))
    assert row.note == "the runs of new differ on 8 of 8 seeds"


def test_one_run_a_side_or_at_least_three(side):
    runs = [side(name) for name in "uvwxyz"]
    for base, new in ((runs[:2], runs[2:4]), (runs[:3], runs[3]), ([], runs[0])):
        with pytest.raises(ValueError, match="one run a side, or at least 3 on each"):
            compare(base, new)


SUITE = """
name = "gate"
workload = "digits"
epochs = 1
cadence = 0.25
seeds = 3
threads = 1

[[panel]]
baseline = "a"
targets = ["metric >= 0.5"]

[[panel.entry]]
label = "a"
schedule = "constant-cosine"
set = { lr = 0.5, batch_size = 32 }
"""


def test_real_runs_repeat_their_learning(tmp_path):
    folders = [tmp_path / "base", tmp_path / "x, y"]
    base, new = (batchramp.run(parse_suite(SUITE), out=folder) for folder in folders)
    comparison = compare(base, new, only=["planned_updates", "updates", "metric"])
    assert comparison.exit_code == 0
    assert {row.verdict for row in comparison.rows} == {"equal"}
    assert {row.pairs for row in comparison.rows} == {3}
    assert [note.code for note in comparison.notes if note.code] == []
    other = parse_suite(SUITE.replace("lr = 0.5", "lr = 0.4"))
    changed = compare(base, batchramp.run(other, out=tmp_path / "other"))
    assert changed.exit_code == 3
    assert "set.lr is 0.5 in base, 0.4 in new" in texts(changed, 3)
    # A folder's name may hold a comma; where there is none of that name, several do.
    assert [read.rows.height for read in read_side(str(folders[1]))] == [
        new.rows.height
    ]
    several = read_side(f"{folders[0]},{tmp_path / 'other'}")
    assert [read.rows.height for read in several] == [base.rows.height] * 2
    with pytest.raises(
        ValueError, match=r"runs of a side must differ, got .*base twice"
    ):
        read_side(f"{folders[0]},{folders[0]}/")
    with pytest.raises(ValueError, match="folders with commas between, got"):
        read_side(f"{folders[0]},")


WORKLOAD = """
from torch import Generator, nn, randn
from batchramp.workloads import Data, Split, Workload

def load(data_dir, seed):
    inputs = randn(300, 2, generator=Generator().manual_seed(seed % 2**63))
    targets = (inputs.norm(dim=1) > 1.2).long()
    return Data(Split(inputs[:200], targets[:200]), Split(inputs[200:], targets[200:]))

def model():
    return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))

own = Workload(name="own", load=load, model=model, targets=("metric >= 0.7",))
"""


def test_an_added_comment_changes_every_id_and_no_update(tmp_path):
    (tmp_path / "suite.toml").write_text(SUITE.replace('"digits"', '"own.py:own"'))
    sides = []
    for name, comment in (("base", ""), ("new", "# a comment\n")):
        (tmp_path / "own.py").write_text(comment + WORKLOAD)
        sides.append(batchramp.run(tmp_path / "suite.toml", out=tmp_path / name))
    assert not set(sides[0].metadata) & set(sides[1].metadata)
    comparison = compare(*sides, only=["updates", "samples", "metric"])
    assert {row.verdict for row in comparison.rows} == {"equal"}
    assert comparison.exit_code == 0
    assert any(
        "workload_sources.the file itself" in text for text in texts(comparison, 0)
    )
