"""The pytest fixture `time_to_accuracy`, on top of pytest-benchmark.

    def test_training_speed(time_to_accuracy):
        time_to_accuracy("digits", "smith-increase", target="metric >= 0.96",
                         epochs=12, seeds=3, set={"batch_size": 16, ...})

Each use adds three entries to the benchmark's JSON, one for each quantity that a gate may
watch, in groups of their own: train seconds, updates, and 1 + misses. A test's second race
has `:2` in their names. A round is a seed; a seed that misses its target counts what its
whole budget took, so gate the misses too. With benchmarks disabled one seed is trained and
nothing is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from batchramp.benchmark.single_race import RaceSummary

QUANTITIES = ("train_seconds", "updates", "misses")
"""The entries of one race; their groups are `batchramp: <quantity>`."""


class TimeToAccuracy:
    """Races one schedule to one target and hands the figures to pytest-benchmark."""

    def __init__(self, request: pytest.FixtureRequest, folder: Any) -> None:
        self._request = request
        self._folder = folder
        self._races = 0

    def __call__(
        self,
        workload: str,
        schedule: str,
        *,
        target: str,
        epochs: float | str,
        seeds: int = 8,
        set: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> RaceSummary:
        """Train `seeds` trials and record their first passages to the target.

        Args:
            workload: A workload's name, or `file.py:name`.
            schedule: A schedule's name, or `file.py:name`.
            target: Such as `"metric >= 0.96"`.
            epochs: Budget of a trial.
            seeds: Number of trials; one where benchmarks are disabled.
            set: Parameters of the schedule.
            options: Further keys of a suite's panel (`weight_decay`, `nesterov`) or of
                a suite (`cadence`, `boundary`, `micro_batch`, `threads`), and `data`
                and `device` as on the command line.

        Returns:
            The seconds and updates of each seed's passage, infinite where it missed.

        Raises:
            ValueError: An argument is not valid.
            RuntimeError: A trial failed.
        """
        from batchramp.benchmark.single_race import race_once

        session = self._request.config._benchmarksession  # type: ignore[attr-defined]
        summary = race_once(
            workload,
            schedule,
            target=target,
            epochs=epochs,
            seeds=seeds,
            set=dict(set or {}),
            folder=self._folder / f"race{self._races}",
            first_only=session.disabled,
            **options,
        )
        self._races += 1
        misses = float(1 + summary.misses)
        values = (summary.spent_seconds, summary.spent_updates, [misses])
        # A gate finds an entry's predecessor by its name, which must be its own.
        race = "" if self._races == 1 else f":{self._races}"
        for quantity, rounds in zip(QUANTITIES, values, strict=True):
            suffix = f"{race}:{quantity}"
            _record(self._request, quantity, suffix, rounds, summary.describe())
        return summary


def _record(
    request: pytest.FixtureRequest,
    quantity: str,
    suffix: str,
    rounds: Sequence[float],
    extra_info: Mapping[str, Any],
) -> None:
    """Add one entry whose rounds are the given values, read off a dial."""
    from pytest_benchmark.fixture import BenchmarkFixture
    from pytest_benchmark.utils import NameWrapper

    session = request.config._benchmarksession  # type: ignore[attr-defined]
    dial = _Dial(rounds)
    fixture = BenchmarkFixture(
        request.node,
        add_stats=session.benchmarks.append,
        logger=session.logger,
        warner=request.node.warn,
        disabled=session.disabled,
        **{
            **session.options,
            "timer": NameWrapper(dial.read),
            "group": f"batchramp: {quantity}",
        },
    )
    fixture.name += suffix
    fixture.fullname += suffix
    fixture.extra_info.update(extra_info)
    fixture.pedantic(dial.advance, setup=dial.restart, rounds=len(rounds))


class _Dial:
    """A clock that moves by the next value at each advance."""

    def __init__(self, values: Sequence[float]) -> None:
        self._reading = 0.0
        self._values = iter(values)

    def read(self) -> float:
        return self._reading

    def advance(self) -> None:
        # From zero each time, so that a difference of readings is the value itself.
        self._reading = next(self._values)

    def restart(self) -> None:
        self._reading = 0.0


@pytest.fixture
def time_to_accuracy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., RaceSummary]:
    """Race a schedule to a target; see `TimeToAccuracy.__call__`."""
    if not request.config.pluginmanager.hasplugin("benchmark"):
        pytest.fail("time_to_accuracy needs pytest-benchmark: batchramp[pytest]")
    return TimeToAccuracy(request, tmp_path_factory.mktemp("batchramp"))
