"""What every schedule is: settings decided from progress and, if adaptive, evidence."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple, TypeAlias

from batchramp.schedules.parameters import choice, exact_decimal, whole_number
from batchramp.values import shown

BOUNDARIES = ("keep", "drop", "wrap")
"""What may happen to a batch at a pass's end."""

MAX_POSITION = 2**63
"""The last position that `batchramp._rust` counts to."""

MICRO_BATCHES = "micro_batches"
"""The norms that every `MicroBatchEvidence` carries."""

EVIDENCE = (MICRO_BATCHES, "inner_products", "orthogonal")
"""What a schedule may ask for: the fields of `MicroBatchEvidence`, the norms as one."""


@dataclass(frozen=True, kw_only=True)
class Horizon:
    """What a schedule is laid over, known before the first update.

    Attributes:
        num_samples: Samples of one pass, N.
        budget: Position at which the trial ends: a batch starts only before it.
        boundary: What happens to a batch at a pass's end, `keep`, `drop` or `wrap`.
        total_updates: Updates until the budget, or None where they are not known
            (yet): a plan lays its batch sizes first, then its rates.

    Raises:
        ValueError: If a number is below 1, the budget above `MAX_POSITION`, or the
            boundary unknown.
    """

    num_samples: int
    budget: int
    boundary: str = "keep"
    total_updates: int | None = None

    def __post_init__(self) -> None:
        _set_whole(self, "num_samples", 1)
        _set_whole(self, "budget", 1)
        choice("boundary", self.boundary, BOUNDARIES)
        if self.total_updates is not None:
            _set_whole(self, "total_updates", 1)

    @classmethod
    def of(
        cls,
        num_samples: float | str,
        epochs: float | str | Fraction,
        boundary: str = "keep",
    ) -> "Horizon":
        """Returns the horizon of `epochs` passes, whose budget is round(epochs * N).

        Args:
            num_samples: Samples of one pass, N, a whole number.
            epochs: A decimal number of passes, taken exactly as it is written.
            boundary: What happens to a batch at a pass's end.

        Raises:
            ValueError: If an argument is out of its range or leaves no sample.
        """
        if isinstance(num_samples, str):
            exact = exact_decimal("num_samples", num_samples)
            if exact.denominator == 1:  # else it is refused as it was written
                num_samples = exact.numerator
        num_samples = whole_number("num_samples", num_samples)
        passes = exact_decimal("epochs", epochs)
        budget = round(passes * num_samples)
        if passes <= 0 or budget < 1:
            raise ValueError(
                f"epochs must be positive and reach at least one of the {num_samples} "
                f"samples, got {shown(epochs)}"
            )
        if budget > MAX_POSITION:
            raise ValueError(
                f"epochs must reach at most 2**63 samples in passes of {num_samples}, "
                f"got {shown(epochs)}"
            )
        return cls(num_samples=num_samples, budget=budget, boundary=boundary)


class Progress(NamedTuple):
    """Where the next update stands.

    Attributes:
        position: First position of the update's batch. Under `drop`, where the batch
            decided here does not fit into the rest of its pass, the settings are
            decided anew, from the same evidence and state, at the next pass's start.
        update: Index of the update, from 0.
    """

    position: int
    update: int


class Settings(NamedTuple):
    """What holds for one update.

    Attributes:
        batch_size: Global number of samples asked for (`keep` may cut it).
        lr: Learning rate.
        momentum: Momentum coefficient in [0, 1).
    """

    batch_size: int
    lr: float
    momentum: float


@dataclass(frozen=True, kw_only=True)
class MicroBatchEvidence:
    """What the gradients of one update's equal micro-batches say.

    The norms come with whatever a schedule asks for; the rest is None unless it is
    named in `Schedule.evidence`.

    Attributes:
        count: Number of micro-batches, K >= 2.
        batch_size: Samples of each micro-batch, b; each g_i is the mean over them.
        sum_squared_norms: Sum over i of the squared norm of g_i.
        squared_norm_of_mean: Squared norm of the mean of the g_i.
        inner_products: The product of each g_i with their mean. While they are
            computed, all K gradients are kept.
        orthogonal: The squared norm of each g_i's part orthogonal to their mean.

    Raises:
        ValueError: If there are fewer than two micro-batches, or one is empty.
    """

    count: int
    batch_size: int
    sum_squared_norms: float
    squared_norm_of_mean: float
    inner_products: tuple[float, ...] | None = None
    orthogonal: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        _set_whole(self, "count", 2)
        _set_whole(self, "batch_size", 1)


Evidence: TypeAlias = MicroBatchEvidence
"""Whatever a schedule may ask for."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Where an event lies: the first update at or past a position or an update index.

    Attributes:
        position: The position, or None if the event is counted in updates.
        update: The update's index, or None if the event lies at a position.

    Raises:
        ValueError: Unless exactly one of the two is given, a whole number of at least 0.
    """

    position: int | None = None
    update: int | None = None

    def __post_init__(self) -> None:
        if (self.position is None) == (self.update is None):
            raise ValueError(
                "a mark must have either a position or an update, "
                f"got position={shown(self.position)} and update={shown(self.update)}"
            )
        _set_whole(self, "update" if self.position is None else "position", 0)


class Schedule(ABC):
    """Decides the settings of each update.

    A schedule is a frozen value, and so is its state, which must also survive JSON:
    `restore(json.loads(json.dumps(state)))` equals `state`.

    A static schedule (one that needs no evidence) decides from progress alone and
    returns its state unchanged; its batch size and momentum change only at the marks
    that `events` declares, which is what lets a plan skip the updates between them.

    Attributes:
        name: Name under which the schedule appears in tables.
        evidence: Kinds of evidence that `decide` needs; empty for a static schedule.
        needs_total_updates: Whether the rate depends on `Horizon.total_updates`.
            While those are None such a schedule decides its initial rate. An adaptive
            schedule cannot have it, for its updates are not known beforehand.
    """

    name: str
    evidence: frozenset[str] = frozenset()
    needs_total_updates: bool = False

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """Returns every parameter, resolved, as JSON values."""

    @abstractmethod
    def init(self, horizon: Horizon) -> Any:
        """Returns the state before the first update.

        Raises:
            ValueError: If the schedule does not fit the horizon, such as a batch
                larger than the number of samples.
        """

    @abstractmethod
    def decide(
        self, progress: Progress, evidence: Evidence | None, state: Any
    ) -> tuple[Settings, Any]:
        """Returns the settings of the update at `progress`, and the next state.

        Args:
            progress: Where the update stands.
            evidence: What was measured since the last decision, or None.
            state: The state that the last decision returned.
        """

    @abstractmethod
    def events(self, horizon: Horizon) -> tuple[Mark, ...]:
        """Returns the declared events: changes of size, momentum or stepped rate."""

    @abstractmethod
    def restore(self, values: Any) -> Any:
        """Returns the state whose JSON was read back as `values`."""


def _set_whole(value: Any, name: str, minimum: int) -> None:
    """Checks a whole number of a frozen value, NumPy's too, and makes it an int."""
    number = whole_number(name, getattr(value, name), minimum)
    object.__setattr__(value, name, number)
