"""Schedules that decide from evidence."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, final

from batchramp._rust import noise_from_micro_batches
from batchramp.schedules.interface import (
    MICRO_BATCHES,
    Evidence,
    Horizon,
    Mark,
    Progress,
    Schedule,
    Settings,
)
from batchramp.schedules.parameters import (
    maximum_batch_size,
    momentum_coefficient,
    positive_number,
    whole_number,
)
from batchramp.schedules.static import not_a_state
from batchramp.values import number, whole

NUM_SAMPLES = 50_000
"""Default training samples, those of the `umeda-*` schedules."""

EPOCHS = 300
"""Default passes, those of the `umeda-*` schedules."""

_AVERAGE_DECAY = 0.9


class NoiseScaleState(NamedTuple):
    """What the averages have seen.

    Attributes:
        num_samples: Samples of one pass.
        batch_size: The current batch size.
        trace: Decayed sum of S, the trace of the per-sample gradient covariance
            (divisor N - 1), before debiasing.
        squared_norm: Decayed sum of the unbiased squared norm of the full gradient,
            before debiasing; may be negative.
        observations: How much evidence went into both.
    """

    num_samples: int
    batch_size: int
    trace: float
    squared_norm: float
    observations: int


@final
@dataclass(frozen=True, kw_only=True)
class NoiseScaleSchedule(Schedule):
    """The batch follows the measured noise scale; see `noise_scale`.

    Attributes:
        lr: Learning rate throughout.
        batch_size: Initial batch size.
        max_batch_size: Largest batch size.
        momentum: Momentum.
    """

    lr: float
    batch_size: int
    max_batch_size: int
    momentum: float

    # Not annotated, so that they are no fields.
    name = "noise-scale"
    evidence = frozenset({MICRO_BATCHES})

    def parameters(self) -> dict[str, Any]:
        """Returns every parameter as JSON values."""
        return {
            "lr": self.lr,
            "batch_size": self.batch_size,
            "max_batch_size": self.max_batch_size,
            "momentum": self.momentum,
        }

    def init(self, horizon: Horizon) -> NoiseScaleState:
        """Returns empty averages at the initial batch size.

        Raises:
            ValueError: If the batch may grow above the number of samples.
        """
        num_samples = horizon.num_samples
        if self.max_batch_size > num_samples:
            raise ValueError(
                f"max_batch_size must be at most {num_samples} (the number of "
                f"samples), got {self.max_batch_size}"
            )
        return NoiseScaleState(num_samples, self.batch_size, 0.0, 0.0, 0)

    def decide(
        self,
        progress: Progress,  # noqa: ARG002
        evidence: Evidence | None,
        state: NoiseScaleState,
    ) -> tuple[Settings, NoiseScaleState]:
        """Returns the settings after `evidence`, and the averages with it.

        Evidence that is not finite, as of a run that diverges, counts as none, and so
        does what no double holds of it.
        """
        if evidence is not None:
            state = self._observe(evidence, state)
        return Settings(state.batch_size, self.lr, self.momentum), state

    def events(self, horizon: Horizon) -> tuple[Mark, ...]:  # noqa: ARG002
        """Returns nothing: what evidence will say cannot be declared."""
        return ()

    def restore(self, values: Any) -> NoiseScaleState:
        """Returns the state whose JSON was read back as `values`.

        Raises:
            ValueError: If it is not the state of such a schedule.
        """
        try:
            state = NoiseScaleState(*values)
            return NoiseScaleState(
                whole("num_samples", state.num_samples, least=1),
                whole("batch_size", state.batch_size, least=1),
                number("trace", state.trace),
                number("squared_norm", state.squared_norm),
                whole("observations", state.observations, least=0),
            )
        except (TypeError, ValueError) as error:
            raise ValueError(not_a_state(self.name, values)) from error

    def _observe(self, evidence: Evidence, state: NoiseScaleState) -> NoiseScaleState:
        finite = math.isfinite(evidence.sum_squared_norms) and math.isfinite(
            evidence.squared_norm_of_mean
        )
        if not finite:
            return state
        trace, squared_norm = noise_from_micro_batches(
            evidence.count,
            evidence.batch_size,
            evidence.sum_squared_norms,
            evidence.squared_norm_of_mean,
            state.num_samples,
        )
        if not (math.isfinite(trace) and math.isfinite(squared_norm)):
            return state
        fresh = 1 - _AVERAGE_DECAY
        trace = _AVERAGE_DECAY * state.trace + fresh * trace
        squared_norm = _AVERAGE_DECAY * state.squared_norm + fresh * squared_norm
        observations = state.observations + 1
        # The sum of the weights so far: dividing by it makes both averages unbiased.
        weight = 1 - _AVERAGE_DECAY**observations
        batch_size = self._next_size(
            state.batch_size, trace / weight, squared_norm / weight
        )
        return state._replace(
            batch_size=batch_size,
            trace=trace,
            squared_norm=squared_norm,
            observations=observations,
        )

    def _next_size(self, current: int, trace: float, squared_norm: float) -> int:
        if squared_norm <= 0:
            return current
        # The minimum comes first, for the quotient may be infinite.
        wanted = round(min(trace / squared_norm, float(self.max_batch_size)))
        return max(current, wanted)


def noise_scale(
    *,
    lr: float = 0.1,
    batch_size: int = 8,
    max_batch_size: int = 4096,
    momentum: float = 0.0,
) -> NoiseScaleSchedule:
    """Adaptive: the batch follows the gradient noise scale up, the rate is constant.

    After each update with evidence the next size is the rounded S / G^2, at least the
    current size and at most `max_batch_size`; where the average of G^2 is not positive
    the size stays. S is the trace of the per-sample gradient covariance and G^2 the
    unbiased squared norm of the full gradient (sampling without replacement), both
    averaged with decay 0.9 and debiased, then divided.

    Source: arXiv 1812.06162, appendix A.1 (the simple noise scale; averages before the
    quotient); decay 0.9 as KungFu has it. Rate and sizes are those of `umeda-*`.

    Args:
        lr: Learning rate throughout.
        batch_size: Initial batch size.
        max_batch_size: Largest batch size.
        momentum: Momentum.
    """
    batch_size = whole_number("batch_size", batch_size)
    return NoiseScaleSchedule(
        lr=positive_number("lr", lr),
        batch_size=batch_size,
        max_batch_size=maximum_batch_size(max_batch_size, batch_size),
        momentum=momentum_coefficient(momentum),
    )
