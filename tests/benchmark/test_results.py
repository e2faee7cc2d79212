import json
import math
import random

import polars as pl
import pytest

from batchramp.benchmark import trial_files
from batchramp.benchmark.results import read_results, read_suite, write_suite
from batchramp.benchmark.trial_files import (
    COLUMNS,
    FORMAT,
    checksum,
    identify,
    read_status,
    read_trial,
    trial_file,
    write_trial,
)

LOOK = {
    "workload": "digits",
    "seed": 0,
    "status": "finished",
    "updates": 0,
    "samples": 0,
    "position": 0,
    "epoch": 0.0,
    "train_seconds": 0.0,
    "total_seconds": 0.5,
    "evaluation_seconds": 0.5,
    "compile_seconds": 0.0,
    "batch_size": None,
    "lr": None,
    "momentum": None,
    "train_loss": None,
    "full_train_loss": None,
    "metric": 0.1,
    "gradient_norm": None,
}
END = LOOK | {
    "updates": 7,
    "samples": 200,
    "position": 200,
    "epoch": 2.0,
    "batch_size": 32,
    "lr": 0.1,
    "momentum": 0.0,
    "train_loss": 1.5,
    "full_train_loss": 1.25,
    "metric": math.nan,
    "gradient_norm": 0.5,
}
IDENTITIES = {
    name: {"schedule": name, "seed": 0} for name in ("still", "growing", "led", "gone")
}
STILL, GROWING, LED, GONE = map(identify, IDENTITIES.values())


def metadata(name, status="finished", error=None):
    return {
        "status": status,
        "error": error,
        "traceback": None,
        "notes": [],
        "identity": IDENTITIES[name],
        "environment": {"cpu": "any"},
    }


SUITE = {
    "name": "hand-made",
    "seeds": 2,
    "panel": [
        {
            "targets": ["metric >= 0.9"],
            "entry": [
                {
                    "label": "still",
                    "schedule": "constant",
                    "baseline": "still",
                    "tuning": "tuned",
                    "planned_updates": 7,
                },
                {
                    "label": "growing",
                    "schedule": "umeda-increasing-batch",
                    "baseline": "still",
                    "tuning": "as set",
                    "planned_updates": 5,
                    "first_change": 100,
                },
            ],
        },
        {
            "targets": [],
            "entry": [
                {
                    "label": "led",
                    "schedule": "noise-scale",
                    "baseline": "led",
                    "tuning": "paper defaults",
                }
            ],
        },
    ],
    "trial": [
        {"id": STILL, "label": "still", "seed": 0},
        {"id": GROWING, "label": "growing", "seed": 0},
        {"id": LED, "label": "led", "seed": 0},
    ],
}


@pytest.fixture
def folder(tmp_path):
    """A run of which the trial 3333 has not ended yet."""
    write_suite(tmp_path, SUITE)
    write_trial(tmp_path, STILL, [LOOK, END], metadata("still"))
    write_trial(tmp_path, GROWING, [LOOK], metadata("growing", "failed", "boom"))
    return tmp_path


def test_what_was_written_is_read(folder):
    results = read_results(str(folder))
    own = results.rows.filter(trial=STILL).drop("trial", "panel", "schedule")
    assert own.equals(pl.DataFrame([LOOK, END], schema=COLUMNS).select(own.columns))
    held = metadata("growing", "failed", "boom") | {"format": FORMAT}
    assert results.metadata[GROWING] == held
    assert results.suite == {"format": FORMAT, **SUITE}


def test_the_columns_are_those_documented(folder):
    results = read_results(folder)
    assert results.rows.columns[:4] == ["trial", "workload", "panel", "schedule"]
    assert set(results.rows.columns) == {"trial", "panel", "schedule", *COLUMNS}
    documented = (
        "workload schedule seed status updates samples position epoch train_seconds "
        "total_seconds batch_size lr momentum train_loss full_train_loss metric "
        "gradient_norm"
    )
    assert set(documented.split()) <= set(results.rows.columns)
    assert {name: results.rows.schema[name] for name in COLUMNS} == COLUMNS


def test_entries_say_what_was_compared(folder):
    entries = read_results(folder).entries.to_dicts()
    assert [entry["panel"] for entry in entries] == [0, 0, 1]
    assert entries[0] == {
        "panel": 0,
        "schedule": "still",
        "schedule_name": "constant",
        "baseline": "still",
        "tuning": "tuned",
        "planned_updates": 7,
        "first_change": None,
        "targets": ["metric >= 0.9"],
        "seeds": 2,
    }
    assert entries[1]["first_change"] == 100
    assert entries[2]["planned_updates"] is None
    assert entries[2]["targets"] == []


