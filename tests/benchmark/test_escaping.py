import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchramp.benchmark.escaping import printable


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("plain [b] $x$ \\x1b", "plain [b] $x$ \\x1b"),
        ("clear\x1b[2J", r"clear\x1b[2J"),
        ("two\nlines\tand\r", r"two\nlines\tand\r"),
        ("\x9b31m", r"\x9b31m"),
        ("turned\u202egnp", r"turned\u202egnp"),
        ("line\u2028end", r"line\u2028end"),
        ("\udc80", r"\udc80"),
        ("\U000e0041", r"\U000e0041"),
        ("größer 雪 שלום می‌خواهم", "größer 雪 שלום می‌خواهم"),
        ("\U0001f469\u200d\U0001f680", "\U0001f469\u200d\U0001f680"),
    ],
)
def test_what_is_no_letter_is_spelt_out(text, told):
    assert printable(text) == told


@given(st.text(st.characters()))
def test_nothing_that_a_terminal_obeys_is_left(text):
    shown = printable(text)
    assert {unicodedata.category(c) for c in shown} & {"Cc", "Cs", "Zl", "Zp"} == set()
    assert printable(shown) == shown
    shown.encode()
