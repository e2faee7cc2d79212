import json
import math
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import repeat
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchramp.schedules import (
    Horizon,
    Mark,
    MicroBatchEvidence,
    Progress,
    Schedule,
    Settings,
    first_settings,
    make,
    names,
    plan,
)
from batchramp.schedules.batch_sizes import MAX_INTERVALS
from batchramp.schedules.checks import MAX_EVENTS
from batchramp.schedules.durations import MAX_MILESTONES


@dataclass(frozen=True)
class Own(Schedule):
    """Says what it is told to say."""

    said: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self):
        return self.said.get("name", "own")

    @property
    def evidence(self):
        return self.said.get("evidence", frozenset())

    def parameters(self):
        return self.said.get("parameters", {})

    def init(self, horizon):
        return None

    def decide(self, progress, evidence, state):
        return self.said.get("decide", (Settings(2, 0.1, 0.0), state))

    def events(self, horizon):
        return self.said.get("events", ())

    def restore(self, values):
        return values


def deep(depth):
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("method", "said", "told"),
    [
        ("name", None, "name of a schedule must be a string, got None"),
        ("name", "x" * 201, "name of a schedule must have at most 200 characters"),
        ("name", "a\x1b[2Jb", r"name of a schedule must .* got U\+001B"),
        (
            "evidence",
            "micro_batches",
            "evidence of schedule own must be a set of names",
        ),
        ("evidence", 3, "evidence of schedule own must be a set of names, got 3"),
        ("evidence", {3}, "evidence of schedule own must be one of"),
        ("parameters", None, "must return a dict, got None"),
        ("parameters", [1], r"must return a dict, got \[1\]"),
        ("parameters", {1: 2}, "must have strings as keys, got 1"),
        ("parameters", {"a": {1, 2}}, r"JSON values, got \{1, 2\} as 'a'"),
        ("parameters", {"a": np.int64(3)}, r"JSON values, got np.int64\(3\) as 'a'"),
        ("parameters", {"a": float("nan")}, "JSON values, got nan as 'a'"),
        (
            "parameters",
            {"a": 10**9999},
            "JSON values, got a whole number of some 10000",
        ),
        ("parameters", {"a": deep(100_000)}, r"JSON values, got \[\[\[\["),
        ("decide", None, "at position 0: decide must return settings and a state"),
        ("decide", (1, 2, 3), r"must return settings and a state, got \(1, 2, 3\)"),
        ("decide", (None, None), r"return Settings\(batch_size, lr, momentum\) first"),
        ("decide", ((2, 0.1, 0.0), None), r"return Settings\(batch_size"),
        ("decide", (Settings(2, "x", 0), None), "lr must be finite .* got 'x'"),
        ("decide", (Settings(2, -1, 0), None), "lr must be finite and at least 0"),
        ("decide", (Settings(2.5, 1, 0), None), "batch_size must be a whole number"),
        ("decide", (Settings(99, 1, 0), None), "batch_size must be at most 10"),
        ("decide", (Settings(10**400, 1, 0), None), r"must be at most 2\*\*63"),
        ("decide", (Settings(2, 1, None), None), "momentum must be at least 0"),
        ("events", None, "events of schedule 'own' must be marks, got None"),
        ("events", [3], "events of schedule 'own' must be marks, got 3"),
        ("events", repeat(Mark(update=1)), f"must be at most {MAX_EVENTS}, got more"),
    ],
)
def test_what_ones_own_schedule_says_is_named(method, said, told):
    with pytest.raises(ValueError, match=told) as refused:
        plan(Own({method: said}), num_samples=10, epochs=2)
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(
    ("method", "said", "told"),
    [
        ("decide", None, "at position 0: decide must return settings and a state"),
        ("decide", (Settings(99, 1, 0), None), "batch_size must be at most 10"),
        ("events", None, "events of schedule 'own' must be marks, got None"),
    ],
)
def test_what_an_adaptive_schedule_says_first_is_named_too(method, said, told):
    horizon = Horizon.of(10, 2)
    adaptive = {"evidence": frozenset({"micro_batches"})}
    assert first_settings(Own(adaptive), horizon) == Settings(2, 0.1, 0.0)
    with pytest.raises(ValueError, match=told):
        first_settings(Own(adaptive | {method: said}), horizon)


@pytest.mark.parametrize(
    "values",
    [None, 3, "x", [], [1, 2], {}, [1] * 6, [[1], [1], [1], [1], [1]], deep(9)],
)
@pytest.mark.parametrize("name", ["noise-scale", "smith-increase"])
def test_what_is_no_state_of_a_schedule_is_refused(name, values):
    schedule = make(name)
    state = schedule.init(Horizon.of(50_000, 30))
    assert schedule.restore(json.loads(json.dumps(state))) == state
    with pytest.raises(ValueError, match=f"^state of schedule '{name}' must be"):
        schedule.restore(values)


def test_evidence_that_overflows_counts_as_none():
    schedule = make("noise-scale")
    state = schedule.init(Horizon.of(10**6, 1))
    for norms in ((1e308, 1e307), (1.7e308, 0.0), (float("inf"), 1.0), (1.0, 5e-324)):
        evidence = MicroBatchEvidence(
            count=4,
            batch_size=10**5,
            sum_squared_norms=norms[0],
            squared_norm_of_mean=norms[1],
        )
        settings, state = schedule.decide(Progress(0, 1), evidence, state)
        assert 8 <= settings.batch_size <= 4096
        assert all(map(math.isfinite, state))


