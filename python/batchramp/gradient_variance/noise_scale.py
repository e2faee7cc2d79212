"""The noise scale tr(Sigma) / |G|^2, from squared norms alone."""

import math
from collections.abc import Mapping
from typing import Any

from batchramp._rust import noise_from_micro_batches, noise_from_two_sizes
from batchramp.gradient_variance.arguments import whole

_STATE_VERSION = 1


class NoiseScale:
    """The noise scale tr(Sigma) / |G|^2, from squared norms alone.

    Sigma is the covariance of the per-sample gradients and G the gradient of all
    samples (McCandlish et al., arXiv 1812.06162). Each update gives an unbiased
    estimate of both; each is averaged exponentially and debiased, and the noise scale
    is the ratio of the averages. NaN and infinity, as of a diverged run, stay.

    Args:
        num_samples: Samples that batches are drawn from without replacement, which
            makes their means vary less; None is an endless stream.
        decay: Weight of the past in the averages, at least 0 and below 1.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self, num_samples: int | None = None, decay: float = 0.9) -> None:
        if num_samples is not None:
            num_samples = whole("num_samples", num_samples)
        if isinstance(decay, bool) or not 0 <= decay < 1:
            raise ValueError(f"decay must be at least 0 and below 1, got {decay!r}")
        self._num_samples = num_samples
        self._decay = float(decay)
        self._count = 0
        self._trace = 0.0
        self._squared_norm = 0.0

    def update_micro_batches(
        self,
        count: int,
        batch_size: int,
        sum_squared_norms: float,
        squared_norm_of_mean: float,
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
        self._take(
            *noise_from_micro_batches(
                count,
                batch_size,
                sum_squared_norms,
                squared_norm_of_mean,
                self._num_samples,
            )
        )

    def update_two_sizes(
        self,
        small_batch_size: int,
        small_squared_norm: float,
        large_batch_size: int,
        large_squared_norm: float,
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
        self._take(
            *noise_from_two_sizes(
                small_batch_size,
                small_squared_norm,
                large_batch_size,
                large_squared_norm,
                self._num_samples,
            )
        )

    @property
    def count(self) -> int:
        """Number of updates taken."""
        return self._count

    @property
    def trace(self) -> float:
        """Average trace of Sigma (per sample, divisor N - 1); NaN before an update."""
        return self._debiased(self._trace)

    @property
    def squared_norm(self) -> float:
        """Average squared norm of G, which noise can push below 0; NaN at first."""
        return self._debiased(self._squared_norm)

    @property
    def noise_scale(self) -> float:
        """Samples at which noise and signal are equal: `trace` / `squared_norm`.

        Infinite where the average squared norm is not above 0: no signal was seen.
        """
        return math.inf if self.squared_norm <= 0 else self.trace / self.squared_norm

    def state_dict(self) -> dict[str, Any]:
        """Returns the averages as a new JSON-able dict."""
        return {
            "version": _STATE_VERSION,
            "num_samples": self._num_samples,
            "decay": self._decay,
            "count": self._count,
            "trace": self._trace,
            "squared_norm": self._squared_norm,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to a state.

        Raises:
            ValueError: If it is not a state, or one of other arguments.
        """
        ours = self.state_dict()
        if set(state) != set(ours):
            raise ValueError(
                f"state must have the keys {', '.join(ours)}, got {sorted(state)}"
            )
        for key in ("version", "num_samples", "decay"):
            if state[key] != ours[key]:
                raise ValueError(
                    f"state's {key} must be {ours[key]!r}, got {state[key]!r}"
                )
        self._count = whole("state's count", state["count"], least=0)
        self._trace = float(state["trace"])
        self._squared_norm = float(state["squared_norm"])

    def _take(self, trace: float, squared_norm: float) -> None:
        self._count += 1
        self._trace += (1 - self._decay) * (trace - self._trace)
        self._squared_norm += (1 - self._decay) * (squared_norm - self._squared_norm)

    def _debiased(self, average: float) -> float:
        # The averages began at 0, which weighs decay^count in them.
        if not self._count:
            return math.nan
        return average / (1 - self._decay**self._count)
