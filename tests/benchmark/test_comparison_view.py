import json

import pytest
from rich.console import Console

from batchramp.benchmark.compare import compare
from batchramp.benchmark.comparison_view import (
    comparison_to_json,
    render_comparison,
    verdict_in_words,
)

LOOKS = [2, 3, 4, 2, 3, 4, 4, 3]


def drawn(renderable, width=80):
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


@pytest.fixture
def side(run_of, trial):
    def build(looks=LOOKS, *, pace=0.5, label="smith [1]", status="finished", **others):
        trials = [
            trial(look, pace=pace * (1 + 0.01 * k), status=status)
            for k, look in enumerate(looks)
        ]
        return run_of({label: {"trials": trials}}, **others)

    return build


def later(looks=LOOKS):
    return [look + 1 for look in looks]


def test_the_verdict_comes_first_and_fits(side):
    comparison = compare(side(), side(later(), identity={"torch": "2.14"}))
    text = drawn(render_comparison(comparison))
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith("No: smith [1] needs ")
    told = " ".join(text.split())
    for part in (
        "needs 34% more updates to metric >= 0.9 (8 of 8 pairs)",
        "torch is 2.15.0 in base, 2.14 in new",
        "slower",
        "equal",
        "8 of 8 pairs",
        "one run a side: drift between runs is not in this interval",
        "over 5 rows together (Holm)",
    ):
        assert part in told, part


@pytest.mark.parametrize(
    ("new", "only", "told"),
    [
        (
            {},
            ["updates", "metric"],
            "Fine: 2 of 2 rows equal.",
        ),
        (
            {"pace": 0.51},
            ["updates", "train_seconds"],
            "Fine: 1 of 2 rows equal, 1 within the margin of 10%.",
        ),
        (
            {"pace": 0.6},
            ["train_seconds", "total_train_seconds"],
            "No: smith [1] needs 20% more seconds to metric >= 0.9 (8 of 8 pairs); "
            "smith [1] needs 20% more seconds for its budget (8 of 8 pairs); one run a "
            "side: drift between runs is not in it.",
        ),
        (
            {"looks": [None] * 8},
            ["updates"],
            "No: smith [1] gets to metric >= 0.9 in 0 of 8 trials, 8 of 8 before "
            "(8 of 8 pairs).",
        ),
        (
            {"looks": [None] * 8, "status": "diverged"},
            ["metric"],
            "No: smith [1] has a metric in 0 of 8 trials, 8 of 8 before.",
        ),
        (
            {"looks": [None] * 8, "status": "diverged"},
            ["total_train_seconds"],
            "No: smith [1] ends its budget in 0 of 8 trials, 8 of 8 before (8 of 8 "
            "pairs); one run a side: drift between runs is not in it.",
        ),
        (
            {"looks": later(), "pace": 0.6},
            ["updates", "train_seconds"],
            "No: smith [1] needs 34% more updates to metric >= 0.9 (8 of 8 pairs); "
            "smith [1] needs 60.8% more seconds to metric >= 0.9 (8 of 8 pairs).",
        ),
        (
            {"pace": 0.05},
            ["train_seconds", "total_train_seconds"],
            "Fine: 0 of 2 rows equal, 2 better by more than the margin of 10%: "
            "smith [1] needs 90% fewer seconds to metric >= 0.9 (8 of 8 pairs); "
            "smith [1] needs 90% fewer seconds for its budget (8 of 8 pairs); one run "
            "a side: drift between runs is not in it.",
        ),
        (
            {"pace": 0.48},
            ["train_seconds"],
            "Fine: 0 of 1 rows equal, 1 within the margin of 10%.",
        ),
        (
            {"looks": [1] * 8},
            ["updates", "metric"],
            "Fine: 1 of 2 rows equal, 1 better by more than the margin of 10%: smith "
            "[1] needs 66.9% fewer updates to metric >= 0.9 (8 of 8 pairs).",
        ),
        (
            {"status": "failed"},
            ["updates"],
            "No: smith [1]: 8 of 8 trials failed in new (seeds 0, 1, 2, 3, 4, 5, 6 and "
            "7): None.",
        ),
        (
            {"identity": {"cadence": "2"}},
            ["updates"],
            "Cannot tell: cadence is 1 in base, 2 in new.",
        ),
        (
            {"looks": [4, 3, 2, 4, 3, 2, 3, 4]},
            ["updates"],
            "Cannot tell: smith [1], updates to metric >= 0.9: new / base 1.00 "
            "[0.633, 1.58].",
        ),
    ],
)
def test_the_verdict_in_words(side, new, only, told):
    assert verdict_in_words(compare(side(), side(**new), only=only)) == told


