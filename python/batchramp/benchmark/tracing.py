"""Pauses what watches every call or line: it would slow a train clock by some 10 to 40%."""

from __future__ import annotations

import _lsprof
import sys
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")

_MONITORING: Any = getattr(sys, "monitoring", None)  # Python 3.12 or later
_TOOLS = range(6)  # PEP 669


def run_untraced(work: Callable[[], Result]) -> tuple[Result, tuple[str, ...]]:
    """Call `work` while this thread's tracer and profiler, and new threads', pause.

    They are put back as they were, also after an error. Of a `sys.monitoring` tool the
    events of all code pause; those it set on single code objects cannot be listed, so
    it is among the names returned.

    Returns:
        What `work` returned, and what may have watched it all the same: monitoring
        tools, a tracer or profiler that Python could not put back, tracemalloc.
    """
    # Both switches are thrown in this one frame: a tracer that counts calls and
    # returns, as coverage's does, would lose its place if they came in two.
    trace: Any = sys.gettrace()
    profile: Any = sys.getprofile()
    thread_trace, thread_profile = threading.gettrace(), threading.getprofile()
    tools = _monitoring_tools()
    watching = [name for name, _ in tools.values()]
    watching += [
        type(watcher).__name__
        for watcher in (trace, profile)
        if not (watcher is None or callable(watcher) or _is_cprofile(watcher))
    ]
    if tracemalloc.is_tracing():
        watching.append("tracemalloc")

    try:
        for tool in tools:
            _MONITORING.set_events(tool, 0)
        threading.settrace(None)
        threading.setprofile(None)
        if _is_cprofile(profile):
            profile.disable()
        elif callable(profile):
            sys.setprofile(None)
        if callable(trace):
            sys.settrace(None)
        return work(), tuple(watching)
    finally:
        if callable(trace):
            sys.settrace(trace)
        if _is_cprofile(profile):
            profile.enable()
        elif callable(profile):
            sys.setprofile(profile)
        threading.setprofile(thread_profile)
        threading.settrace(thread_trace)
        for tool, (name, events) in tools.items():
            if _MONITORING.get_tool(tool) == name:  # and not another's by now
                _MONITORING.set_events(tool, events)


def _monitoring_tools() -> dict[int, tuple[str, int]]:
    """Each `sys.monitoring` tool in use: its name, and its events for all code."""
    if _MONITORING is None:
        return {}
    return {
        tool: (name, _MONITORING.get_events(tool))
        for tool in _TOOLS
        if (name := _MONITORING.get_tool(tool)) is not None
    }


def _is_cprofile(profile: object) -> bool:
    """Whether it is a C profiler in `sys.getprofile`, which cannot be set from Python."""
    return isinstance(profile, _lsprof.Profiler)
