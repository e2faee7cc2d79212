"""Updates that overflowed: skipped and counted by the noise scale, never waited for."""

import copy
import json
import math
import pickle

import pytest
import torch

from batchramp.gradient_variance import NoiseScale, squared_norm

GOOD = [(12.0, 2.0), (15.0, 3.0), (11.0, 2.5), (14.0, 2.0)]
BAD = [
    *((math.inf, 2.0), (math.nan, math.nan), (12.0, math.nan), (3.0, math.inf)),
    (1e308, 0.0),  # finite, but what follows is not
]


def updated(pairs, kind=float, decay=0.5):
    noise = NoiseScale(1000, decay)
    for total, mean in pairs:
        noise.update_micro_batches(4, 8, kind(total), kind(mean))
    return noise


def averages(noise):
    left_out = ("count", "skipped")
    return {k: v for k, v in noise.state_dict().items() if k not in left_out}


def double(value):
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("kind", [float, double])
@pytest.mark.parametrize("at", [0, 2, 4])
@pytest.mark.parametrize("bad", BAD)
def test_an_overflow_is_skipped_and_counted(bad, at, kind):
    expected = updated(GOOD)
    noise = updated([*GOOD[:at], bad, *GOOD[at:]], kind)
    assert noise.count == 5
    assert noise.skipped == 1
    assert averages(noise) == averages(expected)
    assert noise.interval() == expected.interval()
    assert noise.noise_scale() == expected.noise_scale()
    assert (expected.count, expected.skipped) == (4, 0)


def test_two_sizes_skip_too():
    noise, expected = NoiseScale(None), NoiseScale(None)
    for small, large in ((5.0, 2.0), (math.inf, 2.0), (5.0, math.nan), (6.0, 2.0)):
        noise.update_two_sizes(1, small, 9, torch.tensor(large))
        if math.isfinite(small + large):
            expected.update_two_sizes(1, small, 9, large)
    assert noise.skipped == 2
    assert averages(noise) == averages(expected)


def test_of_a_run_that_diverged_the_finite_part_is_left():
    noise = updated([*GOOD, *BAD * 3])
    assert noise.noise_scale() == updated(GOOD).noise_scale()
    assert noise.skipped == len(BAD) * 3
    never = updated(BAD)
    assert math.isnan(never.noise_scale())
    assert math.isnan(never.trace())
    assert never.interval() == (0.0, math.inf)
    assert (never.count, never.skipped) == (len(BAD), len(BAD))


def test_half_precision_that_overflows_costs_one_update():
    # As under mixed precision, whose loss scale is halved after an overflow.
    torch.manual_seed(0)
    noise, scale = NoiseScale(None), 2.0**16
    for _ in range(20):
        gradients = torch.randn(4, 50) + 1
        halves = (gradients * scale).half()
        if not halves.isfinite().all():
            scale /= 2
        unscaled = halves.float() / scale if halves.isfinite().all() else halves.float()
        norms = squared_norm(unscaled), squared_norm(unscaled.mean(0))
        noise.update_micro_batches(4, 8, *norms)
    assert 1 <= noise.skipped <= 3
    low, high = noise.interval()
    assert low <= 8 <= high < 20  # per sample, the trace is 8 x 50 and |G|^2 is 50


@pytest.mark.parametrize("kind", [float, double])
def test_what_was_skipped_is_in_the_state(kind):
    noise = updated([*GOOD, BAD[0]], kind)
    state = noise.state_dict()
    assert (state["count"], state["skipped"]) == (5, 1)
    again = NoiseScale(1000, 0.5)
    again.load_state_dict(json.loads(json.dumps(state, allow_nan=False)))
    others = [again, copy.deepcopy(noise), pickle.loads(pickle.dumps(noise))]
    for each in (noise, *others):
        each.update_micro_batches(4, 8, 13.0, 2.0)
        each.update_micro_batches(4, 8, math.nan, 2.0)
    for other in others:
        assert other.state_dict() == noise.state_dict()
        assert (other.count, other.skipped) == (7, 2)
    for wrong, message in ((6, "at most 5"), (-1, "at least 0"), (1.5, "a whole")):
        with pytest.raises(ValueError, match=f"state's skipped must be {message}"):
            again.load_state_dict(state | {"skipped": wrong})


def test_states_from_before_are_read():
    noise = updated(GOOD)
    old = {k: v for k, v in noise.state_dict().items() if k != "skipped"}
    again = NoiseScale(1000, 0.5)
    again.load_state_dict(old | {"version": 2})
    assert again.state_dict() == noise.state_dict()
    for version in (1, 3):
        with pytest.raises(ValueError, match=r"the keys|version must be"):
            again.load_state_dict(old | {"version": version})
    # One that an overflow had made NaN begins anew, and says so.
    again.load_state_dict(old | {"version": 2, "trace": math.nan})
    assert (again.count, again.skipped) == (4, 4)
    assert math.isnan(again.noise_scale())
    again.update_micro_batches(4, 8, *GOOD[0])
    assert averages(again) == averages(updated(GOOD[:1]))


def test_nothing_waits_until_skipped_is_read():
    unreadable = torch.ones((), device="meta")  # reading it raises
    noise = NoiseScale(None)
    for _ in range(5):
        noise.update_micro_batches(4, 8, unreadable, unreadable)
    assert noise.count == 5
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        _ = noise.skipped
