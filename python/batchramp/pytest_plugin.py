"""The pytest fixture `time_to_accuracy`, on top of pytest-benchmark.

    def test_training_speed(time_to_accuracy):
        time_to_accuracy("digits", "smith-increase", target="metric >= 0.96",
                         epochs=12, seeds=3, set={"batch_size": 16, ...})

Its tests are benchmarks to whatever asks: `--benchmark-only`, `--benchmark-skip`,
`--codspeed`. Each use adds an entry to the benchmark's JSON for each quantity that a gate
may watch, in groups of their own: train seconds, updates, and 1 + misses. A test's second
race has `:2` in their names. A round is a seed; a seed that misses its target counts what
its whole budget took, so gate the misses too. With benchmarks disabled one seed is trained
and nothing is recorded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from batchramp.names import suggest

if TYPE_CHECKING:
    from batchramp.benchmark.single_race import RaceSummary

QUANTITIES = ("train_seconds", "updates", "misses")
"""The entries of one race; their groups are `batchramp: <quantity>`."""

NOT_ASKED = (
    "quantity",
    "planned_updates",
    "updates_to_target",
    "misses",
    "batchramp",
    "torch",
    "cpu",
    "cpu_capability",
    "traced_by",
)
"""What may differ in an entry's `extra_info` where the same question was answered."""

TimeToAccuracyCall = Callable[..., "RaceSummary"]


class TimeToAccuracy:
    """Races one schedule to one target and hands the figures to pytest-benchmark."""

    def __init__(self, request: pytest.FixtureRequest, out: Path) -> None:
        self._request = request
        self._out = out
        self.races = 0

    def __call__(
        self,
        workload: str,
        schedule: str,
        *,
        target: str,
        epochs: float | str,
        seeds: int = 8,
        set: Mapping[str, Any] | None = None,
        quantities: Iterable[str] = QUANTITIES,
        **options: Any,
    ) -> RaceSummary:
        """Train `seeds` trials and record their first passages to the target.

        Args:
            workload: A workload's name, or `file.py:name`, relative to the test's file.
            schedule: A schedule's name, or `file.py:name`, likewise.
            target: Such as `"metric >= 0.96"`.
            epochs: Budget of a trial.
            seeds: Number of trials; one where benchmarks are disabled.
            set: Parameters of the schedule.
            quantities: The entries to record, of `QUANTITIES`. Updates and misses
                repeat exactly, seconds do not: a gate may want them apart.
            options: Further keys of a suite's panel (`weight_decay`, `nesterov`) or of
                a suite (`cadence`, `boundary`, `measures`, `micro_batch`, `threads`),
                and `data` and `device` as on the command line.

        Returns:
            The seconds and updates of each seed's passage, infinite where it missed.

        Raises:
            ValueError: An argument is not valid.
            RuntimeError: A trial failed, had too few looks to confirm the target, or
                every seed diverged and an entry of seconds or updates is asked for.
        """
        from batchramp.benchmark.single_race import race_once
        from batchramp.benchmark.tracing import run_untraced

        # An error counts too, so that no later race finds its results in the folder.
        self.races += 1
        wanted = _check_quantities(quantities)
        session = self._request.config._benchmarksession  # type: ignore[attr-defined]
        summary = race_once(
            workload,
            schedule,
            target=target,
            epochs=epochs,
            seeds=seeds,
            set=set,
            out=self._out / f"race{self.races}",
            folder=self._request.path.parent,
            first_only=session.disabled,
            **options,
        )
        if session.disabled:
            return summary
        spent = {
            "train_seconds": summary.spent_seconds,
            "updates": summary.spent_updates,
            "misses": (float(1 + summary.misses),),
        }
        if any(math.isinf(value) for name in wanted for value in spent[name]):
            raise RuntimeError(
                "every seed diverged, so there is no whole budget that their misses "
                'could count; quantities=("misses",) records the misses alone'
            )

        def record() -> None:
            for quantity in wanted:
                self._record(quantity, spent[quantity], summary)

        self._tell_another_question(summary)
        # pytest-benchmark's own way to pause cProfile ends in an error.
        run_untraced(record)
        return summary

    def _record(
        self, quantity: str, rounds: Sequence[float], summary: RaceSummary
    ) -> None:
        """Add one entry whose rounds are the given values, read off a dial."""
        from pytest_benchmark.fixture import BenchmarkFixture
        from pytest_benchmark.utils import NameWrapper

        node = self._request.node
        session = self._request.config._benchmarksession  # type: ignore[attr-defined]
        marker = node.get_closest_marker("benchmark")
        group = marker.kwargs.get("group") if marker else None
        dial = _Dial(rounds)
        fixture = BenchmarkFixture(
            node,
            add_stats=session.benchmarks.append,
            logger=session.logger,
            warner=node.warn,
            disabled=False,
            **{
                **session.options,
                "timer": NameWrapper(dial.read),
                "group": f"{group or 'batchramp'}: {quantity}",
                # The training is over: these would be told of it, and not be true.
                "disable_gc": False,
                "warmup": False,
                "cprofile": False,
            },
        )
        fixture.name += self._suffix(quantity)
        fixture.fullname += self._suffix(quantity)
        fixture.extra_info |= {"quantity": quantity, **summary.describe()}
        fixture.pedantic(dial.advance, setup=dial.restart, rounds=len(rounds))

    def _suffix(self, quantity: str) -> str:
        # A gate finds an entry's predecessor by its name, which must be its own.
        race = "" if self.races == 1 else f":{self.races}"
        return f"{race}:{quantity}"

    def _tell_another_question(self, summary: RaceSummary) -> None:
        """Warn where this run is compared with one that was asked something else."""
        node = self._request.node
        session = self._request.config._benchmarksession  # type: ignore[attr-defined]
        here = _asked(summary.describe())
        names = [node.nodeid + self._suffix(quantity) for quantity in QUANTITIES]
        for path, entries in session.compared_mapping.items():
            there = [_asked(entries[n]["extra_info"]) for n in names if n in entries]
            if there and there[0] != here:
                keys = sorted(here.keys() | there[0].keys())
                changed = [
                    f"{key} {there[0].get(key)} there, {here.get(key)} here"
                    for key in keys
                    if there[0].get(key) != here.get(key)
                ]
                node.warn(
                    pytest.PytestWarning(
                        f"{node.name} is compared with the answer to another question "
                        f"in {path}: {'; '.join(changed)}"
                    )
                )


