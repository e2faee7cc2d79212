import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchramp.schedules import (
    MICRO_BATCHES,
    Horizon,
    MicroBatchEvidence,
    Progress,
    make,
    plan,
)

HORIZON = Horizon(num_samples=1297, budget=12_970)


def evidence(total, mean, count=4, size=2):
    return MicroBatchEvidence(
        count=count, batch_size=size, sum_squared_norms=total, squared_norm_of_mean=mean
    )


def direct_sizes(seen, n, first, largest):
    """The definition, written out: weights of .1 * .9^age, normalised."""
    current, sizes, traces, norms = first, [], [], []
    for item in seen:
        k, b = item.count, item.batch_size
        spread = (item.sum_squared_norms - k * item.squared_norm_of_mean) / (k - 1)
        trace = b * spread
        traces.append(trace)
        norms.append(item.squared_norm_of_mean - trace * (1 / (k * b) - 1 / n))
        weights = [0.9 ** (len(traces) - 1 - i) for i in range(len(traces))]
        s = math.fsum(w * x for w, x in zip(weights, traces, strict=True))
        g = math.fsum(w * x for w, x in zip(weights, norms, strict=True))
        if g > 0:
            current = min(max(round(s / g), current), largest)
        sizes.append(current)
    return sizes


@given(
    st.lists(
        st.tuples(
            st.floats(0.1, 100),
            st.floats(1.0, 30.0),
            st.integers(2, 8),
            st.integers(1, 32),
        ),
        max_size=30,
    )
)
def test_sizes_against_the_definition(items):
    # The sum of squared norms is never below K times that of the mean.
    seen = [
        evidence(count * mean * ratio, mean, count, size)
        for mean, ratio, count, size in items
    ]
    schedule = make("noise-scale", max_batch_size=1000)
    state = schedule.init(HORIZON)
    decided = []
    for update, item in enumerate(seen):
        settings, state = schedule.decide(Progress(0, update), item, state)
        assert settings.lr == 0.1
        decided.append(settings.batch_size)
        restored = schedule.restore(json.loads(json.dumps(state)))
        assert restored == state
        assert type(restored) is type(state)
    expected = direct_sizes(seen, 1297, 8, 1000)
    # Sums in another order may round the other way at a half.
    assert all(abs(a - b) <= 1 for a, b in zip(decided, expected, strict=True))
    assert decided == sorted(decided)


def test_one_step_by_hand():
    schedule = make("noise-scale", max_batch_size=1000)
    # trace = 2 * (44 - 4 * 2) / 3 = 24; G^2 = 2 - 24 (1/8 - 1/1297) < 0: it stays.
    state = schedule.init(HORIZON)
    settings, _ = schedule.decide(Progress(0, 0), evidence(44.0, 2.0), state)
    assert settings.batch_size == 8
    # trace = 24; G^2 = 4 - 3 + 24/1297 = 1.0185: 23.56 is rounded to 24.
    settings, state = schedule.decide(Progress(0, 0), evidence(52.0, 4.0), state)
    assert settings.batch_size == 24
    settings, again = schedule.decide(Progress(8, 1), None, state)
    assert settings.batch_size == 24
    assert again == state


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_evidence_that_is_not_finite_counts_as_none(bad):
    schedule = make("noise-scale", max_batch_size=1000)
    state = schedule.init(HORIZON)
    assert schedule.decide(Progress(0, 0), evidence(bad, 1.0), state)[1] == state
    assert schedule.decide(Progress(0, 0), evidence(bad, bad), state)[1] == state


def test_a_vanishing_gradient_asks_for_the_largest_batch():
    schedule = make("noise-scale", max_batch_size=1000)
    # The spread explains all but 1e-9 of the squared norm of the mean.
    trace = (1 - 1e-9) / (1 / 2 - 1 / 1297)
    seen = evidence(trace + 2, 1.0, count=2, size=1)
    settings, _ = schedule.decide(Progress(0, 0), seen, schedule.init(HORIZON))
    assert settings.batch_size == 1000


def test_evidence_needs_two_micro_batches():
    with pytest.raises(ValueError, match="count must be a whole number of at least 2"):
        evidence(1.0, 1.0, count=1)


def test_it_declares_its_evidence_and_no_events():
    schedule = make("noise-scale")
    assert schedule.evidence == {MICRO_BATCHES}
    assert schedule.events(HORIZON) == ()


def test_it_cannot_be_planned():
    with pytest.raises(ValueError, match=r"static to be planned, got 'noise-scale'"):
        plan("noise-scale")


def test_it_may_not_grow_above_the_number_of_samples():
    with pytest.raises(ValueError, match=r"max_batch_size must be at most 1297 .*4096"):
        make("noise-scale").init(HORIZON)
