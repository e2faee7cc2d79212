import json

import pytest
from rich.console import Console

from batchramp.benchmark.render import render, to_json
from batchramp.benchmark.sheets import panel_sheets, significant


def drawn(renderable, width=80):
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


@pytest.fixture
def race(run_of, trial):
    return run_of(
        {
            "cosine [32]": {"trials": [trial(k) for k in (2, 2, 3, 3, 4, 4)]},
            "growing batch": {
                "trials": [trial(k) for k in (2, 3, 4, 5, None, None)],
                "tuning": "paper defaults",
                "first_change": 400,
            },
            "never": {
                "trials": [trial(None)] * 5 + [trial(None, status="failed")],
                "tuning": "as set",
            },
        },
        suite={"panel": [{"title": "Which one?", "weight_decay": 0.0}]},
    )


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0, "0"),
        (172.0, "172"),
        (0.10766, "0.108"),
        (0.0995, "0.0995"),
        (12345.6, "12346"),
        (-0.00174, "-0.00174"),
        (1.5e-7, "1.50e-07"),
        (123456789, "1.23e+08"),
    ],
)
def test_numbers_keep_three_digits(value, told):
    assert significant(value) == told


@pytest.mark.parametrize("width", [80, 100])
def test_the_terminal_tells_the_race(race, width):
    text = drawn(render(race), width)
    assert max(map(len, text.splitlines())) <= width
    for told in (
        "Which one?",
        "To metric >= 0.9",
        "cosine [32]",  # not taken for markup
        "6 of 6",
        "4 of 6",
        "0 of 5",
        "1 missing",
        "not reached",
        "[20, 40]",
        "[20, inf]",
        "0.667x",
        "paper defaults",
        "as set",
        "interval at 96.9%, n = 6",
        "range at 93.8%, n = 5",
        "A/A",
        "At the fixed budget",
        "1 failed",
        "What the budget cost",
    ):
        assert told in " ".join(text.split()), told
    assert "yet different" in " ".join(text.split())
    assert "nan" not in text


def test_names_break_between_words(run_of, trial):
    label = "umeda-increasing-both with a rate of its own"
    results = run_of({label: {"trials": [trial(2)] * 5}})
    assert "umeda-increasing-both" in drawn(render(results))


def test_a_run_without_any_trial_is_still_told(run_of):
    text = drawn(render(run_of({"a": {"trials": [], "seeds": 8}})))
    assert "no trial" in text
    assert "8 not run" in text


def test_the_terminal_shows_the_numbers_of_the_page(race):
    (panel,) = panel_sheets(race)
    for sheet in (*panel.races, panel.budget, panel.cost):
        assert all(len(row) == len(sheet.columns) for row in sheet.rows)
        assert len(sheet.baselines) == len(sheet.rows)
    text = drawn(render(race), 200)
    for row in panel.races[0].rows:
        for cell, column in zip(row, panel.races[0].columns, strict=True):
            assert column.page_only or cell.main in text


def test_json_has_no_infinity(race):
    told = json.loads(json.dumps(to_json(race), allow_nan=False))
    assert (told["suite"], told["workload"]) == ("hand-made", "digits")
    (panel,) = told["panels"]
    assert panel["title"] == "Which one?"
    never = next(row for row in panel["race"] if row["schedule"] == "never")
    assert (never["updates"], never["reached"], never["trials"]) == (None, 0, 5)
    assert len(panel["budget"]) == 3
    assert panel["control"][0]["baseline"] == "cosine [32]"


def test_panels_without_a_title_are_told_by_their_settings(run_of, trial):
    results = run_of(
        {
            "a": {"trials": [trial(2)]},
            "b": {"trials": [trial(2)], "panel": 1, "baseline": "b"},
        },
        suite={"panel": [{"weight_decay": 0.0}, {"weight_decay": 5e-3}]},
    )
    titles = [panel.title for panel in panel_sheets(results)]
    assert titles == ["Panel 1", "Panel 2: weight_decay 0.005"]