def test_a_changed_plan_is_told_by_its_updates(run_of, trial):
    trials = [trial(look) for look in LOOKS]
    plans = [
        run_of({"a": {"trials": trials, "planned_updates": updates}})
        for updates in (60, 61, None)
    ]
    told = verdict_in_words(compare(*plans[:2]))
    assert told == "No: a plans 61 updates, 60 before."
    told = verdict_in_words(compare(plans[0], plans[2]))
    assert told == "No: a plans adaptively many updates, 60 before."


def test_json_tells_what_the_table_tells(side):
    comparison = compare(side(), side([*LOOKS[:7], None], environment={"jobs": "2"}))
    told = json.loads(json.dumps(comparison_to_json(comparison), allow_nan=False))
    assert told["verdict"] == verdict_in_words(comparison)
    assert told["exit_code"] == comparison.exit_code == 3
    assert (told["base_runs"], told["new_runs"], told["margin"]) == (1, 1, 0.1)
    assert told["family"] == comparison.family == 3  # no seconds: other jobs
    assert told["notes"] == [
        {"code": 0, "text": "smith [1]: seed 7: another metric from the same identity"},
        {"code": 0, "text": "jobs is 1 in base, 2 in new"},
    ]
    updates = next(row for row in told["rows"] if row["quantity"] == "updates")
    assert (updates["pairs"], updates["seeds"]) == (8, 8)
    assert (updates["new_reached"], updates["new_trials"]) == (7, 8)
    text = " ".join(drawn(render_comparison(comparison), 200).split())
    for row in told["rows"]:
        assert row["verdict"] in text
        assert row["note"] in text
    assert all(note["text"] in text for note in told["notes"])
    gone = comparison_to_json(compare(side(), side([None] * 8), only=["updates"]))
    (row,) = json.loads(json.dumps(gone, allow_nan=False))["rows"]
    assert (row["new"], row["ratio"], row["new_reached"]) == ("inf", "inf", 0)


def test_json_tells_an_unbounded_interval_from_none(side):
    def told(base, new):
        found = comparison_to_json(compare(side(base), side(new), only=["updates"]))
        (row,) = json.loads(json.dumps(found, allow_nan=False))["rows"]
        return row["low"], row["high"]

    low, high = told([2] * 6, [4] * 3 + [None] * 3)
    assert low > 1
    assert high == "inf"
    assert told([2, 2], [3, 4]) == (None, None)
    assert told([2] * 8, [None] * 8) == ("inf", "inf")


def test_a_metric_that_collapsed_is_never_fine(run_of):
    def build(values):
        trials = [{"metric": [0.1, 0.5, value]} for value in values]
        return run_of({"a": {"trials": trials}}, targets=["train_loss <= 0.6"])

    base = build([0.91, 0.92, 0.91, 0.92, 0.91, 0.92])
    comparison = compare(base, build([0.09, 0.1, 0.09, 0.1, 0.09, 0.08]))
    assert comparison.exit_code == 3
    assert verdict_in_words(comparison) == (
        "Cannot tell: a ends at a metric of 0.09167, 0.9150 before (6 of 6 pairs); "
        "which way is better is not known without a target on the metric."
    )


def test_an_undecided_metric_says_what_would_show(run_of):
    def build(shift):
        trials = [
            {"metric": [0.6, 0.7, 0.7, 0.8 + shift * (-1) ** seed]} for seed in range(6)
        ]
        return run_of({"a": {"trials": trials}}, targets=["metric >= 0.5"])

    comparison = compare(build(0.0), build(0.15), only=["metric"], margin=0.01)
    (row,) = comparison.rows
    assert row.verdict == "undecided"
    text = " ".join(drawn(render_comparison(comparison)).split())
    assert "worse would show from a loss of 0." in text
    assert verdict_in_words(comparison).startswith(
        "Cannot tell: a, metric: new - base "
    )


def test_no_control_character_reaches_the_terminal(side):
    label = "evil \x1b[2J\nlabel \u202e"
    failed = side(label=label, status="failed")
    for comparison in (compare(side(label=label), failed), compare(failed, side())):
        text = drawn(render_comparison(comparison))
        assert not {"\x1b", "\u202e"} & set(text)
        assert "evil \\x1b[2J\\nlabel" in " ".join(text.split())
