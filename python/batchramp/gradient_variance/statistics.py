"""What decision rules need of K gradients, by name; and what it is between micro-batches.

Everything stays on the gradients' device as tensors: nothing here waits for a device,
and what a caller never reads never crosses.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from batchramp.gradient_variance.coordinates import MAX_COUNT, GradientVariance
from batchramp.gradient_variance.gradients import refuse_weights
from batchramp.gradient_variance.sums import inner_product, squared_norm_on_device
from batchramp.names import suggest
from batchramp.values import number, shown, whole

STATISTICS = (
    "sum_squared_norms",
    "squared_norm_of_mean",
    "inner_products",
    "orthogonal",
    "variance",
)
"""Every name that a caller may ask for; see `GradientStatistics`."""


@dataclass(frozen=True, kw_only=True)
class GradientStatistics:
    """Statistics of K gradients g_i and their mean g; None where not asked for.

    Squares and products are taken and added in double precision, which holds all those
    of single precision. The mean, and with it |g|^2, and the variance are rounded to the
    gradients' own precision (single for half): in single precision a trace from the
    first two statistics has three right digits where the g_i deviate from g by a
    hundredth of it, and none at 1e-5; a variance is 0 where they deviate by less than
    1e-23, and infinite above 1e19. Gradients in double precision have neither limit.

    Attributes:
        count: Number of gradients, K.
        batch_size: Samples behind each, of which it is the mean; 1 for per-example
            gradients.
        mean: g, a tensor for each parameter; single precision where that is half.
        sum_squared_norms: Sum over i of |g_i|^2, shape ().
        squared_norm_of_mean: |g|^2, shape ().
        inner_products: g_i . g, shape (K,).
        orthogonal: |g_i - (g_i . g / |g|^2) g|^2, the squared norm of the part of g_i
            that is orthogonal to g, shape (K,); all of |g_i|^2 where g is 0.
        variance: Per coordinate and per sample, `batch_size` times the variance of the
            g_i with divisor K - 1; a tensor for each parameter.
    """

    count: int
    batch_size: int
    mean: tuple[Tensor, ...]
    sum_squared_norms: Tensor | None = None
    squared_norm_of_mean: Tensor | None = None
    inner_products: Tensor | None = None
    orthogonal: Tensor | None = None
    variance: tuple[Tensor, ...] | None = None


def micro_batch_statistics(
    gradients: Iterable[Sequence[Tensor]],
    names: Collection[str],
    *,
    batch_size: int,
    divisor: float | None = None,
) -> GradientStatistics:
    """Returns statistics of the gradients of micro-batches of one update.

    They are taken one by one, and none is kept but for `inner_products` and
    `orthogonal`, for which all are.

    Args:
        gradients: K >= 2 gradients, each a dense tensor for each parameter. A generator
            may reuse their memory unless all are kept.
        names: Which of `STATISTICS`.
        batch_size: Samples of each micro-batch.
        divisor: What each sample's loss was divided by: `batch_size` (the default) for
            a loss that is a mean, 1 for a sum, K * `batch_size` for a mean over the
            batch that K micro-batches accumulate.

    Raises:
        ValueError: If a name is unknown, there are fewer than 2 gradients, or one has a
            part that is None, sparse, not real, a parameter (its weights), or not of the
            first one's shape.
    """
    wanted = check_names(names)
    batch_size = whole("batch_size", batch_size, least=1, most=MAX_COUNT)
    scale = 1.0
    if divisor is not None:
        if not 0 < number("divisor", divisor) < float("inf"):
            raise ValueError(
                f"divisor must be above 0 and finite, got {shown(divisor)}"
            )
        scale = float(divisor) / batch_size
    sweep = _Sweep(wanted, batch_size)
    for gradient in gradients:
        sweep.take(gradient, scale)
    return sweep.statistics()


def check_names(names: Collection[str]) -> frozenset[str]:
    """Returns the names as a set.

    Raises:
        ValueError: If one is not of `STATISTICS`, or if they are a string.
    """
    if isinstance(names, str) or not isinstance(names, Collection):
        raise ValueError(f"names must be a collection of names, got {shown(names)}")
    for name in names:
        if name not in STATISTICS:
            raise ValueError(suggest("statistic", str(name), STATISTICS))
    return frozenset(names)


def orthogonal_part(
    squared_norms: Tensor, inner_products: Tensor, squared_norm_of_mean: Tensor
) -> Tensor:
    """Returns what `GradientStatistics.orthogonal` is, from the g_i's own norms."""
    # Not by the square, which is beyond a double sooner.
    along = inner_products * (inner_products / squared_norm_of_mean)
    along = along.where(squared_norm_of_mean != 0, torch.zeros_like(along))
    return (squared_norms - along).clamp(min=0)  # which leaves NaN as it is