def test_only_trials_of_the_suite_count(folder):
    write_trial(folder, GONE, [LOOK], metadata("gone"))
    results = read_results(folder)
    assert set(results.rows["trial"]) == set(results.metadata) == {STILL, GROWING}
    assert results.others == 1


def test_labels_are_those_of_the_suite_of_today(folder):
    entries = SUITE["panel"][0]["entry"]
    renamed = [{**entries[0], "label": "calm", "baseline": "calm"}, entries[1]]
    trials = [{"id": STILL, "label": "calm", "seed": 0}, *SUITE["trial"][1:]]
    panels = [SUITE["panel"][0] | {"entry": renamed}, SUITE["panel"][1]]
    write_suite(folder, SUITE | {"panel": panels, "trial": trials})
    rows = read_results(folder).rows
    assert set(rows.filter(trial=STILL)["schedule"]) == {"calm"}
    assert rows["panel"].null_count() == 0


def test_equal_trials_of_two_labels_count_for_both(folder):
    trials = [{"id": STILL, "label": name, "seed": 0} for name in ("still", "growing")]
    write_suite(folder, SUITE | {"trial": trials})
    rows = read_results(folder).rows
    assert rows.group_by("schedule").len().sort("schedule").rows() == [
        ("growing", 2),
        ("still", 2),
    ]


def test_a_run_without_trials_is_empty(tmp_path):
    write_suite(tmp_path, SUITE)
    results = read_results(tmp_path)
    assert results.rows.is_empty()
    assert results.entries.height == 3


def test_a_trial_that_failed_at_once_has_no_rows(folder):
    write_trial(folder, LED, [], metadata("led", "failed", "boom"))
    results = read_results(folder)
    assert results.rows.filter(trial=LED).is_empty()
    assert results.metadata[LED]["error"] == "boom"


def test_how_a_trial_ended(folder):
    assert read_status(folder, STILL) == "finished"
    assert read_status(folder, GROWING) == "failed"
    assert read_status(folder, LED) is None


