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
        ("accuracy >= .98", ["'accuracy'", "the workload's own measure is 'metric'"]),
        (
            "loss <= 0.1",
            ["'loss'", "'train_loss'", "'full_train_loss', over the whole"],
        ),
        ("metric >= 98%", ["'98%'", "write metric >= 0.98: a fraction"]),
        ("metric >= 99.5%", ["'99.5%'", "write metric >= 0.995: a fraction"]),
        ("metric >= 1e999", ["finite number", "'1e999'"]),
        (f"metric >= {'9' * 10**6}", ["column, '>=' or '<='", "'metric >= 9999"]),
        (3, ["must be a text such as", "got 3"]),
        (None, ["must be a text such as", "got None"]),
        (b"metric >= 1", ["must be a text such as", "b'metric"]),
    ],
)
def test_a_refusal_names_the_rule_and_the_value(text, told):
    with pytest.raises(ValueError, match="target") as refused:
        parse_target(text)
    for part in told:
        assert part in str(refused.value)
    assert len(str(refused.value)) < 400


def test_a_number_may_begin_with_its_point():
    target = parse_target("metric >= .98")
    assert (target.value, target.text) == (0.98, "metric >= .98")


def test_met_takes_the_value_itself_and_never_nan():
    looks = pl.DataFrame({"metric": [0.95, 0.96, 0.97, math.nan, None]})
    met = looks.select(parse_target("metric >= 0.96").met()).to_series()
    assert met.to_list() == [False, True, True, False, None]
    met = looks.select(parse_target("metric <= 0.96").met()).to_series()
    assert met.to_list() == [True, True, False, False, None]
