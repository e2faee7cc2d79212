"""Gradient statistics by name: between micro-batches, and what all of them share."""

import pytest
import torch
from torch import nn

from batchramp.gradient_variance import GradientVariance, NoiseScale
from batchramp.gradient_variance.statistics import (
    STATISTICS,
    micro_batch_statistics,
)


def split(stacked):
    """Gradients of 12 numbers as those of two parameters."""
    return [[row[:8].view(2, 4), row[8:]] for row in stacked]


def flat(parts):
    return torch.cat([part.reshape(-1) for part in parts])


@pytest.fixture
def stacked():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 12, generator=generator, dtype=torch.float64) + 0.5


def test_every_statistic_is_what_its_name_says(stacked):
    found = micro_batch_statistics(iter(split(stacked)), STATISTICS, batch_size=4)
    mean = stacked.mean(0)
    products = stacked @ mean
    across = stacked - torch.outer(products / (mean @ mean), mean)
    torch.testing.assert_close(flat(found.mean), mean)
    torch.testing.assert_close(found.sum_squared_norms, stacked.square().sum())
    torch.testing.assert_close(found.squared_norm_of_mean, mean @ mean)
    torch.testing.assert_close(found.inner_products, products)
    torch.testing.assert_close(found.orthogonal, across.square().sum(1))
    torch.testing.assert_close(flat(found.variance), 4 * stacked.var(0))
    assert [part.shape for part in found.variance] == [(2, 4), (4,)]
    assert (found.count, found.batch_size) == (5, 4)


@pytest.mark.parametrize("name", STATISTICS)
def test_nothing_else_is_computed(stacked, name):
    found = micro_batch_statistics(split(stacked), {name}, batch_size=1)
    assert [other for other in STATISTICS if getattr(found, other) is not None] == [
        name
    ]


def test_streamed_gradients_may_reuse_their_memory(stacked):
    names = ("sum_squared_norms", "squared_norm_of_mean", "variance")

    def reused():
        memory = torch.empty(12, dtype=torch.float64)
        for row in stacked:
            yield [memory.copy_(row)]

    found = micro_batch_statistics(reused(), names, batch_size=1)
    torch.testing.assert_close(found.variance[0], stacked.var(0))
    torch.testing.assert_close(found.mean[0], stacked.mean(0))


def test_mean_sum_and_accumulated_losses_give_one_trace():
    torch.manual_seed(1)
    model = nn.Linear(6, 3).double()
    inputs = torch.randn(24, 6, dtype=torch.float64)
    targets = torch.randint(3, (24,))

    def gradients(reduction, over):
        for part in torch.arange(24).split(4):
            loss = nn.functional.cross_entropy(
                model(inputs[part]), targets[part], reduction=reduction
            )
            yield torch.autograd.grad(loss / over, list(model.parameters()))

    names = ("variance", "sum_squared_norms", "squared_norm_of_mean")
    forms = (("mean", 1, None), ("mean", 1, 4), ("sum", 1, 1), ("mean", 6, 24))
    traces = []
    for reduction, over, divisor in forms:
        found = micro_batch_statistics(
            gradients(reduction, over), names, batch_size=4, divisor=divisor
        )
        noise = NoiseScale(None)
        noise.update_micro_batches(
            found.count,
            found.batch_size,
            found.sum_squared_norms,
            found.squared_norm_of_mean,
        )
        assert noise.trace() == pytest.approx(float(flat(found.variance).sum()))
        traces.append(noise.trace())
    assert traces == pytest.approx([traces[0]] * len(forms), rel=1e-12)


def test_the_scalar_path_equals_the_coordinates(stacked):
    found = micro_batch_statistics(
        split(stacked), ("sum_squared_norms", "squared_norm_of_mean"), batch_size=4
    )
    noise = NoiseScale(None)
    noise.update_micro_batches(
        5, 4, found.sum_squared_norms, found.squared_norm_of_mean
    )
    variance = GradientVariance.from_stacked(stacked, 4, dtype="float64")
    assert noise.trace() == pytest.approx(variance.trace())


