"""Sums of squares and products: against double precision, at sizes and values that
single precision does not bear."""

import pytest
import torch

from batchramp.gradient_variance import micro_batch_statistics
from batchramp.gradient_variance.sums import (
    inner_product,
    inner_products,
    squared_norm_on_device,
    squared_norms_of_rows,
)

NAMES = ("sum_squared_norms", "squared_norm_of_mean", "inner_products", "orthogonal")
FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_sixteen_million_squares_add_up_in_double_precision():
    # In single precision the sum is a thousandth too small.
    gradient = torch.randn(16_000_000)
    expected = float(torch.dot(wide := gradient.double(), wide))
    del wide
    assert float(squared_norm_on_device([gradient])) == pytest.approx(expected, 1e-12)
    found = micro_batch_statistics([[gradient], [-gradient]], NAMES, batch_size=1)
    assert float(found.sum_squared_norms) == pytest.approx(2 * expected, 1e-12)
    pair = inner_product([gradient], [gradient])
    assert float(pair) == pytest.approx(expected, 1e-12)


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_precision_and_layout_is_summed_as_it_is(dtype):
    matrix = torch.randn(300, 50).to(dtype)
    parts = [
        *(matrix.t(), matrix[::3, 1:7], matrix[:0], matrix[0, 0]),
        torch.randn(4, 3, 5, 5).to(dtype).to(memory_format=torch.channels_last),
        matrix[0, :1].expand(40, 1),
    ]
    others = [torch.randn(part.shape) for part in parts]
    norm, product = squared_norm_on_device(parts), inner_product(parts, others)
    squares = [float(part.double().square().sum()) for part in parts]
    products = [
        float((part.double() * other.double()).sum())
        for part, other in zip(parts, others, strict=True)
    ]
    assert norm.dtype == product.dtype == torch.float64
    assert norm.shape == product.shape == ()
    assert float(norm) == pytest.approx(sum(squares), rel=1e-13)
    assert float(product) == pytest.approx(sum(products), rel=1e-11)
    assert float(squared_norm_on_device([matrix[:0]])) == 0


@pytest.mark.parametrize("shape", [(7, 3), (3, 5000), (2, 200_000), (5, 0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_are_summed_one_by_one(shape, dtype):
    rows, direction = torch.randn(shape, dtype=dtype), torch.randn(shape[1])
    for each in (rows, rows.t().contiguous().t()):
        norms, products = squared_norms_of_rows(each), inner_products(each, direction)
        wide = rows.double()
        torch.testing.assert_close(norms, wide.square().sum(1), rtol=1e-13, atol=0)
        expected = wide @ direction.double()
        torch.testing.assert_close(products, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("length", [7, 3000])
def test_complex_numbers_are_two_real_ones(length):
    rows = torch.randn(3, length, dtype=torch.complex64)
    direction = torch.randn(length, dtype=torch.complex64).conj()
    wide, along = rows.to(torch.complex128), direction.to(torch.complex128)
    norms, products = (wide.conj() * wide).real.sum(1), (wide.conj() @ along).real
    torch.testing.assert_close(squared_norms_of_rows(rows), norms)
    torch.testing.assert_close(
        squared_norm_on_device([rows, rows[:1]]), norms.sum() + norms[0]
    )
    torch.testing.assert_close(inner_products(rows, direction), products)
    torch.testing.assert_close(inner_product([rows[0]], [direction]), products[0])


@pytest.mark.parametrize("unit", [1e-30, 1e-22, 1.0, 1e19, 1e25])
def test_gradients_of_any_size_neither_vanish_nor_overflow(unit):
    rows = (torch.randn(3, 5000) + 0.5) * unit
    wide = rows.double()
    mean = wide.mean(0)
    along = wide @ mean
    across = wide.square().sum(1) - along**2 / (mean @ mean)
    for widths in ([5000], [10, 4990]):  # short rows go another way than long ones
        parts = [row.split(widths) for row in rows]
        found = micro_batch_statistics(parts, NAMES, batch_size=1)
        for name, expected in zip(
            NAMES, (wide.square().sum(), mean @ mean, along, across), strict=True
        ):
            got = getattr(found, name)
            torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        squared_norms_of_rows(rows[:, :10]), wide[:, :10].square().sum(1)
    )


@pytest.mark.parametrize("unit", [1e-140, 1.0, 1e140])
def test_double_precision_keeps_its_own_range(unit):
    rows = (torch.randn(3, 500, dtype=torch.float64) + 0.5) * unit
    found = micro_batch_statistics([[row] for row in rows], NAMES, batch_size=1)
    unit_found = micro_batch_statistics(
        [[row / unit] for row in rows], NAMES, batch_size=1
    )
    for name in NAMES:
        got, expected = getattr(found, name), getattr(unit_found, name)
        torch.testing.assert_close(got / unit / unit, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("dtype", "noise", "close"),
    [
        (torch.float32, 1.0, 1e-7),
        (torch.float32, 1e-2, 1e-4),
        (torch.float64, 1e-2, 1e-10),
        (torch.float64, 1e-5, 1e-4),
    ],
)
def test_little_noise_beside_a_large_mean_is_not_lost(dtype, noise, close):
    rows = torch.randn(10_000).to(dtype) + noise * torch.randn(6, 10_000).to(dtype)
    found = micro_batch_statistics(
        [row.split(100) for row in rows], NAMES, batch_size=1
    )
    wide = rows.double()
    mean = wide.mean(0)
    trace = (found.sum_squared_norms - 6 * found.squared_norm_of_mean) / 5
    assert float(trace) == pytest.approx(float(wide.var(0).sum()), rel=close)
    along = wide @ mean / (mean @ mean)
    across = (wide - torch.outer(along, mean)).square().sum(1)
    torch.testing.assert_close(found.orthogonal, across, rtol=close, atol=0)


def test_empty_parts_count_for_nothing_on_any_device():
    for device in ("cpu", "meta"):
        empty = torch.ones(0, 3, device=device)
        for parts in ([empty], [empty, torch.ones(2, device=device)]):
            found = squared_norm_on_device(parts)
            assert found.shape == ()
            assert found.device.type == device
    assert float(squared_norm_on_device([torch.ones(0), torch.ones(2)])) == 2


def test_parts_on_several_devices_meet_where_nothing_waits():
    # On the device `meta` a tensor has no value: reading one raises.
    gradients = [[torch.ones(2, 4), torch.ones(3, device="meta")]] * 3
    names = (*NAMES, "variance")
    found = micro_batch_statistics(gradients, names, batch_size=2)
    for name in NAMES:
        assert getattr(found, name).device.type == "meta"
    assert [part.device.type for part in found.variance] == ["cpu", "meta"]
