"""The noise scale tr(Sigma) / |G|^2, from squared norms alone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from itertools import islice
from types import EllipsisType
from typing import Any, TypeAlias

import torch
from torch import Tensor, distributed

from batchramp._rust import noise_from_micro_batches, noise_from_two_sizes
from batchramp.gradient_variance.averages import (
    Averages,
    effective_count,
    total_weight,
)
from batchramp.gradient_variance.coordinates import MAX_COUNT
from batchramp.gradient_variance.interval import Covariance, ratio_interval
from batchramp.values import number, shown, whole

Scalar: TypeAlias = float | Tensor
"""A number, or a tensor of shape () on any device."""

_Estimate: TypeAlias = Callable[..., tuple[float, float]]

_STATE_VERSION = 3

_NORM = "a squared norm"


class NoiseScale:
    """The noise scale tr(Sigma) / |G|^2, from squared norms alone.

    Sigma is the covariance of the per-sample gradients and G the gradient of all
    samples (McCandlish et al., arXiv 1812.06162). Each update gives an unbiased
    estimate of both; each is averaged exponentially and debiased, and the noise scale
    is the ratio of the averages. All is kept in double precision.

    An update whose norms are not finite, as one that overflowed in half precision, or
    are beyond what a double holds of them, is skipped and counted: `skipped`. So a run
    that diverges keeps what its last finite updates gave, while `skipped` grows. Norms
    are those of gradients as the loss gives them: unscale first what a `GradScaler`
    scaled.

    Squared norms may be numbers or tensors of shape (), on any device. Tensors are kept
    as they are until a result is asked for, so that an update waits for no device
    (one in `PENDING` does, which bounds what is kept).

    Args:
        num_samples: Samples that batches are drawn from without replacement, which
            makes their means vary less; None is an endless stream, whose every sample
            is fresh. If it is not said, there is a warning and None holds: of a data
            set, the squared norm is then off by tr(Sigma) / N, which is no small part of
            it where the noise scale nears N.
        decay: Weight of the past in the averages, at least 0 and below 1.

    Raises:
        ValueError: If an argument is out of its range.

    Warns:
        UserWarning: If `num_samples` is not said.
    """

    PENDING = 256
    """Updates whose tensors are kept before they are read, all at once."""

    def __init__(
        self, num_samples: int | EllipsisType | None = ..., decay: float = 0.9
    ) -> None:
        if isinstance(num_samples, EllipsisType):
            warnings.warn(
                "NoiseScale was not told num_samples and takes batches as drawn from an "
                "endless stream; write NoiseScale(num_samples=len(dataset)), or "
                "NoiseScale(num_samples=None) for a stream",
                stacklevel=2,
            )
            num_samples = None
        if num_samples is not None:
            num_samples = whole("num_samples", num_samples, least=1, most=MAX_COUNT)
        if not 0 <= number("decay", decay) < 1:
            raise ValueError(
                f"decay must be at least 0 and below 1, got {shown(decay)}"
            )
        self._num_samples = num_samples
        self._decay = float(decay)
        self._averages = Averages()
        self._skipped = 0
        self._pending: list[tuple[_Estimate, Tensor]] = []

    def update_micro_batches(
        self,
        count: int,
        batch_size: int,
        sum_squared_norms: Scalar,
        squared_norm_of_mean: Scalar,
    ) -> None:
        """Takes the evidence of one update's micro-batches.

        Args:
            count: Number of micro-batches, at least 2, of equal size.
            batch_size: Samples of each, over which its gradient is the mean.
            sum_squared_norms: Sum of the squared norms of their gradients.
            squared_norm_of_mean: Squared norm of the mean of their gradients.

        Raises:
            ValueError: If an argument is out of its range.
        """
        count = whole("count", count, least=1, most=MAX_COUNT)
        batch_size = whole("batch_size", batch_size, least=1, most=MAX_COUNT)

        def estimate(total: float, mean: float) -> tuple[float, float]:
            return noise_from_micro_batches(
                count, batch_size, total, mean, self._num_samples
            )

        self._take(estimate, sum_squared_norms, squared_norm_of_mean)

    def update_two_sizes(
        self,
        small_batch_size: int,
        small_squared_norm: Scalar,
        large_batch_size: int,
        large_squared_norm: Scalar,
    ) -> None:
        """Takes the squared norms of two gradients, means over batches of two sizes.

        Args:
            small_batch_size: Samples of the small batch.
            small_squared_norm: Squared norm of its gradient.
            large_batch_size: Samples of the large batch.
            large_squared_norm: Squared norm of its gradient.

        Raises:
            ValueError: If an argument is out of its range.
        """
        small_batch_size, large_batch_size = (
            whole(name, size, least=1, most=MAX_COUNT)
            for name, size in (
                ("small_batch_size", small_batch_size),
                ("large_batch_size", large_batch_size),
            )
        )

        def estimate(small: float, large: float) -> tuple[float, float]:
            return noise_from_two_sizes(
                small_batch_size, small, large_batch_size, large, self._num_samples
            )

        self._take(estimate, small_squared_norm, large_squared_norm)

    def update_ranks(
        self,
        batch_size: int,
        squared_norm: Scalar,
        squared_norm_of_mean: Scalar,
        group: distributed.ProcessGroup | None = None,
    ) -> None:
        """Takes one update of all ranks, each of them a micro-batch; called by every rank.

        Sums the norms over the ranks (one all-reduce of four numbers), so that all come
        to the same averages, and skip the same updates. A rank's own gradient is the
        one before ranks are averaged: with DistributedDataParallel, that of a backward
        pass under `no_sync`, or what a communication hook is handed.

        Args:
            batch_size: Samples of this rank, as many as of every other one.
            squared_norm: Squared norm of this rank's own mean gradient. With a backend
                that reduces on the device only, such as NCCL, a tensor on the device.
            squared_norm_of_mean: Squared norm of the mean of all ranks' gradients, the
                same on each.
            group: The ranks; None is all of them.

        Raises:
            ValueError: If there is one rank alone, or, when a result is asked for, if
                ranks had different numbers of samples.
        """
        count = distributed.get_world_size(group)
        batch_size = whole("batch_size", batch_size, least=1, most=MAX_COUNT)
        noise_from_micro_batches(count, batch_size, 0.0, 0.0, self._num_samples)
        if isinstance(squared_norm, Tensor):
            own = _checked(squared_norm).detach().double()
        else:
            own = torch.tensor(
                number("squared_norm", squared_norm), dtype=torch.float64
            )
        mean = _like(own, squared_norm_of_mean, "squared_norm_of_mean")
        size = torch.full_like(own, batch_size)
        sums = torch.stack([own, mean, size, size.square()])
        distributed.all_reduce(sums, group=group)

        def estimate(
            total: float, means: float, sizes: float, squares: float
        ) -> tuple[float, float]:
            if count * squares != sizes**2:
                raise ValueError(
                    "batch_size must be the same on every rank, got a mean of "
                    f"{sizes / count} and {batch_size} on this one"
                )
            return noise_from_micro_batches(
                count, batch_size, total, means / count, self._num_samples
            )

        self._take(estimate, *sums.unbind())

    @property
    def count(self) -> int:
        """Number of updates taken, with those skipped; waits for no device."""
        return self._averages.count + self._skipped + len(self._pending)

    @property
    def skipped(self) -> int:
        """Number of updates that are not in the averages, for they were not finite."""
        self._read()
        return self._skipped

    def trace(self) -> float:
        """Returns the average trace of Sigma (per sample, divisor N - 1).

        NaN before a finite update. From two sizes, noise can push it below 0.
        """
        averages = self._read()
        return averages.trace if averages.count else math.nan

    def squared_norm(self) -> float:
        """Returns the average squared norm of G, which noise can push below 0.

        NaN before a finite update.
        """
        averages = self._read()
        return averages.squared_norm if averages.count else math.nan

    def noise_scale(self) -> float:
        """Returns the samples at which noise and signal are equal.

        That is `trace()` / `squared_norm()`, but infinite where the average squared norm
        is not above 0, for then no signal was seen, and 0 where the trace alone is
        below 0. NaN before a finite update.
        """
        trace, squared_norm = self.trace(), self.squared_norm()
        if squared_norm <= 0:
            return math.inf
        return 0.0 if trace < 0 else trace / squared_norm

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Returns an interval of the noise scale, by Fieller's method.

        The covariance of the two averages is that of the updates' pairs of estimates,
        weighted as the averages are; with n_eff = (sum of weights)^2 / (sum of their
        squares), (1 + decay) / (1 - decay) in the long run, Student's t has n_eff - 1
        degrees of freedom. Updates count as independent, and as of one gradient and one
        Sigma: what these drift within the averages' memory is taken for noise and
        widens it. The upper end is infinite where the squared norm of G may be 0, as
        wherever its estimate is negative; below two finite updates, or at decay 0,
        the interval is (0, inf). Where estimates varied by more than the square root
        of the largest double, it is (NaN, NaN).

        Args:
            level: Wanted coverage, above 0 and below 1.

        Raises:
            ValueError: If `level` is out of its range.
        """
        if not 0 < number("level", level) < 1:
            raise ValueError(f"level must be above 0 and below 1, got {shown(level)}")
        averages = self._read()
        effective = effective_count(averages.count, self._decay)
        if effective - 1 < 1e-9:
            return 0.0, math.inf
        # The deviations' weighted mean is divided by 1 - 1/n_eff to be unbiased, and by
        # n_eff for the variance of an average.
        total = total_weight(averages.count, self._decay)
        scale = 1 / (total * (effective - 1))
        covariance = Covariance(
            averages.trace_squares * scale,
            averages.products * scale,
            averages.norm_squares * scale,
        )
        return ratio_interval(
            averages.trace,
            averages.squared_norm,
            covariance,
            effective - 1,
            level,
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.state_dict()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._num_samples, self._decay = state["num_samples"], state["decay"]
        self._averages, self._skipped, self._pending = Averages(), 0, []
        self.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        """Returns the averages as a new JSON-able dict."""
        self._read()
        return self._state()

    def _state(self) -> dict[str, Any]:
        """The state, but for what is pending."""
        return {
            "version": _STATE_VERSION,
            "num_samples": self._num_samples,
            "decay": self._decay,
            **asdict(self._averages),
            "count": self._averages.count + self._skipped,
            "skipped": self._skipped,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to a state.

        One of version 2, which skipped nothing, is read too; where its averages are not
        finite, all of its updates count as skipped.

        Raises:
            ValueError: If it is not a state, or one of other arguments.
        """
        ours = self._state()
        if isinstance(state, Mapping) and set(ours) - set(state) == {"skipped"}:
            version = whole("state's version", state["version"], least=2)
            if version == 2:
                state = {**state, "version": _STATE_VERSION, "skipped": 0}
        if not isinstance(state, Mapping) or set(state) != set(ours):
            found = list(state) if isinstance(state, Mapping) else state
            raise ValueError(f"state must have the keys {', '.join(ours)}, got {found}")
        for key in ("version", "num_samples", "decay"):
            check = number if key == "decay" else whole
            given = (
                state[key] if ours[key] is None else check(f"state's {key}", state[key])
            )
            if given != ours[key]:
                raise ValueError(
                    f"state's {key} must be {ours[key]!r}, got {shown(state[key])}"
                )
        count = whole("state's count", state["count"], least=0, most=MAX_COUNT)
        skipped = whole("state's skipped", state["skipped"], least=0, most=count)
        names = [field.name for field in fields(Averages) if field.name != "count"]
        numbers = {name: number(f"state's {name}", state[name]) for name in names}
        for name in ("trace_squares", "norm_squares"):
            if numbers[name] < 0:
                raise ValueError(
                    f"state's {name} must be at least 0, got {numbers[name]}"
                )
        loaded = Averages(count - skipped, **numbers)
        if not (loaded.count and loaded.finite()):
            loaded = Averages()
        self._averages, self._skipped = loaded, count - loaded.count
        self._pending.clear()

    def _take(self, estimate: _Estimate, *norms: Scalar) -> None:
        tensors = [_checked(norm) for norm in norms if isinstance(norm, Tensor)]
        if not tensors:
            found = estimate(*(number(_NORM, norm) for norm in norms))
            self._read()  # what came before counts before
            self._observe(*found)
            return
        estimate(*(0.0 for _ in norms))  # what is wrong with the sizes shows here
        like = tensors[0].detach().double()
        doubles = [_like(like, norm, _NORM) for norm in norms]
        self._pending.append((estimate, torch.stack(doubles)))
        if len(self._pending) >= self.PENDING:
            self._read()

    def _read(self) -> Averages:
        """Reads what is pending, in one transfer, into the averages."""
        if self._pending:
            pending, self._pending = self._pending, []
            values = iter(torch.cat([norms for _, norms in pending]).tolist())
            for index, (estimate, norms) in enumerate(pending):
                try:
                    found = estimate(*islice(values, len(norms)))
                except ValueError:
                    # The others are not lost with it.
                    self._pending = pending[index + 1 :]
                    raise
                self._observe(*found)
        return self._averages

    def _observe(self, trace: float, squared_norm: float) -> None:
        after = self._averages.with_observed(trace, squared_norm, self._decay)
        if after.finite():
            self._averages = after
        else:
            self._skipped += 1


def _like(like: Tensor, norm: Scalar, name: str) -> Tensor:
    """A squared norm as a double on the device of another."""
    if isinstance(norm, Tensor):
        return _checked(norm).detach().to(like)
    return torch.full_like(like, number(name, norm))


def _checked(norm: Tensor) -> Tensor:
    """A squared norm on a device."""
    if norm.ndim:
        raise ValueError(
            "a squared norm must be a number or a tensor of shape (), got one of shape "
            f"{tuple(norm.shape)}"
        )
    if norm.is_complex() or norm.layout != torch.strided:
        raise ValueError(
            "a squared norm must be a real number to read, got a tensor of "
            f"{norm.dtype}, {norm.layout} on {norm.device}"
        )
    return norm
