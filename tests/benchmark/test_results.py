import math

import polars as pl
import pytest

from batchramp.benchmark.results import (
    COLUMNS,
    FORMAT,
    read_results,
    read_status,
    read_suite,
    trial_file,
    write_suite,
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
SUITE = {
    "name": "hand-made",
    "seeds": 2,
    "question": "a hash",
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
        {"id": "1111", "label": "still", "seed": 0},
        {"id": "2222", "label": "growing", "seed": 0},
        {"id": "3333", "label": "led", "seed": 0},
    ],
}


@pytest.fixture
def folder(tmp_path):
    """A run of which the trial 3333 has not ended yet."""
    write_suite(tmp_path, SUITE)
    write_trial(tmp_path, "1111", [LOOK, END], {"status": "finished"})
    write_trial(tmp_path, "2222", [LOOK], {"status": "failed", "error": "boom"})
    return tmp_path


def test_what_was_written_is_read(folder):
    results = read_results(str(folder))
    own = results.rows.filter(trial="1111").drop("trial", "panel", "schedule")
    assert own.equals(pl.DataFrame([LOOK, END], schema=COLUMNS).select(own.columns))
    assert results.metadata["2222"] == {"status": "failed", "error": "boom"}
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
    write_trial(folder, "4444", [LOOK], {"status": "finished"})
    results = read_results(folder)
    assert set(results.rows["trial"]) == set(results.metadata) == {"1111", "2222"}


def test_labels_are_those_of_the_suite_of_today(folder):
    entries = SUITE["panel"][0]["entry"]
    renamed = [{**entries[0], "label": "calm", "baseline": "calm"}, entries[1]]
    trials = [{"id": "1111", "label": "calm", "seed": 0}, *SUITE["trial"][1:]]
    panels = [SUITE["panel"][0] | {"entry": renamed}, SUITE["panel"][1]]
    write_suite(folder, SUITE | {"panel": panels, "trial": trials})
    rows = read_results(folder).rows
    assert set(rows.filter(trial="1111")["schedule"]) == {"calm"}
    assert rows["panel"].null_count() == 0


def test_equal_trials_of_two_labels_count_for_both(folder):
    trials = [{"id": "1111", "label": name, "seed": 0} for name in ("still", "growing")]
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
    write_trial(folder, "3333", [], {"status": "failed", "error": "boom"})
    results = read_results(folder)
    assert results.rows.filter(trial="3333").is_empty()
    assert results.metadata["3333"]["error"] == "boom"


def test_how_a_trial_ended(folder):
    assert read_status(folder, "1111") == "finished"
    assert read_status(folder, "2222") == "failed"
    assert read_status(folder, "3333") is None


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
    path = trial_file(folder, "1111")
    path.write_bytes(damage(path.read_bytes()))
    assert read_status(folder, "1111") is None
    with pytest.raises(ValueError, match=r"1111\.parquet is damaged: run the suite"):
        read_results(folder)


def test_parquet_of_another_kind_is_damaged_too(folder):
    path = trial_file(folder, "1111")
    frame = pl.DataFrame({"metric": [0.5]})
    for metadata in (
        None,
        {"batchramp": "[]"},
        {"batchramp": '{"status": "finished"}'},
    ):
        frame.write_parquet(path, metadata=metadata)
        assert read_status(folder, "1111") is None
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
    (tmp_path / "suite.toml").write_text(f'format = {FORMAT}\nname = "x"')
    with pytest.raises(ValueError, match=r"suite\.toml is damaged.*panel"):
        read_results(tmp_path)


def test_writing_is_all_or_nothing(folder):
    with pytest.raises(TypeError):
        write_trial(folder, "1111", [LOOK], {"status": object()})
    with pytest.raises(TypeError):
        write_suite(folder, {"name": object()})
    with pytest.raises((TypeError, pl.exceptions.PolarsError)):
        write_trial(folder, "1111", [LOOK | {"updates": "many"}], {})
    assert read_results(folder).rows.filter(trial="1111").height == 2
    found = sorted(path.name for path in folder.rglob("*") if path.is_file())
    assert found == ["1111.parquet", "2222.parquet", "suite.toml"]
