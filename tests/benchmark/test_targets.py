import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchramp.benchmark.targets import TARGET_COLUMNS, parse_target


@pytest.mark.parametrize(
    ("text", "column", "direction", "value"),
    [
        ("metric >= 0.96", "metric", ">=", 0.96),
        ("metric <= 3.28", "metric", "<=", 3.28),
        ("full_train_loss<=2e-2", "full_train_loss", "<=", 0.02),
        ("  train_loss  <=  .5 ", "train_loss", "<=", 0.5),
        ("gradient_norm <= 1", "gradient_norm", "<=", 1.0),
    ],
)
def test_reads_a_column_a_side_and_a_number(text, column, direction, value):
    target = parse_target(text)
    assert (target.column, target.direction, target.value) == (
        column,
        direction,
        value,
    )


@given(
    column=st.sampled_from(TARGET_COLUMNS),
    value=st.floats(allow_nan=False, allow_infinity=False),
)
def test_its_text_reads_back_as_itself(column, value):
    target = parse_target(f"{column}<={value!r}")
    assert parse_target(target.text) == target
    assert target.value == value


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("metric > 0.96", ["column, '>=' or '<='", "'metric > 0.96'"]),
        ("", ["column, '>=' or '<='", "''"]),
        (
            "full_trian_loss <= 1",
            [*TARGET_COLUMNS, "'full_trian_loss'", "did you mean 'full_train_loss'?"],
        ),
        ("xyz <= 1", [*TARGET_COLUMNS, "'xyz'"]),
        ("metric >= high", ["finite number", "'high'"]),
        ("metric >= nan", ["finite number", "'nan'"]),
        ("metric >= inf", ["finite number", "'inf'"]),
        ("train_loss >= 0.5", ["upper limit", "'train_loss >= 0.5'"]),
    ],
)
def test_a_refusal_names_the_rule_and_the_value(text, told):
    with pytest.raises(ValueError, match="target") as refused:
        parse_target(text)
    for part in told:
        assert part in str(refused.value)


def test_met_takes_the_value_itself_and_never_nan():
    looks = pl.DataFrame({"metric": [0.95, 0.96, 0.97, math.nan, None]})
    met = looks.select(parse_target("metric >= 0.96").met()).to_series()
    assert met.to_list() == [False, True, True, False, None]
    met = looks.select(parse_target("metric <= 0.96").met()).to_series()
    assert met.to_list() == [True, True, False, False, None]
