"""Batch sizes of every kind, for tests of what must hold for all of them."""

from types import SimpleNamespace

import pytest
from hypothesis import strategies as st


def runs_plan(num_samples, runs, budget, boundary="keep"):
    horizon = SimpleNamespace(num_samples=num_samples, budget=budget, boundary=boundary)
    return SimpleNamespace(horizon=horizon, runs=runs, fingerprint="f00d")


@st.composite
def size_functions(draw, num_samples):
    """A pure function of the position, and a sampler's keywords that mean it."""
    kind = draw(st.sampled_from(["fixed", "plan", "callable"]))
    sizes = draw(st.lists(st.integers(1, num_samples), min_size=1, max_size=6))
    every = draw(st.integers(1, 20))
    if kind == "fixed":
        return (lambda _: sizes[0]), lambda _: {"batch_size": sizes[0]}

    def function(position):
        return sizes[min(position // every, len(sizes) - 1)]

    if kind == "callable":
        return function, lambda _: {"schedule": function}
    runs = [(index * every, size) for index, size in enumerate(sizes)]
    far = 100 * num_samples
    return function, lambda boundary: {
        "schedule": runs_plan(num_samples, runs, far, boundary)
    }


@pytest.fixture(scope="session", name="size_functions")
def strategy():
    """Given a number of samples, the strategy of its batch sizes."""
    return size_functions
