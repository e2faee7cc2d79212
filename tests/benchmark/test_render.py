import json
import re
from contextlib import redirect_stdout
from io import StringIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from batchramp.benchmark.render import MOST_ERRORS, render, render_errors, to_json
from batchramp.benchmark.sheets import panel_sheets, significant
from batchramp.benchmark.terminal import output


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


def failed(error, **others):
    return {"metric": [0.1], "status": "failed", "error": error, **others}


def test_what_tables_cannot_show_is_told_before_them(run_of, trial):
    trials = [trial(2), trial(2, environment={"cpu": "another"}), failed("why")]
    results = run_of({"a": {"trials": trials, "seeds": 4}})
    text = " ".join(drawn(render(results)).split())
    for note in (
        "Take care: of 4 trials 1 failed and 1 not run",
        "Take care: seconds are of different processors",
    ):
        assert text.count(note) == 1
        assert text.index(note) < text.index("To metric >= 0.9")
    told = to_json(results)
    assert [note.split(":")[0] for note in told["notes"]] == [
        "of 4 trials 1 failed and 1 not run",
        "seconds are of different processors (a <fast> one in 1 trial and another in 1 "
        "trial)",
    ]
    assert told["errors"] == [
        {
            "error": "why",
            "traceback": None,
            "trials": 1,
            "where": [{"schedule": "a", "seeds": [2]}],
        }
    ]


def test_each_error_is_told_once(run_of, trial):
    trials = [failed("KeyError: 'x' (w.py:2)")] * 7 + [failed("another"), trial(2)]
    text = drawn(render_errors(run_of({"a": {"trials": trials}})))
    assert text.splitlines() == [
        "8 trials failed:",
        "KeyError: 'x' (w.py:2)",
        "  7 trials: a, seeds 0 to 6",
        "another",
        "  1 trial: a, seed 7",
    ]
    assert render_errors(run_of({"a": {"trials": [trial(2)]}})) is None


def test_of_many_errors_the_first_are_told(run_of):
    errors = [failed(f"error {number}") for number in range(MOST_ERRORS + 3)]
    results = run_of({"a": {"trials": errors}})
    text = drawn(render_errors(results))
    assert text.count("error ") == MOST_ERRORS
    assert "and 3 more" in text
    assert len(to_json(results)["errors"]) == MOST_ERRORS + 3


@pytest.mark.parametrize("columns", ["40", "1", "0", "x", None])
def test_no_width_cuts_a_number(race, monkeypatch, columns):
    if columns is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", columns)
    stream = StringIO()
    with redirect_stdout(stream):
        output().print(render(race))
    assert stream.getvalue() == drawn(render(race), 80)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60),
        min_size=3,
        max_size=3,
        unique=True,
    )
)
def test_nothing_of_a_users_text_is_obeyed(run_of, trial, texts):
    label, title, error = texts
    trials = [trial(2), failed(error)]
    results = run_of({label: {"trials": trials}}, suite={"panel": [{"title": title}]})
    text = drawn(render(results)) + drawn(render_errors(results))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028]", text)
    assert "To metric >= 0.9" in text
    json.dumps(to_json(results), allow_nan=False).encode("ascii")
