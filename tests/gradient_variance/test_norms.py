"""Squared norms on the CPU, against double precision."""

import math

import pytest
import torch

from batchramp.gradient_variance import (
    GradientNorms,
    GradientVariance,
    NoiseScale,
    squared_norm,
)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16]
)
def test_a_squared_norm_is_taken_in_double_precision(dtype):
    gradient = (torch.randn(40_000, generator=torch.manual_seed(0)) * 1e3).to(dtype)
    expected = gradient.double().square().sum().item()
    assert squared_norm(gradient) == pytest.approx(expected, rel=1e-13)
    parts = [gradient[:70], gradient[70:].reshape(2, -1).t(), gradient[:0]]
    assert squared_norm(parts) == pytest.approx(expected, rel=1e-13)
    # Single precision would overflow here.
    assert squared_norm(torch.full((3,), 1e30)) == pytest.approx(3e60)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_norms_add_up_to_those_of_the_mean(dtype):
    torch.manual_seed(1)
    norms = GradientNorms(dtype=dtype)
    assert norms.count == 0
    assert norms.sum_squared_norms == 0.0
    assert math.isnan(norms.squared_norm_of_mean)
    for count in (3, 1, 5):
        norms.reset()
        rows = torch.randn(count, 4321) + 0.5
        each = [norms.update([row[:1000], row[1000:]]) for row in rows]
        squares = rows.double().square().sum(1)
        assert each == pytest.approx(squares.tolist(), rel=1e-13)
        assert norms.count == count
        assert norms.sum_squared_norms == pytest.approx(squares.sum().item())
        mean = rows.double().mean(0).square().sum().item()
        assert norms.squared_norm_of_mean == pytest.approx(mean, rel=1e-6)


def test_norms_and_coordinates_give_one_trace():
    torch.manual_seed(2)
    norms, variance, noise = (
        GradientNorms(dtype="float64"),
        GradientVariance(4),
        NoiseScale(None),
    )
    for row in torch.randn(6, 500) + 1:
        norms.update(row)
        variance.update(row)
    noise.update_micro_batches(
        norms.count, 4, norms.sum_squared_norms, norms.squared_norm_of_mean
    )
    assert noise.trace() == pytest.approx(variance.trace(), rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_shows(bad):
    norms = GradientNorms()
    norms.update(torch.ones(3))
    assert not math.isfinite(norms.update(torch.tensor([1.0, bad, 1.0])))
    assert not math.isfinite(norms.sum_squared_norms)
    assert not math.isfinite(norms.squared_norm_of_mean)
    norms.reset()
    norms.update(torch.ones(3))
    assert norms.squared_norm_of_mean == 3.0


def test_bad_gradients_are_refused_and_leave_no_trace():
    norms = GradientNorms()
    norms.update(torch.ones(2))
    for gradient, message in (
        (None, "a sequence"),
        (torch.ones(3), "must have 2 coordinates"),
        ([], "at least one coordinate"),
        (torch.eye(2).to_sparse(), "must be dense"),
    ):
        with pytest.raises(ValueError, match=message):
            norms.update(gradient)
    assert norms.count == 1
    with pytest.raises(ValueError, match="dtype must be"):
        GradientNorms(dtype="bfloat16")
    with pytest.raises(ValueError, match="got NoneType"):
        squared_norm([None])
