"""Errors of a user's own code, told in one line with the line that the user wrote."""

from __future__ import annotations

import os
import re
import site
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from traceback import walk_tb

PACKAGE = Path(__file__).parent.parent
"""Where batchramp itself is installed."""


@cache
def _installed() -> tuple[str, ...]:
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = [sysconfig.get_path(kind) for kind in kinds]
    folders += [*site.getsitepackages(), site.getusersitepackages(), str(PACKAGE)]
    spellings = {spell(folder) for folder in folders for spell in _SPELLINGS}
    return tuple(folder + os.sep for folder in spellings)


_TOLD_PLACE = re.compile(r"\(\S+:\d+(, in \S+)?\)$")

# An installer may link its files from a cache, so each path is looked at both ways.
_SPELLINGS = (os.path.abspath, os.path.realpath)


def is_users_own(path: str | Path) -> bool:
    """Say whether a source file is a user's own.

    It is where it is not installed, and a Python file at all (`<string>` is none, nor is
    what an extension names as its source).
    """
    return os.fspath(path).endswith(".py") and not is_installed(path)


def is_installed(path: str | Path) -> bool:
    """Say whether a file belongs to the standard library, a package, or batchramp."""
    name = os.fspath(path)
    return any(spell(name).startswith(_installed()) for spell in _SPELLINGS)


def told(error: BaseException) -> str:
    """Return one line for an error: its type, its message and the user's own line.

    Such as `KeyError: 'temperature' (w.py:23, in loss)`: the innermost frame that lies
    in a file of the user's own. A `ValueError` of batchramp's own is its message alone,
    with the user's line where there is one.
    """
    message = _message(error)
    if not (isinstance(error, ValueError) and _is_ours(error)):
        kind = type(error).__name__
        message = f"{kind}: {message}" if message else kind
    if _TOLD_PLACE.search(message):  # of an error behind this one, further inside
        return message
    return f"{message} {_place(error)}".rstrip()


@contextmanager
def errors_named(place: str) -> Iterator[None]:
    """Say where an error comes from; a user's own code may raise any.

    Raises:
        ValueError: Whatever was raised, an exit included, behind `place`.
    """
    try:
        yield
    except SystemExit as error:
        raise ValueError(f"{place}: it calls exit: {told(error)}") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        message = told(error)
        if not message.startswith(place):
            message = f"{place}: {message}"
        raise ValueError(message) from error


def _message(error: BaseException) -> str:
    if isinstance(error, SyntaxError):  # its text names the file again
        return error.msg or ""
    try:
        lines = str(error).splitlines()
    except Exception:  # a user's own class may raise here too
        return "<its message cannot be read>"
    return " ".join(line.strip() for line in lines if line.strip())


def _is_ours(error: BaseException) -> bool:
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    innermost = frames[-1].f_code.co_filename if frames else ""
    return innermost.startswith(f"{PACKAGE}{os.sep}")


def _place(error: BaseException) -> str:
    """The innermost line of the user's own, in brackets; "" where there is none."""
    if isinstance(error, SyntaxError) and is_users_own(error.filename or ""):
        return f"({Path(error.filename or '').name}:{error.lineno})"
    for frame, line in reversed(list(walk_tb(error.__traceback__))):
        code = frame.f_code
        if is_users_own(code.co_filename):
            function = "" if code.co_name == "<module>" else f", in {code.co_name}"
            return f"({Path(code.co_filename).name}:{line}{function})"
    return ""
