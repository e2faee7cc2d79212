"""Gradient statistics against references in double precision, and exact expectations."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from batchramp.gradient_variance import GradientVariance, NoiseScale


def streamed(rows, **kwargs):
    variance = GradientVariance(**kwargs)
    for row in rows:
        variance.update(row)
    return variance


def worst_error(variance, rows):
    expected = rows.double().var(0)
    return ((variance.variance().double() - expected).abs() / expected).max().item()


@pytest.mark.parametrize(
    ("mean", "streaming", "stacked"),
    [(0.0, 5e-6, 1e-6), (1e3, 1e-3, 1e-5), (1e4, 2e-2, 2e-5)],
)
def test_single_precision_stays_close_at_a_large_mean(mean, streaming, stacked):
    torch.manual_seed(0)
    rows = torch.randn(32, 2000) + mean
    assert worst_error(streamed(rows), rows) < streaming
    assert worst_error(GradientVariance.from_stacked(rows), rows) < stacked


@pytest.mark.parametrize("mean", [0.0, 1e3, 1e4])
def test_double_precision_is_near_exact(mean):
    torch.manual_seed(0)
    rows = torch.randn(32, 500) + mean
    both = (
        streamed(rows, dtype="float64"),
        GradientVariance.from_stacked(rows, dtype="float64"),
    )
    for variance in both:
        assert worst_error(variance, rows) < 1e-9
        assert torch.allclose(variance.mean(), rows.double().mean(0), rtol=1e-12)
        assert variance.variance().dtype == torch.float64


def test_close_values_do_not_cancel():
    rows = torch.tensor([[2281.5], [2281.25]])  # pytorch#2470
    for variance in (streamed(rows), GradientVariance.from_stacked(rows)):
        assert variance.variance().item() == 0.03125


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_merging_equals_streaming_in_any_grouping(one, two, seed):
    rows = torch.from_numpy(np.random.default_rng(seed).normal(size=(one + two, 7)))
    whole = streamed(rows, dtype="float64")
    parts = [
        streamed(part, dtype="float64") for part in (rows[one:].flip(0), rows[:one])
    ]
    merged = GradientVariance(dtype="float64")
    for part in parts:
        merged.merge(part)
    assert merged.count == whole.count == one + two
    assert torch.allclose(merged.mean(), whole.mean(), rtol=1e-10, atol=1e-12)
    assert torch.allclose(
        merged.variance(), whole.variance(), rtol=1e-9, equal_nan=True
    )


def test_merging_with_itself_counts_everything_twice():
    rows = torch.tensor([[1.0], [3.0]])
    variance = streamed(rows)
    variance.merge(variance)
    assert variance.count == 4
    assert variance.variance().item() == pytest.approx(4 / 3)


def test_shapes_types_and_parts_do_not_matter():
    torch.manual_seed(1)
    rows = torch.randn(5, 12)
    expected = streamed(rows).variance()
    forms = (
        lambda row: row.reshape(3, 4),
        lambda row: row.numpy(),
        lambda row: row.reshape(4, 3).t().contiguous().t(),  # not contiguous
        lambda row: [row[:5].clone().requires_grad_(), row[5:].reshape(7, 1)],
        lambda row: row.double(),
    )
    for form in forms:
        assert torch.equal(streamed(form(row) for row in rows).variance(), expected)
    half = streamed(row.bfloat16() for row in rows).variance()
    assert torch.equal(half, streamed(rows.bfloat16().float()).variance())
    mixed = streamed(([row[:5], row[5:].double()] for row in rows), dtype="float64")
    assert torch.allclose(mixed.variance(), expected.double(), rtol=1e-5)


def test_one_gradient_has_a_mean_and_no_variance():
    variance = streamed([torch.tensor([1.0, 2.0])])
    assert variance.mean().tolist() == [1.0, 2.0]
    assert variance.variance().isnan().all()
    assert math.isnan(variance.trace())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_shows_in_its_coordinate_alone(bad):
    rows = torch.tensor([[1.0, 1.0], [bad, 2.0], [3.0, 3.0]])
    for variance in (streamed(rows), GradientVariance.from_stacked(rows)):
        assert not variance.mean()[0].isfinite()
        assert not variance.variance()[0].isfinite()
        assert variance.variance()[1].item() == pytest.approx(1.0)
        assert not math.isfinite(variance.trace())


def test_batches_give_the_variance_per_sample():
    # Mean gradients over b samples vary b times less; the estimate takes that back.
    torch.manual_seed(2)
    samples = torch.randn(4000, 16, dtype=torch.float64)
    means = samples.reshape(500, 8, 16).mean(1)
    variance = GradientVariance.from_stacked(means, 8, dtype="float64")
    assert torch.allclose(variance.variance(), 8 * means.var(0))
    assert variance.trace() == pytest.approx(samples.var(0).sum().item(), rel=0.05)


def test_the_scalar_path_equals_the_coordinates():
    torch.manual_seed(3)
    means = torch.randn(6, 40, dtype=torch.float64) + 1
    noise = NoiseScale()
    noise.update_micro_batches(
        6, 4, means.square().sum().item(), means.mean(0).square().sum().item()
    )
    trace = GradientVariance.from_stacked(means, 4, dtype="float64").trace()
    assert noise.trace == pytest.approx(trace)


@pytest.mark.parametrize(
    ("gradient", "message"),
    [
        (None, "a sequence"),
        ([torch.ones(2), None], "got NoneType"),
        (torch.ones(3), "must have 2 coordinates"),
        (torch.ones(0), "at least one coordinate"),
        ([], "at least one coordinate"),
        (torch.ones(2, dtype=torch.int64), "floating-point"),
        (torch.ones(2, dtype=torch.complex64), "floating-point"),
        (torch.eye(2).to_sparse(), "must be dense"),
        ("ab", "got str"),
    ],
)
def test_bad_gradients_are_refused_and_leave_no_trace(gradient, message):
    variance = streamed([torch.ones(2)])
    with pytest.raises(ValueError, match=message):
        variance.update(gradient)
    assert variance.count == 1


def test_bad_arguments_are_refused():
    for size in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match="batch_size must be"):
            GradientVariance(size)
    with pytest.raises(ValueError, match="dtype must be"):
        GradientVariance(dtype="float16")
    for shape in ((0, 3), (3, 0), (3,), (1, 2, 3)):
        with pytest.raises(ValueError, match="shape"):
            GradientVariance.from_stacked(torch.ones(shape))
    with pytest.raises(ValueError, match="other must have batch_size=1"):
        GradientVariance(1).merge(GradientVariance(2))
    with pytest.raises(ValueError, match="count must be at least 1"):
        GradientVariance().trace()


def truth(gradients):
    return gradients.var(0).sum().item(), gradients.mean(0).square().sum().item()


@pytest.mark.parametrize(("count", "size"), [(2, 1), (3, 1), (2, 2), (2, 3)])
def test_micro_batches_are_unbiased_without_replacement(count, size):
    # The exact expectation: every draw of a small set, each as likely as any other.
    gradients = torch.randn(6, 3, generator=torch.manual_seed(4), dtype=torch.float64)
    estimates = []
    for drawn in itertools.permutations(range(6), count * size):
        means = gradients[list(drawn)].reshape(count, size, 3).mean(1)
        noise = NoiseScale(num_samples=6)
        squares = means.square().sum().item()
        noise.update_micro_batches(
            count, size, squares, means.mean(0).square().sum().item()
        )
        estimates.append((noise.trace, noise.squared_norm))
    assert np.mean(estimates, axis=0) == pytest.approx(truth(gradients))


@pytest.mark.parametrize(("small", "large"), [(1, 2), (2, 5), (1, 6)])
def test_two_sizes_are_unbiased_without_replacement(small, large):
    gradients = torch.randn(6, 3, generator=torch.manual_seed(5), dtype=torch.float64)

    def average(size):
        subsets = itertools.combinations(range(6), size)
        norms = [gradients[list(s)].mean(0).square().sum().item() for s in subsets]
        return sum(norms) / len(norms)

    noise = NoiseScale(num_samples=6)
    # Linear in the squared norms, so their expectations give the estimate's.
    noise.update_two_sizes(small, average(small), large, average(large))
    assert (noise.trace, noise.squared_norm) == pytest.approx(truth(gradients))


def test_the_noise_scale_is_a_ratio_of_debiased_averages():
    noise = NoiseScale(decay=0.9)
    assert math.isnan(noise.noise_scale)
    pairs = [(2.0, 1.0), (4.0, 3.0), (9.0, 2.0)]
    for at_small, at_large in pairs:
        noise.update_two_sizes(1, at_small, 2, at_large)
    # At sizes 1 and 2: trace = 2 (small - large), squared norm = 2 large - small.
    weights = np.array([0.81, 0.9, 1.0]) / 2.71
    trace = weights @ [2 * (a - b) for a, b in pairs]
    squared = weights @ [2 * b - a for a, b in pairs]
    assert noise.trace == pytest.approx(trace)
    assert noise.squared_norm == pytest.approx(squared)
    assert noise.count == 3
    assert noise.noise_scale == (
        pytest.approx(trace / squared) if squared > 0 else math.inf
    )


def test_without_a_signal_the_noise_scale_is_infinite():
    noise = NoiseScale()
    noise.update_two_sizes(1, 4.0, 2, 1.0)
    assert noise.squared_norm < 0
    assert noise.noise_scale == math.inf


def test_the_noise_scale_resumes():
    noise, again = NoiseScale(100, 0.5), NoiseScale(100, 0.5)
    noise.update_micro_batches(2, 4, 3.0, 1.0)
    again.load_state_dict(json.loads(json.dumps(noise.state_dict())))
    for each in (noise, again):
        each.update_micro_batches(2, 4, 5.0, 2.0)
    assert again.state_dict() == noise.state_dict()
    with pytest.raises(ValueError, match="state's num_samples must be None"):
        NoiseScale(decay=0.5).load_state_dict(noise.state_dict())
    with pytest.raises(ValueError, match="state must have the keys"):
        noise.load_state_dict({"count": 1})


def test_bad_noise_is_refused():
    with pytest.raises(ValueError, match="decay must be"):
        NoiseScale(decay=1.0)
    with pytest.raises(ValueError, match="num_samples must be"):
        NoiseScale(0)
    with pytest.raises(ValueError, match=r"count \* batch_size must be at most 10"):
        NoiseScale(10).update_micro_batches(3, 4, 1.0, 1.0)
    noise = NoiseScale()
    noise.update_micro_batches(2, 1, math.nan, 1.0)
    assert math.isnan(noise.noise_scale)
