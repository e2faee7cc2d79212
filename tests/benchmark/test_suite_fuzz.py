"""Any text is a suite that can be planned and written, or is refused by name."""

import re
from importlib import resources

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchramp import schedules
from batchramp.benchmark.suite import make_suite, parse_suite

SUITES = resources.files("batchramp.benchmark") / "suites"
TEXTS = {
    name: (SUITES / f"{name}.toml").read_text("utf-8")
    for name in ("quick", "batch-size", "cifar10", "fashion_mnist")
}
# What stands for a value: to the right of an equals sign, or within brackets.
TOKEN = re.compile(r"[^\s=\[\]{},\"]+|\"[^\"\n]*\"")

JUNK = st.sampled_from(
    [
        "0", "-1", "1", "3", "0.5", ".1", "1.", "01", "98%", "1e-9", "1e300", "1e999",
        "nan", "inf", "-inf", "true", "false", "None", "2026-11-25", "12:00:00", "\n",
        '""', '"x"', '"3"', '"2 epochs"', '"1e999"', '"metric >= 0.5"', '"loss <= 1"',
        '"\\u001b"', '"\\u202e"', "[]", "[1]", "[[]]", "{}", "{a=1}", "[{}]", "label",
        '"umeda-warmup"', '"noise-scale"', '"constant"', "lr", '"own.py:x"', '"a/b"',
        '".."', "9" * 19, "9" * 400, "9" * 5000, "[" * 5000, '"' + "x" * 5000 + '"',
    ]
)  # fmt: skip


@st.composite
def mutated(draw):
    """A built-in suite's text after some slips of the pen."""
    text = draw(st.sampled_from(sorted(TEXTS.values())))
    head, *entries = text.split("[[panel.entry]]")
    text = "[[panel.entry]]".join([head, *entries[: draw(st.integers(0, 4))]])
    for _ in range(draw(st.integers(0, 3))):
        tokens = list(TOKEN.finditer(text))
        if not tokens:
            break
        token = tokens[draw(st.integers(0, len(tokens) - 1))]
        kind = draw(st.sampled_from(["replace", "insert", "delete", "line", "cut"]))
        new = {"replace": draw(JUNK), "insert": draw(st.characters()), "delete": ""}
        if kind in new:
            text = text[: token.start()] + new[kind] + text[token.end() :]
        elif kind == "cut":
            text = text[: token.start()]
        else:
            lines = text.split("\n")
            lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from(lines)))
            text = "\n".join(lines)
    return text


def planned(suite):
    """Every entry's schedule laid over digits, as a run does before it trains."""
    for _, entry in suite.entries():
        if ":" in entry.schedule:
            continue  # a file of a user's own, which there is none of
        schedule = schedules.make(entry.schedule, **entry.set)
        horizon = schedules.Horizon.of(1297, suite.epochs, suite.boundary)
        if schedule.evidence:
            schedules.first_settings(schedule, horizon)
        else:
            schedules.plan(
                schedule,
                num_samples=1297,
                epochs=suite.epochs,
                boundary=suite.boundary,
            )


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated())
def test_a_mistyped_suite_is_planned_and_written_or_refused(text):
    try:
        suite = parse_suite(text)
        planned(suite)
    except ValueError as error:
        assert 0 < len(str(error)) < 800  # noqa: PT017
        assert str(error).isprintable()  # noqa: PT017
    else:
        assert make_suite(suite.to_dict()) == suite
        assert repr(parse_suite(tomli_w.dumps(suite.to_dict()))) == repr(suite)


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_not_mistyped_is_planned_where_it_fits(name):
    suite = parse_suite(TEXTS[name])
    assert make_suite(suite.to_dict()) == suite
    if name in ("quick", "batch-size"):
        planned(suite)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text() | st.binary().map(lambda data: data.decode("utf-8", "replace")))
def test_any_text_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        parse_suite(text)
