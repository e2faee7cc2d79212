import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchramp.schedules import Horizon, Mark, make
from batchramp.schedules.durations import parse_duration, parse_position_duration


def test_a_tenth_of_the_budget_has_no_binary_dust():
    horizon = Horizon.of(50_021, 300)
    interval = parse_duration("interval", 0.1).length(horizon)
    assert math.ceil(3 * interval) == 4_501_890
    schedule = make("umeda-increasing-both")
    assert schedule.events(horizon)[2] == Mark(position=4_501_890)
    # What a binary float would have given.
    assert math.ceil(3 * 0.1 * 300 * 50_021) != 4_501_890


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("30 epochs", Mark(position=3000)),
        ("1 epoch", Mark(position=100)),
        ("0.3 epochs", Mark(position=30)),
        ("0.305 epochs", Mark(position=31)),
        ("1000 samples", Mark(position=1000)),
        ("500 updates", Mark(update=500)),
        ("0.1", Mark(position=1000)),
        (0.1, Mark(position=1000)),
        (1e-05, Mark(position=1)),
        (1, Mark(position=10_000)),
    ],
)
def test_units(text, mark):
    horizon = Horizon.of(100, 100)
    assert parse_duration("milestones", text).mark(horizon) == mark


@given(
    st.integers(1, 10**6),
    st.integers(1, 10**4),
    st.decimals(0, 1, allow_nan=False, places=6),
)
def test_milestones_are_the_first_position_at_or_past_the_exact_value(n, epochs, part):
    horizon = Horizon.of(n, epochs)
    duration = parse_duration("warmup", float(part), zero=True)
    position = duration.mark(horizon).position
    assert position is not None
    exact = Fraction(str(part)) * n * epochs
    assert position - 1 < exact <= position


@given(st.integers(1, 10**6), st.decimals("0.001", 1000, places=3))
def test_the_budget_is_the_rounded_product(n, epochs):
    expected = round(Fraction(str(epochs)) * n)
    for given_as in (str(epochs), float(epochs), Fraction(str(epochs))):
        if expected:
            assert Horizon.of(n, given_as).budget == expected
        else:
            with pytest.raises(ValueError, match="epochs must be positive"):
                Horizon.of(n, given_as)


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("30 epoch(s)", "in epochs, samples or updates"),
        ("thirty epochs", "finite decimal"),
        ("1e999999999", "finite decimal"),
        (float("nan"), "finite decimal"),
        (True, "finite decimal"),
        (None, "finite decimal"),
        (30, "at most 1"),
        (0, "above 0"),
        (-0.5, "above 0"),
        ("-3 epochs", "above 0"),
    ],
)
def test_refused_durations_name_the_parameter_and_the_value(value, rule):
    with pytest.raises(ValueError, match=rule) as error:
        parse_duration("interval", value)
    assert str(error.value).startswith("interval must be")
    assert str(value).split()[0] in str(error.value)


def test_an_interval_is_not_counted_in_updates():
    with pytest.raises(ValueError, match=r"interval .* follow position"):
        parse_position_duration("interval", "500 updates")


@pytest.mark.parametrize("milestones", [[0.5, 0.5], [0.5, "10 samples"]])
def test_milestones_must_increase_whatever_their_units(milestones):
    schedule = make("smith-decay", milestones=milestones)
    with pytest.raises(ValueError, match="milestones must increase"):
        schedule.init(Horizon.of(100, 10))
