"""Tracers pause while something is timed, and come back as they were."""

import cProfile
import pstats
import sys
import threading
import tracemalloc

import pytest

from batchramp.benchmark.tracing import run_untraced


class Watcher:
    """A tracer, or profiler, that keeps the calls it sees and its place among them."""

    def __init__(self):
        self.seen = []
        self.open = []

    def __call__(self, frame, event, _):
        name = frame.f_code.co_name
        if event == "call":
            self.seen.append(name)
            self.open.append(name)
        elif event == "return":
            assert self.open.pop() == name
        return self


def timed():
    return "done"


def later():
    return "later"


def race_and_go_on(error=None):
    """What a tracer sees as one call with others inside."""

    def work():
        if error:
            raise error
        return timed()

    try:
        done, names = run_untraced(work)
    except ZeroDivisionError:
        done, names = "failed", ()
    later()
    return done, names


@pytest.fixture
def free():
    """Nothing watches when the test begins, and what did is put back after it."""
    switches = (
        (sys.gettrace, sys.settrace),
        (sys.getprofile, sys.setprofile),
        (threading.gettrace, threading.settrace),
        (threading.getprofile, threading.setprofile),
    )
    before = [get() for get, _ in switches]
    for _, put in switches:
        put(None)
    yield
    for (_, put), watcher in zip(switches, before, strict=True):
        put(watcher)


@pytest.mark.parametrize("error", [None, ZeroDivisionError()])
def test_a_tracer_sees_all_but_the_work_and_keeps_its_place(free, error):
    tracer = Watcher()
    sys.settrace(tracer)
    done, names = race_and_go_on(error)
    after = sys.gettrace()
    sys.settrace(None)
    assert (done, names) == ("failed" if error else "done", ())
    assert after is tracer
    assert not {"work", "timed"} & set(tracer.seen)
    assert {"race_and_go_on", "run_untraced", "later"} <= set(tracer.seen)
    assert tracer.open == []


@pytest.mark.parametrize("error", [None, ZeroDivisionError()])
def test_a_profiler_pauses_too(free, error):
    profiler = Watcher()
    sys.setprofile(profiler)
    race_and_go_on(error)
    after = sys.getprofile()
    sys.setprofile(None)
    assert after is profiler
    assert not {"work", "timed"} & set(profiler.seen)
    assert {"race_and_go_on", "run_untraced", "later"} <= set(profiler.seen)


def test_new_threads_are_not_watched_either(free):
    found = []

    def tracer(*_):
        return None

    def profiler(*_):
        return None

    def look():
        found.append((sys.gettrace(), sys.getprofile()))

    def start():
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    threading.settrace(tracer)
    threading.setprofile(profiler)
    run_untraced(start)
    assert (threading.gettrace(), threading.getprofile()) == (tracer, profiler)
    start()
    assert found == [(None, None), (tracer, profiler)]


def test_cprofile_pauses_and_goes_on(free):
    profile = cProfile.Profile()
    profile.enable()
    _, names = race_and_go_on()
    profile.disable()
    seen = {name for _, _, name in pstats.Stats(profile).stats}
    assert "later" in seen
    assert not {"work", "timed"} & seen
    # Since Python 3.12 it is one of the tools whose own events cannot be listed.
    assert names == (("cProfile",) if hasattr(sys, "monitoring") else ())


def test_what_cannot_be_put_back_is_left_and_named(free):
    tracemalloc.start()
    try:
        _, names = run_untraced(timed)
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()
    assert names == ("tracemalloc",)


@pytest.mark.skipif(not hasattr(sys, "monitoring"), reason="Python 3.12 brought it")
@pytest.mark.parametrize("error", [None, ZeroDivisionError()])
def test_a_monitoring_tool_pauses_and_is_named(free, error):
    monitoring, tool, seen = sys.monitoring, 4, []
    monitoring.use_tool_id(tool, "mine")
    try:
        start = monitoring.events.PY_START
        monitoring.register_callback(tool, start, lambda code, _: seen.append(code))
        monitoring.set_events(tool, start | monitoring.events.CALL)
        _, names = race_and_go_on(error)
        events = monitoring.get_events(tool)
    finally:
        monitoring.set_events(tool, 0)
        monitoring.free_tool_id(tool)
    assert events == start | monitoring.events.CALL
    assert names == (() if error else ("mine",))
    names_seen = {code.co_name for code in seen}
    assert "later" in names_seen
    assert not {"work", "timed"} & names_seen
