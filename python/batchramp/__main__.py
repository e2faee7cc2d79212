"""The way in from a shell: the script `batchramp`, and `python -m batchramp`.

It imports nothing heavy before an interrupt has a place to go.
"""

from __future__ import annotations

import os
import signal
import sys
from io import TextIOWrapper
from types import FrameType

INTERRUPTED, READER_GONE = 130, 141
"""Exit codes as a shell gives them for SIGINT and SIGPIPE."""

_LINE = "batchramp: interrupted"


def main() -> int:
    """Run the command of `sys.argv` as a process of its own; return its exit code."""
    # A parent that ignores interrupts (a shell's background job) has it kept so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        _open_streams()
        return _run()
    except KeyboardInterrupt:
        print(_LINE, file=sys.stderr)  # noqa: T201
        return INTERRUPTED


def _interrupt(_number: int, frame: FrameType | None) -> None:
    """Raise, as Python does; but end at once in an import before any run.

    Some packages swallow what is raised while they are imported, or make another error
    of it: torch goes on without the NumPy that was interrupted.
    """
    runs = hasattr(sys.modules.get("batchramp.benchmark.runner"), "run")
    while frame is not None and not runs:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            os.write(2, f"{_LINE}\n".encode())
            os._exit(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt


def _open_streams() -> None:
    """Give each stream that the shell closed a place to go, and its number a holder.

    Else a results file would get the number, and what C code prints into it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: PTH123, SIM115
            os.set_inheritable(stream.fileno(), True)  # by the processes of a run too
            setattr(sys, name, stream)


def _run() -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    from batchramp.cli import main as command

    code = command()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Else Python tries to flush it once more, and complains.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    return code


if __name__ == "__main__":
    sys.exit(main())
