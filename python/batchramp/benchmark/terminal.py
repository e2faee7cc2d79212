"""Where a command prints: the two consoles, and how they differ from `rich`'s own."""

from __future__ import annotations

from typing import NoReturn

from rich.console import Console
from rich.text import Text

from batchramp.benchmark.escaping import printable

LEAST_WIDTH = 80
"""What tables fit: in fewer columns `rich` would cut numbers, and leave columns out."""

_LEAST_REMARK = 20


class _Output(Console):
    """Standard output. A reader that goes away ends the command."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


class _Remarks(Console):
    """Standard error. A reader that goes away ends no run."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


def output() -> Console:
    """A console on standard output."""
    return _at_least(LEAST_WIDTH, _Output())


def remarks() -> Console:
    """A console on standard error, for what is no result."""
    return _at_least(_LEAST_REMARK, _Remarks(stderr=True))


def _at_least(width: int, console: Console) -> Console:
    if console.width < width:
        console.width = width
    return console


def draws(console: Console) -> bool:
    """Whether a bar can be drawn: the stream is a terminal that can go back in a line.

    Whatever FORCE_COLOR and its kin say: those ask for colours, in a log too.
    """
    return (
        console.file.isatty()
        and console.is_terminal
        and console.is_interactive
        and not console.is_dumb_terminal
    )


def as_text(text: str, style: str = "") -> Text:
    """A user's text, or one that holds it, for a console: no markup, nothing obeyed."""
    return Text(printable(text), style=style)