def cut(content):
    return content[: len(content) // 2]


def empty(_):
    return b""


def replace(_):
    return b"not Parquet at all"


def zero_a_page(content):
    # The footer, with its metadata, stays whole.
    return content[:4] + bytes(400) + content[404:]


@pytest.mark.parametrize("damage", [cut, zero_a_page, empty, replace])
def test_a_damaged_trial_is_named_and_counts_as_not_run(folder, damage):
    path = trial_file(folder, STILL)
    path.write_bytes(damage(path.read_bytes()))
    assert read_status(folder, STILL) is None
    with pytest.raises(
        ValueError, match=rf"{STILL}\.parquet is damaged: run the suite"
    ):
        read_results(folder)


def test_parquet_of_another_kind_is_damaged_too(folder):
    path = trial_file(folder, STILL)
    frame = pl.read_parquet(path)
    for metadata in (None, {"batchramp": "[]"}, pl.read_parquet_metadata(path)):
        frame.write_parquet(path, metadata=metadata)
        assert read_status(folder, STILL) is None
        with pytest.raises(ValueError, match="damaged"):
            read_results(folder)


def test_another_format_is_refused(folder):
    told = rf"results format {FORMAT}, got 99 \(written by batchramp 7\.0\)"
    write_suite(folder, SUITE | {"format": 99, "batchramp": "7.0"})
    with pytest.raises(ValueError, match=told):
        read_results(folder)
    with pytest.raises(ValueError, match=told):
        read_suite(folder)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no suite\.toml"):
        read_results(tmp_path)
    with pytest.raises(ValueError, match=r"holds no suite\.toml"):
        read_results(tmp_path / "absent")
    (tmp_path / "suite.toml").write_text("format = ")
    with pytest.raises(ValueError, match=r"suite\.toml is damaged"):
        read_results(tmp_path)


def test_writing_is_all_or_nothing(folder):
    with pytest.raises(TypeError):
        write_trial(
            folder, STILL, [LOOK], metadata("still") | {"environment": object()}
        )
    with pytest.raises(TypeError):
        write_suite(folder, {"name": object()})
    with pytest.raises((TypeError, pl.exceptions.PolarsError)):
        write_trial(folder, STILL, [LOOK | {"updates": "many"}], metadata("still"))
    assert read_results(folder).rows.filter(trial=STILL).height == 2
    found = sorted(path.name for path in folder.rglob("*") if path.is_file())
    files = (f"{STILL}.parquet", f"{GROWING}.parquet", "suite.toml")
    assert found == sorted(files)


def test_every_flipped_bit_is_found(folder):
    path = trial_file(folder, STILL)
    content = path.read_bytes()
    for place in random.Random(0).sample(range(8 * len(content)), 2000):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        assert read_status(folder, STILL) is None
    path.write_bytes(content)
    assert read_status(folder, STILL) == "finished"


def test_any_reader_of_parquet_reads_a_trial(folder):
    path = trial_file(folder, STILL)
    assert pl.read_parquet(path).equals(read_trial(path).rows)
    assert pl.scan_parquet(path).collect().height == 2


def test_what_another_trial_holds_is_not_taken_under_this_name(folder):
    still, growing = trial_file(folder, STILL), trial_file(folder, GROWING)
    contents = still.read_bytes(), growing.read_bytes()
    still.write_bytes(contents[1])
    growing.write_bytes(contents[0])
    assert read_status(folder, STILL) is read_status(folder, GROWING) is None
    with pytest.raises(ValueError, match="damaged"):
        read_results(folder)


def test_rows_that_were_changed_are_found_whatever_the_metadata_say(
    folder, monkeypatch
):
    path = trial_file(folder, STILL)
    frame = pl.read_parquet(path)
    held = json.loads(pl.read_parquet_metadata(path)["batchramp"])
    written = held.pop("checksum")
    assert checksum(frame, held) == written
    for changed in (
        pl.concat([frame, frame]),
        frame.reverse(),
        frame.with_columns(train_seconds=pl.lit(777.0)),
        frame.with_columns(lr=pl.lit(0.0)),  # null before: a null is no zero
        frame.with_columns(status=pl.lit("diverged")),
        frame.rename({"lr": "rl"}),
        frame.with_columns(pl.col("seed").cast(pl.Int32)),
    ):
        assert checksum(changed, held) != written
    for key in held:
        assert checksum(frame, held | {key: "another"}) != written
    path.unlink()  # sealed anew, with other rows under the old checksum
    monkeypatch.setattr(trial_files, "checksum", lambda *_: written)
    write_trial(folder, STILL, [LOOK], metadata("still"))
    monkeypatch.undo()
    with pytest.raises(ValueError, match="damaged"):
        read_trial(path)


@pytest.mark.parametrize(
    ("old", "new"), [("0.9", "0.8"), ("still", "spoil"), ("7", "8")]
)
def test_a_suite_that_was_changed_is_damaged(folder, old, new):
    path = folder / "suite.toml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=r"suite.toml is damaged: run the suite again"):
        read_suite(folder)


def test_what_cannot_be_read_is_not_damaged(folder, monkeypatch):
    path = trial_file(folder, STILL)
    kept = path.read_bytes()
    path.unlink()
    path.mkdir()  # as root, no permission is ever missing
    with pytest.raises(OSError, match=rf"{STILL}.parquet cannot be read: Is a dir"):
        read_status(folder, STILL)
    path.rmdir()
    path.write_bytes(kept)

    def fails(*_, **__):
        raise pl.exceptions.ComputeError("no more threads")

    monkeypatch.setattr(pl, "read_parquet", fails)
    with pytest.raises(OSError, match="cannot be read, though whole: no more threads"):
        read_status(folder, STILL)


def test_a_failed_trial_never_takes_the_place_of_an_ended_one(folder):
    kept = trial_file(folder, STILL).read_bytes()
    assert not write_trial(folder, STILL, [LOOK], metadata("still", "failed"))
    assert trial_file(folder, STILL).read_bytes() == kept
    assert write_trial(folder, GROWING, [LOOK, END], metadata("growing"))
    assert read_status(folder, GROWING) == "finished"


def test_every_path_is_taken_as_it_is_written(folder, monkeypatch):
    odd = folder / "lr=[1] *?"
    sibling = folder / "lr=1 *?"
    for name in (odd, sibling):
        write_suite(name, SUITE)
    write_trial(odd, STILL, [LOOK, END], metadata("still"))
    write_trial(sibling, STILL, [LOOK], metadata("still"))
    assert read_results(odd).rows.height == 2
    assert read_results(sibling).rows.height == 1
    monkeypatch.setenv("HOME", str(folder))
    assert read_results("~").rows.height == 3