def test_half_precision_is_summed_in_single(stacked):
    halves = [[part.bfloat16() for part in parts] for parts in split(stacked)]
    singles = [[part.float() for part in parts] for parts in halves]
    found, expected = (
        micro_batch_statistics(parts, STATISTICS, batch_size=1)
        for parts in (halves, singles)
    )
    for name in ("sum_squared_norms", "inner_products", "orthogonal"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))


def test_a_mean_of_zero_has_nothing_along_it():
    pair = [[torch.tensor([3.0, 4.0])], [torch.tensor([-3.0, -4.0])]]
    found = micro_batch_statistics(pair, STATISTICS, batch_size=1)
    assert found.orthogonal.tolist() == [25.0, 25.0]
    assert found.inner_products.tolist() == [0.0, 0.0]


def test_what_is_not_finite_shows():
    bad = [[torch.tensor([1.0, float("nan")])], [torch.tensor([1.0, 2.0])]]
    found = micro_batch_statistics(bad, STATISTICS, batch_size=1)
    for name in ("sum_squared_norms", "squared_norm_of_mean"):
        assert getattr(found, name).isnan()
    assert found.orthogonal[0].isnan()
    assert found.variance[0].isnan().tolist() == [False, True]


@pytest.mark.parametrize(
    ("gradients", "message"),
    [
        ([], "at least 2 gradients, got 0"),
        ([[torch.ones(2)]], "at least 2 gradients, got 1"),
        ([[torch.ones(2), None]] * 2, "got NoneType"),
        ([[torch.ones(2)], [torch.ones(3)]], "same shapes"),
        ([[]], "at least one, got"),
        ([[torch.ones(2)], [torch.ones(2).double()]], "same shapes, dtypes and"),
        ([[torch.ones(2)], [torch.ones(2, device="meta")]], "dtypes and devices"),
        ([torch.ones(2)] * 2, "one a parameter, got a tensor"),
        ([[torch.eye(2).to_sparse()]] * 2, "must be dense"),
        ([[torch.ones(2, dtype=torch.int64)]] * 2, "floating-point"),
    ],
)
def test_bad_gradients_are_refused(gradients, message):
    with pytest.raises(ValueError, match=message):
        micro_batch_statistics(gradients, STATISTICS, batch_size=1)


def test_bad_arguments_are_refused(stacked):
    with pytest.raises(ValueError, match="did you mean variance"):
        micro_batch_statistics(split(stacked), ["varience"], batch_size=1)
    with pytest.raises(ValueError, match="got 'variance'"):
        micro_batch_statistics(split(stacked), "variance", batch_size=1)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        micro_batch_statistics(split(stacked), STATISTICS, batch_size=0)
    with pytest.raises(ValueError, match="divisor must be above 0"):
        micro_batch_statistics(split(stacked), STATISTICS, batch_size=1, divisor=0)


def test_no_value_crosses_to_the_host():
    # On the device `meta` a tensor has no value: reading one raises.
    gradients = [[torch.ones(2, 4, device="meta"), torch.ones(3, device="meta")]] * 3
    found = micro_batch_statistics(gradients, STATISTICS, batch_size=2)
    assert [part.shape for part in found.variance] == [(2, 4), (3,)]
    assert found.orthogonal.shape == (3,)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_finds_the_same_without_waiting(stacked):
    expected = micro_batch_statistics(split(stacked), STATISTICS, batch_size=4)
    gradients = [[part.cuda() for part in parts] for parts in split(stacked)]
    micro_batch_statistics(gradients, STATISTICS, batch_size=4)  # libraries load
    noise = NoiseScale(None)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = micro_batch_statistics(gradients, STATISTICS, batch_size=4)
        noise.update_micro_batches(
            5, 4, found.sum_squared_norms, found.squared_norm_of_mean
        )
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for name in STATISTICS[:-1]:
        torch.testing.assert_close(getattr(found, name).cpu(), getattr(expected, name))
    torch.testing.assert_close(flat(found.variance).cpu(), flat(expected.variance))
    assert noise.trace() == pytest.approx(float(flat(expected.variance).sum()))