def test_whole_numbers_of_any_kind_are_planned_as_ints():
    said = {"decide": (Settings(np.int64(2), np.float32(0.5), 0), None)}
    laid = plan(Own(said), num_samples=np.int32(10), epochs=np.float64(2))
    assert json.loads(json.dumps(laid.to_dict()))["updates"] == laid.updates == 10
    assert laid.runs == ((0, 2),)
    horizon = Horizon(num_samples=np.int64(10), budget=np.uint8(20))
    assert {type(horizon.num_samples), type(horizon.budget)} == {int}
    assert Mark(position=np.int64(3)) == Mark(position=3)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (3, "^schedule must be a Schedule, .* got 3"),
        (None, "^schedule must be a Schedule, .* got None"),
        (Own, "^schedule must be a Schedule, .*a class: call it"),
        ("x" * 10**6, "^schedule must have at most 200 characters"),
        ("constant\x00", r"^schedule must have no control characters, got U\+0000"),
    ],
)
def test_a_plan_is_of_a_schedule(given, told):
    with pytest.raises(ValueError, match=told) as refused:
        plan(given)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("mark", [{}, {"position": 1, "update": 1}, {"position": "3"}])
def test_a_mark_has_one_place(mark):
    with pytest.raises(ValueError, match=r"must be|must have either"):
        Mark(**mark)


HUGE = ["1e999", "9" * 400, "9" * 10**4, 10**400, 10**9999, 1e308, float("inf"), "nan"]
HUGE += [float("nan"), -(10**9999), Fraction(10**9999), Fraction(1, 10**9999), "1e9999"]


@pytest.mark.parametrize("value", HUGE, ids=range(len(HUGE)))
@pytest.mark.parametrize("argument", ["num_samples", "epochs"])
def test_a_number_without_end_is_refused_by_name(argument, value):
    with pytest.raises(ValueError, match=f"^{argument} must ") as refused:
        plan("constant", **{"num_samples": 500, "epochs": 2, argument: value})
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("name", "parameters", "told"),
    [
        (
            "umeda-increasing-batch",
            {"interval": "1 sample", "form": "affine"},
            f"interval must cut the budget into at most {MAX_INTERVALS} intervals",
        ),
        (
            "umeda-increasing-batch",
            {"interval": 1e-4, "form": "affine", "growth": 1e308},
            "interval must .* at most 256 intervals for an affine form",
        ),
        (
            "smith-increase",
            {"milestones": [f"{i} samples" for i in range(10**5)]},
            f"milestones must be at most {MAX_MILESTONES}, got 100000",
        ),
        (
            "smith-increase",
            {"milestones": [f"{i} samples" for i in range(1, 99)], "factor": 1e308},
            "milestones must be at most 32 for a factor of 1e.308",
        ),
        (
            "smith-increase",
            {"milestones": ["1e999 epochs"]},
            "milestones must be at mo",
        ),
        ("smith-increase", {"milestones": deep(10**5)}, "milestones must be"),
        ("constant-warmup", {"warmup": "1e999 updates"}, "warmup must be at most"),
        ("umeda-warmup", {"interval": "1e999 epochs"}, "interval must be at most"),
    ],
)
def test_a_size_that_would_cost_time_is_refused_by_number(name, parameters, told):
    with pytest.raises(ValueError, match=told):
        plan(name, **parameters)


NUMBERS = (
    st.integers(-3, 10**4)
    | st.integers()
    | st.floats()
    | st.sampled_from(HUGE)
    | st.fractions()
)
VALUES = (
    NUMBERS
    | st.none()
    | st.booleans()
    | st.text(max_size=5)
    | st.sampled_from(["2 epochs", "0.5", ".1 epochs", "7 updates", "affine", "cosine"])
    | st.lists(NUMBERS | st.text(max_size=3), max_size=4)
    | st.dictionaries(st.text(max_size=3), NUMBERS, max_size=2)
)
PARAMETERS = [
    "lr",
    "max_lr",
    "lr_growth",
    "base_lr",
    "batch_size",
    "base_batch_size",
    "max_batch_size",
    "growth",
    "interval",
    "form",
    "decay",
    "power",
    "warmup",
    "milestones",
    "factor",
    "momentum",
]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(names()) | VALUES,
    parameters=st.dictionaries(st.sampled_from(PARAMETERS), VALUES, max_size=3),
    num_samples=st.none() | st.integers(1, 10**4) | VALUES,
    epochs=st.none() | st.integers(1, 30) | VALUES,
    boundary=st.sampled_from(["keep", "drop", "wrap"]) | VALUES,
)
def test_any_arguments_are_planned_or_refused(
    name, parameters, num_samples, epochs, boundary
):
    if isinstance(name, str) and name in names():
        known = make(name).parameters()
        parameters = {key: value for key, value in parameters.items() if key in known}
    try:
        laid = plan(
            name,
            num_samples=num_samples,
            epochs=epochs,
            boundary=boundary,
            **parameters,
        )
    except ValueError as error:
        assert 0 < len(str(error)) < 1000  # noqa: PT017
    else:
        assert json.loads(json.dumps(laid.to_dict(), allow_nan=False))
        assert laid.updates == sum(stage.updates for stage in laid.stages)
        assert laid.settings_at(laid.horizon.budget - 1).batch_size >= 1