def _asked(extra_info: Mapping[str, Any]) -> dict[str, str]:
    """What an entry's figures answer, as text; what it was answered with is left out."""
    return {
        name: json.dumps(value, sort_keys=True, default=str)
        for name, value in extra_info.items()
        if name not in NOT_ASKED
    }


def _check_quantities(quantities: Iterable[str]) -> tuple[str, ...]:
    rule = f"quantities must be some of {', '.join(QUANTITIES)}, each once"
    if isinstance(quantities, str) or not isinstance(quantities, Iterable):
        raise ValueError(f"{rule}, got {quantities!r}")
    wanted = tuple(quantities)
    for name in wanted:
        if name not in QUANTITIES:
            raise ValueError(suggest("quantity", str(name), QUANTITIES))
    if not wanted or len(set(wanted)) < len(wanted):
        raise ValueError(f"{rule}, got {wanted!r}")
    return wanted


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


class _WithBenchmark:
    """The fixture where there is pytest-benchmark."""

    @pytest.fixture
    def time_to_accuracy(
        self,
        request: pytest.FixtureRequest,
        tmp_path_factory: pytest.TempPathFactory,
        benchmark: Any,
    ) -> Generator[TimeToAccuracyCall]:
        """Race a schedule to a target; see `TimeToAccuracy.__call__`."""
        # Every tool knows a benchmark by its having asked for the fixture `benchmark`.
        _tell_codspeed(request)
        racer = TimeToAccuracy(request, tmp_path_factory.mktemp("batchramp"))
        yield racer
        if racer.races:  # else it warns that it was not used
            benchmark.skipped = True


class _WithoutBenchmark:
    """The fixture where there is none: it says what to install."""

    @pytest.fixture
    def time_to_accuracy(self) -> None:
        """Needs pytest-benchmark."""
        pytest.fail("time_to_accuracy needs pytest-benchmark: batchramp[pytest]")


def pytest_configure(config: pytest.Config) -> None:
    """Offer the fixture."""
    there = config.pluginmanager.hasplugin("benchmark")
    fixtures = _WithBenchmark() if there else _WithoutBenchmark()
    config.pluginmanager.register(fixtures, "batchramp fixtures")


def _tell_codspeed(request: pytest.FixtureRequest) -> None:
    """Say that CodSpeed, which measures by its own clock alone, records nothing here."""
    config = request.config
    plugin = config.pluginmanager.get_plugin("codspeed_plugin")
    disabled = config._benchmarksession.disabled  # type: ignore[attr-defined]
    if getattr(plugin, "is_codspeed_enabled", False) and disabled:
        request.node.warn(
            pytest.PytestWarning(
                "time_to_accuracy: CodSpeed cannot read the train clock, so one seed is "
                "trained and nothing recorded; --benchmark-enable records with "
                "pytest-benchmark all the same"
            )
        )


@pytest.hookimpl(optionalhook=True, wrapper=True)
def pytest_benchmark_group_stats() -> Generator[None, list[Any], list[Any]]:
    """Keep the quantities in tables of their own, whatever benchmarks are grouped by."""
    groups = yield
    apart: dict[Any, list[Any]] = {}
    for label, benchmarks in groups:
        kinds = [bench["extra_info"].get("quantity") for bench in benchmarks]
        for kind, bench in zip(kinds, benchmarks, strict=True):
            own = label if len(set(kinds)) == 1 or kind is None else f"{label}: {kind}"
            apart.setdefault(own, []).append(bench)
    return list(apart.items())
