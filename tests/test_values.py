from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchramp.values import LONGEST, plain_text, shown, whole


class Broken:
    def __repr__(self):
        raise RuntimeError("do not look")


IntLike = type("int", (), {})


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value", [3, -1.5, "x", [1, 2], None, True, {"a": [1]}, (1, "b"), 2**63]
)
def test_what_is_short_is_shown_as_it_is(value):
    assert shown(value) == repr(value)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (10**400, "a whole number of some 401 digits"),
        (-(10**9999), "-a whole number of some 10000 digits"),
        ("x" * 10**6, "'xxxx"),
        ([[1] * 1000] * 1000, "[[1, 1"),
        (nested(100_000), "[[[["),
        ([10**9999], "[a whole number of some"),
        (Fraction(1, 10**9999), "<Fraction"),
        (Broken(), "<Broken"),
        (IntLike(), "<int"),
        (np.zeros((100, 100)), "array([[0."),
        ("a\nb", r"'a\nb'"),
        (torch.zeros(3, 3), "tensor([[0., 0., 0.], [0."),
    ],
    ids=str(np.arange(12)).strip("[]").split(),
)
def test_what_is_long_is_cut_off_on_one_line(value, told):
    text = shown(value)
    assert text.startswith(told)
    assert len(text) <= LONGEST
    assert "\n" not in text


@pytest.mark.parametrize(
    "value", [3, np.int64(3), np.uint8(3), torch.tensor(3), np.array(3)]
)
def test_every_whole_number_counts(value):
    found = whole("size", value, least=3, most=3)
    assert (found, type(found)) == (3, int)


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (3.0, "a whole number, got 3.0"),
        (True, "a whole number, got True"),
        (np.bool_(True), "a whole number"),
        (torch.tensor(True), "a whole number"),
        (torch.tensor(3.0), "a whole number"),
        (torch.zeros(2), "a whole number"),
        ("3", "a whole number, got '3'"),
        (None, "a whole number, got None"),
        (0, "at least 1, got 0"),
        (10**400, "at most 9, got a whole number of some 401 digits"),
        (-(10**400), "at least 1, got -a whole number of some 401 digits"),
    ],
)
def test_anything_else_is_refused_by_name(value, rule):
    with pytest.raises(ValueError, match=f"^size must be {rule}"):
        whole("size", value, least=1, most=9)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers() | st.floats() | st.text() | st.binary() | st.lists(st.integers()))
def test_any_value_is_a_whole_number_or_refused(value):
    if isinstance(value, int):
        assert whole("size", value) == value
    else:
        with pytest.raises(ValueError, match="size must be a whole number") as refused:
            whole("size", value)
        assert str(refused.value).endswith(f"got {shown(value)}")


@pytest.mark.parametrize("text", ["größer", "a b", "b=2", "日本", "", "x" * 200])
def test_a_text_may_be_in_any_script(text):
    assert plain_text("label", text) == text


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("a\x1b[2J", r"no control characters, got U\+001B in 'a\\x1b\[2J'"),
        ("a\nb", r"no control characters, got U\+000A"),
        ("\x85", r"no control characters, got U\+0085"),
        ("\u202eabc", r"no control characters, got U\+202E"),
        ("\ud800", r"no control characters, got U\+D800"),
        ("x" * 201, "at most 200 characters, got 201"),
    ],
    ids=range(6),
)
def test_what_would_move_the_cursor_is_refused(text, rule):
    with pytest.raises(ValueError, match=f"^label must have {rule}"):
        plain_text("label", text)
    with pytest.raises(ValueError, match=r"^label must be a string, got 3"):
        plain_text("label", 3)
