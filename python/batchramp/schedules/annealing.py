"""One rule of annealing: an event lowers the noise scale by a factor.

The noise scale of SGD is g = lr * N / (batch_size * (1 - momentum)) for batches far
below N (arXiv 1711.00489). How much of the factor goes to the batch and how
much to the rate is what tells decay, growth and their hybrids apart.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from batchramp.schedules.durations import Duration, milestone_marks
from batchramp.schedules.interface import Horizon
from batchramp.schedules.static import Steps


class Annealed(NamedTuple):
    """Where annealing stands.

    Attributes:
        batch_size: The batch size.
        rate_scale: The rate over the initial rate, exactly.
    """

    batch_size: int
    rate_scale: Fraction


def anneal(
    current: Annealed, factor: Fraction, share: float, max_batch_size: int
) -> Annealed:
    """Returns what an event makes of `current`.

    The batch grows to B' = min(round(B factor^share), max_batch_size) and the rate is
    multiplied by r / factor, r = B' / B: what the rounding or the maximum keep from the
    batch goes to the rate, and lr / batch_size falls by `factor` exactly.

    Args:
        current: Batch size and rate before the event.
        factor: By how much the event lowers the noise scale.
        share: The part of it, as an exponent, that goes to the batch.
        max_batch_size: The largest batch size, at least the current one.
    """
    # Whole shares stay exact; a power of any other share is irrational anyhow.
    power = factor ** int(share) if share == int(share) else float(factor) ** share
    batch_size = min(round(current.batch_size * power), max_batch_size)
    ratio = Fraction(batch_size, current.batch_size)
    return Annealed(batch_size, current.rate_scale * ratio / factor)


@dataclass(frozen=True, kw_only=True)
class AnnealingSteps:
    """Annealing events at milestones.

    Attributes:
        lr: Initial rate.
        batch_size: Initial batch size.
        max_batch_size: The largest batch size.
        factor: By how much each event lowers the noise scale.
        shares: Share of each event that goes to the batch; the last one repeats.
        milestones: Where the events lie.
    """

    lr: float
    batch_size: int
    max_batch_size: int
    factor: Fraction
    shares: tuple[float, ...]
    milestones: tuple[Duration, ...]

    def steps(self, horizon: Horizon) -> Steps:
        """Returns one step for each milestone."""
        positions, updates = milestone_marks(self.milestones, horizon)
        current = Annealed(self.batch_size, Fraction(1))
        laid = [current]
        for event in range(len(self.milestones)):
            share = self.shares[min(event, len(self.shares) - 1)]
            current = anneal(current, self.factor, share, self.max_batch_size)
            laid.append(current)
        return Steps(
            positions=positions,
            updates=updates,
            batch_sizes=tuple(entry.batch_size for entry in laid),
            rates=tuple(self.lr * float(entry.rate_scale) for entry in laid),
        )
