"""Norms of a run that diverges: what is asked of them is defined, and never raises."""

import itertools
import json
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchramp import GradientVariance, NoiseScale
from batchramp.gradient_variance.interval import Covariance, ratio_interval
from batchramp.gradient_variance.norms import GradientNorms

SIZES = [1e-300, 1e-154, 1e-77, 1.0, 1e77, 1e100, 1e150]


def noise_at(scale):
    noise = NoiseScale(None)
    for small in (5.0, 7.0, 4.0, 6.0):
        noise.update_two_sizes(1, scale * small, 9, scale * 2.0)
    return noise


@pytest.mark.parametrize("scale", SIZES)
def test_a_ratio_does_not_depend_on_the_unit(scale):
    # By a power of two, so that no digit changes.
    unit = 2.0 ** round(math.log2(scale))
    ours, plain = noise_at(unit), noise_at(1.0)
    assert ours.noise_scale() == plain.noise_scale()
    if scale >= 1e-77:  # below it, variances are no longer normal doubles
        assert ours.interval() == plain.interval()
    low, high = ours.interval()
    assert 0 <= low <= ours.noise_scale() <= high


@pytest.mark.parametrize("scale", [1e155, 1e200, 1e307])
def test_a_variance_beyond_the_largest_double_has_no_interval(scale):
    noise = noise_at(scale)
    assert noise.noise_scale() == pytest.approx(noise_at(1.0).noise_scale())
    assert all(map(math.isnan, noise.interval()))


NORMS = (
    st.floats(min_value=0)
    | st.sampled_from([0.0, 1e77, 1e154, 1e155, 1e308, 5e-324, math.inf, math.nan])
    | st.floats(min_value=0).map(torch.tensor)
    | st.floats(min_value=0).map(np.float64)
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    updates=st.lists(st.tuples(NORMS, NORMS, st.booleans()), max_size=6),
    decay=st.sampled_from([0.0, 0.5, 0.9, 1 - 2**-53]),
    num_samples=st.none() | st.just(100),
    level=st.sampled_from([5e-324, 0.5, 0.95, 1 - 2**-53]),
)
def test_any_norms_have_defined_results(updates, decay, num_samples, level):
    noise = NoiseScale(num_samples, decay)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for first, second, micro in updates:
            if micro:
                noise.update_micro_batches(3, 4, first, second)
            else:
                noise.update_two_sizes(1, first, 12, second)
        results = noise.trace(), noise.squared_norm(), noise.noise_scale()
        low, high = noise.interval(level)
    assert all(isinstance(result, float) for result in (*results, low, high))
    assert 0 <= low <= high or (math.isnan(low) and math.isnan(high))


FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    estimates=st.tuples(FLOATS, FLOATS),
    covariance=st.builds(Covariance, FLOATS, FLOATS, FLOATS),
    freedom=st.floats(1e-9, 1e9),
    level=st.floats(0, 1),
)
def test_any_estimates_have_an_interval(estimates, covariance, freedom, level):
    low, high = ratio_interval(*estimates, covariance, freedom, level)
    assert low <= high or math.isnan(low) or math.isnan(high)


@pytest.mark.parametrize("unit", [1e-30, 1e-18, 1.0, 1e18, 1e25])
def test_variances_hold_what_their_precision_says(unit):
    rows = torch.randn(30, 50, generator=torch.manual_seed(0)) * unit
    expected = rows.double().var(0)
    for dtype in ("float32", "float64"):
        streamed = GradientVariance(dtype=dtype)
        for row in rows:
            streamed.update(row)
        stacked = GradientVariance.from_stacked(rows, dtype=dtype)
        for variance in (streamed, stacked):
            close = torch.allclose(variance.variance().double(), expected, 1e-5, 0)
            # Beyond what single precision can square, a state in it says 0 or infinity.
            assert close == (dtype == "float64" or 1e-18 <= unit <= 1e18)


WRONG = [10**400, 10**9999, "3", None, True, [3.0], object(), 1j, torch.tensor(1j)]


@pytest.mark.parametrize("value", WRONG, ids=itertools.count())
def test_what_is_no_number_is_named_in_few_words(value):
    def refused(function, name):
        with pytest.raises(ValueError, match=f"^{name} must be ") as told:
            function(value)
        assert len(str(told.value)) < 300

    noise = noise_at(1.0)
    before = noise.state_dict()
    refused(lambda v: NoiseScale(None, decay=v), "decay")
    refused(lambda v: noise.update_two_sizes(1, v, 2, 1.0), "a squared norm")
    refused(lambda v: noise.update_two_sizes(1, torch.ones(()), 2, v), "a squared norm")
    refused(lambda v: noise.update_micro_batches(v, 1, 1.0, 1.0), "count")
    refused(lambda v: noise.update_micro_batches(2, v, 1.0, 1.0), "batch_size")
    refused(lambda v: noise.update_two_sizes(v, 1.0, 2, 1.0), "small_batch_size")
    refused(noise.interval, "level")
    refused(lambda v: noise.load_state_dict(before | {"count": v}), "state's count")
    refused(lambda v: noise.load_state_dict(before | {"decay": v}), "state's decay")
    refused(lambda v: noise.load_state_dict(before | {"trace": v}), "state's trace")
    refused(lambda v: GradientVariance(v), "batch_size")
    refused(lambda v: GradientVariance(dtype=v), "dtype")
    if value is not None:
        refused(lambda v: NoiseScale(v), "num_samples")
    assert noise.state_dict() == before


def test_a_states_whole_numbers_may_be_of_any_kind():
    noise, again = NoiseScale(100), NoiseScale(np.int64(100))
    noise.update_micro_batches(np.int32(2), np.int64(4), np.float32(3), 1)
    state = noise.state_dict()
    again.load_state_dict(
        {
            k: np.int64(v) if isinstance(v, int) else np.float64(v)
            for k, v in state.items()
        }
    )
    assert json.loads(json.dumps(again.state_dict())) == state
    variance, same = GradientVariance(4), GradientVariance(np.int64(4))
    variance.update(torch.ones(3))
    given = variance.state_dict() | {"count": torch.tensor(1), "version": np.int64(1)}
    same.load_state_dict(given)
    assert same.count == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 3e38])
def test_gradients_that_are_not_finite_give_what_follows(bad):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        variance, norms = GradientVariance(), GradientNorms()
        for gradient in (torch.ones(3), torch.tensor([1.0, bad, 2.0])):
            variance.update(gradient)
            norms.update(gradient)
        assert math.isfinite(variance.variance()[0])
        assert not math.isfinite(variance.variance()[1])
        assert not math.isfinite(variance.trace())
        assert math.isfinite(norms.sum_squared_norms) == math.isfinite(bad)
        again = GradientVariance()
        again.load_state_dict(variance.state_dict())
        variance.merge(again)
        assert variance.count == 4
