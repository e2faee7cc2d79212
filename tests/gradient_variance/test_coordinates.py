"""Variances against references in double precision and in exact arithmetic."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from batchramp.gradient_variance import GradientVariance


def streamed(rows, batch_size=1, **kwargs):
    variance = GradientVariance(batch_size, **kwargs)
    for row in rows:
        variance.update(row)
    return variance


def both(rows, **kwargs):
    return streamed(rows, **kwargs), GradientVariance.from_stacked(rows, **kwargs)


@pytest.mark.parametrize("count", [2, 3, 8, 9, 31, 32, 257, 1000, 10_000])
@pytest.mark.parametrize(
    ("mean", "streaming"), [(0.0, 1e-5), (1.0, 1e-5), (1e3, 1e-3), (1e4, 2e-2)]
)
def test_variances_stay_close_at_a_large_mean(mean, streaming, count):
    # In units of the samples' own variance, 1, below which two rows may fall by chance.
    rows = torch.randn(count, 100, generator=torch.manual_seed(count)) + mean
    expected = rows.double().var(0)
    scale = expected.clamp(min=1.0)

    def error(variance):
        return ((variance.variance() - expected).abs() / scale).max().item()

    single, stacked = both(rows)
    assert error(single) < streaming
    assert error(stacked) < 1e-5
    for variance in both(rows, dtype="float64"):
        assert variance.count == count
        assert error(variance) < 1e-10
        assert torch.allclose(variance.mean(), rows.double().mean(0), rtol=1e-12)
        assert variance.trace() == pytest.approx(expected.sum().item(), rel=1e-9)


@given(st.lists(st.integers(-(2**23), 2**23), min_size=2, max_size=40))
def test_variances_are_those_of_exact_arithmetic(numbers):
    exact = [Fraction(number, 1024) for number in numbers]
    mean = sum(exact) / len(exact)
    expected = sum((number - mean) ** 2 for number in exact) / (len(exact) - 1)
    rows = torch.tensor([[float(number)] for number in exact])
    for variance in both(rows, dtype="float64"):
        assert variance.mean().item() == pytest.approx(float(mean), rel=1e-12, abs=1e-9)
        assert variance.variance().item() == pytest.approx(
            float(expected), rel=1e-9, abs=1e-9
        )
    stacked = GradientVariance.from_stacked(rows).variance().item()
    assert stacked == pytest.approx(float(expected), rel=2e-5)


def test_close_values_do_not_cancel():
    rows = torch.tensor([[2281.5], [2281.25]])  # pytorch#2470
    for variance in both(rows):
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


@pytest.mark.parametrize("state", ["float32", "float64"])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16]
)
def test_every_precision_is_read_as_it_is(dtype, state):
    rows = torch.randn(20, 37, generator=torch.manual_seed(1)).to(dtype)
    wide = rows.to(torch.float32 if state == "float32" else torch.float64)
    for got, expected in zip(
        both(rows, dtype=state), both(wide, dtype=state), strict=True
    ):
        assert torch.equal(got.mean(), expected.mean())
        assert torch.equal(got.variance(), expected.variance())
        assert got.variance().dtype == getattr(torch, state)
    if dtype != torch.bfloat16:  # which NumPy does not know
        array = streamed(rows.numpy(), dtype=state)
        assert torch.equal(array.variance(), streamed(wide, dtype=state).variance())


def test_forms_and_layouts_do_not_matter():
    rows = torch.randn(5, 12, generator=torch.manual_seed(1))
    expected = streamed(rows).variance()

    def unaligned(row):
        values = np.frombuffer(b"." + row.numpy().tobytes(), np.uint8)
        return values[1:].view(np.float32)

    forms = (
        lambda row: row.reshape(3, 4),
        lambda row: row.numpy(),
        lambda row: row.reshape(4, 3).t().contiguous().t(),
        lambda row: np.asfortranarray(row.reshape(4, 3).numpy()),
        lambda row: np.ascontiguousarray(row.numpy()[::-1])[::-1],
        lambda row: row.numpy().astype(">f4"),
        lambda row: row.numpy().astype(np.longdouble),
        unaligned,
        lambda row: [row[:5].clone().requires_grad_(), row[5:].reshape(7, 1)],
        lambda row: (row[:5], row[5:5], row[5:].numpy().astype(np.float64)),
        lambda row: row.double(),
        lambda row: torch._neg_view(-row),
    )
    for form in forms:
        assert torch.equal(streamed(form(row) for row in rows).variance(), expected)
    stacked = GradientVariance.from_stacked(rows.t().contiguous().t())
    assert torch.equal(
        stacked.variance(), GradientVariance.from_stacked(rows).variance()
    )


def test_a_module_gives_the_gradients_of_its_parameters_in_order():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model[1].requires_grad_(False)
    module, flat = GradientVariance(), GradientVariance()
    for _ in range(3):
        model.zero_grad()
        model(torch.randn(5, 3)).square().sum().backward()
        module.update(model)
        gradients = [p.grad for p in model.parameters() if p.requires_grad]
        flat.update(torch.cat([gradient.flatten() for gradient in gradients]))
    assert torch.equal(module.variance(), flat.variance())
    embedding = nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="gradient of 'weight' must be dense"):
        GradientVariance().update(embedding)


def test_one_gradient_has_a_mean_and_no_variance():
    variance = streamed([torch.tensor([1.0, 2.0])])
    assert variance.mean().tolist() == [1.0, 2.0]
    assert variance.variance().isnan().all()
    assert math.isnan(variance.trace())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_shows_in_its_coordinate_alone(bad):
    rows = torch.tensor([[1.0, 1.0], [bad, 2.0], [3.0, 3.0]])
    for variance in both(rows):
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
    between = variance.variance(per_sample=False)
    assert torch.allclose(between, means.var(0))
    assert variance.trace(per_sample=False) == pytest.approx(between.sum().item())


@pytest.mark.parametrize(
    ("gradient", "message"),
    [
        (None, "a sequence"),
        (iter([torch.ones(2)]), "a sequence"),
        ([torch.ones(2), None], r"gradient\[1\] must be .* got NoneType"),
        (torch.ones(2, device="meta"), "must hold numbers"),
        (np.ones(2, dtype=np.uint16), "got uint16"),
        (nn.Linear(2, 1), "gradient of 'weight' must not be None"),
        (nn.ReLU(), "at least one coordinate"),
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
    with pytest.raises(ValueError, match="must have 2 coordinates"):
        streamed([torch.ones(2)]).merge(streamed([torch.ones(3)]))
    with pytest.raises(ValueError, match="other must be a GradientVariance"):
        GradientVariance().merge(torch.ones(2))