class _Sweep:
    """One pass over the gradients of micro-batches."""

    def __init__(self, wanted: frozenset[str], batch_size: int) -> None:
        self._wanted = wanted
        self._batch_size = batch_size
        self._count = 0
        self._kinds: list[tuple[torch.Size, torch.dtype, torch.device]] = []
        self._sums: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._kept: list[list[Tensor]] = []
        self._variance: GradientVariance | _DeviceVariance | None = None

    def take(self, gradient: Sequence[Tensor] | Tensor, scale: float) -> None:
        if isinstance(gradient, Tensor):
            raise ValueError(
                "gradients must be sequences of tensors, one a parameter, got a tensor: "
                "write [gradient]"
            )
        parts = [_checked(part) for part in gradient]
        if scale != 1.0:
            parts = list(torch._foreach_mul(parts, scale))
        kinds = [(part.shape, part.dtype, part.device) for part in parts]
        if not kinds or kinds != (self._kinds or kinds):
            raise ValueError(
                "gradients must have the same shapes, dtypes and devices, at least one, "
                f"got {[(tuple(shape), *rest) for shape, *rest in kinds]}"
            )
        self._kinds = kinds
        self._count += 1
        if self._sums:
            torch._foreach_add_(self._sums, parts)
        else:
            self._sums = [part.clone() for part in parts]
        if self._wanted & {"sum_squared_norms", "orthogonal"}:
            self._norms.append(squared_norm_on_device(parts))
        if self._wanted & {"inner_products", "orthogonal"}:
            self._kept.append([part.clone() for part in parts])
        if "variance" in self._wanted:
            if self._variance is None:
                self._variance = self._make_variance(parts)
            self._variance.update(parts)

    def _make_variance(self, parts: list[Tensor]) -> GradientVariance | _DeviceVariance:
        if any(part.device.type != "cpu" for part in parts):
            return _DeviceVariance(parts)
        double = any(part.dtype == torch.float64 for part in parts)
        return GradientVariance(dtype="float64" if double else "float32")

    def statistics(self) -> GradientStatistics:
        if self._count < 2:
            raise ValueError(f"there must be at least 2 gradients, got {self._count}")
        mean = self._sums
        torch._foreach_div_(mean, self._count)
        squared_norm_of_mean = inner_products = orthogonal = None
        if self._wanted & {"squared_norm_of_mean", "orthogonal"}:
            squared_norm_of_mean = squared_norm_on_device(mean)
        if self._kept:
            inner_products = torch.stack(
                [inner_product(kept, mean) for kept in self._kept]
            )
        norms = torch.stack(self._norms) if self._norms else None
        if "orthogonal" in self._wanted:
            assert norms is not None
            assert inner_products is not None
            assert squared_norm_of_mean is not None
            orthogonal = orthogonal_part(norms, inner_products, squared_norm_of_mean)
        found = {
            "sum_squared_norms": None if norms is None else norms.sum(),
            "squared_norm_of_mean": squared_norm_of_mean,
            "inner_products": inner_products,
            "orthogonal": orthogonal,
        }
        return GradientStatistics(
            count=self._count,
            batch_size=self._batch_size,
            mean=tuple(mean),
            variance=self._spread(),
            **{name: found[name] for name in found if name in self._wanted},
        )

    def _spread(self) -> tuple[Tensor, ...] | None:
        """The variance per sample, in the parameters' shapes."""
        if self._variance is None:
            return None
        if isinstance(self._variance, _DeviceVariance):
            between = self._variance.variance()
        else:
            sizes = [part.numel() for part in self._sums]
            flat = torch.split(self._variance.variance(), sizes)
            pairs = zip(flat, self._sums, strict=True)
            between = [values.view(part.shape) for values, part in pairs]
        return tuple(torch._foreach_mul(between, self._batch_size))


class _DeviceVariance:
    """Welford's update by torch's list operations, where `GradientVariance` would copy."""

    def __init__(self, like: list[Tensor]) -> None:
        self._count = 0
        self._mean = [torch.zeros_like(part) for part in like]
        self._squares = [torch.zeros_like(part) for part in like]

    def update(self, parts: list[Tensor]) -> None:
        self._count += 1
        before = torch._foreach_sub(parts, self._mean)
        torch._foreach_add_(self._mean, before, alpha=1 / self._count)
        after = torch._foreach_sub(parts, self._mean)
        torch._foreach_addcmul_(self._squares, before, after)

    def variance(self) -> list[Tensor]:
        return list(torch._foreach_div(self._squares, self._count - 1))


def _checked(part: Tensor) -> Tensor:
    refuse_weights("a part of gradients", part)
    if not isinstance(part, Tensor):
        raise ValueError(
            f"gradients must be tensors, got {type(part).__name__}: a parameter that "
            "the loss does not depend on needs a gradient of zeros"
        )
    if part.layout != torch.strided or not part.is_floating_point():
        raise ValueError(
            "gradients must be dense and real floating-point, got layout "
            f"{part.layout} and {part.dtype}"
        )
    if part.requires_grad:
        part = part.detach()
    # Half precision would lose the sums; single is what its optimizers keep too.
    return part.float() if part.element_size() < 4 else part
