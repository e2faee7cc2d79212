"""How the benches compare: in turn, in one process, by the median of ratios."""

import statistics
import time

import pytest

from batchramp import _rust


class Turns:
    """Times of several functions, called in turn so that a slow spell meets them all.

    Before each, `between` is called off the clock.
    """

    def __init__(self, functions, rounds, between=lambda: None):
        self._rounds = [
            [seconds(function, between) for function in functions]
            for _ in range(rounds)
        ]

    def seconds(self, index):
        """Median seconds of one function."""
        return statistics.median(times[index] for times in self._rounds)

    def ratio(self, slower, faster):
        """Median over the rounds of one function's time over another's."""
        return statistics.median(
            times[slower] / times[faster] for times in self._rounds
        )


def seconds(function, between):
    between()
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


@pytest.fixture
def in_turn(benchmark):
    """Time functions in turn; once each where benchmarks are disabled."""
    if benchmark.enabled and _rust.BUILD_PROFILE != "release":
        pytest.fail("benchmarks need a release build")
    benchmark.extra_info["build"] = _rust.BUILD_PROFILE
    return lambda functions, rounds, **between: Turns(
        functions, rounds if benchmark.enabled else 1, **between
    )


@pytest.fixture
def say(benchmark, capsys):
    """Print a finding past pytest's capture, where benchmarks are enabled."""

    def tell(text):
        if benchmark.enabled:
            with capsys.disabled():
                print(f"\n{text}")

    return tell
