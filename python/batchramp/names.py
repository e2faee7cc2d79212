"""Names that users write: the nearest known one, and objects of users' own."""

from __future__ import annotations

import difflib
import hashlib
import os
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from batchramp.values import shown

LONGEST_NAME = 100
"""The longest name that is compared with those that exist."""

MOST_LISTED = 50
"""The most names that exist that an error lists."""


def user_path(path: str | Path) -> Path:
    """Return a path as a user writes it: `~` is the home directory, all else literal.

    A `~name` of nobody is a file's own name.
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111 - `Path`'s own raises there


def suggest(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the message for an unknown name: the nearest known ones, or all of them.

    Args:
        kind: What the name should be, such as `"schedule"`.
        name: What was written.
        known: The names that exist.
    """
    known = sorted(known)
    nearest: list[str] = []
    if len(name) <= LONGEST_NAME:  # the time of a comparison grows with its square
        nearest = difflib.get_close_matches(name, known, n=3)
    if nearest:
        hint = f"did you mean {' or '.join(nearest)}?"
    else:
        listed = ", ".join(known[:MOST_LISTED]) or "none"
        more = len(known) - MOST_LISTED
        hint = f"there are {listed}{f' and {more} more' if more > 0 else ''}"
    return f"unknown {kind} {shown(name)}: {hint}"


@cache
def _execute(path: Path, source: bytes) -> ModuleType:
    # Not by import, whose cached bytecode misses an edit of the same second and size.
    digest = hashlib.sha256(bytes(path) + source).hexdigest()
    module = ModuleType(f"batchramp_user_{path.stem}_{digest[:16]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look their module up there
    try:
        exec(compile(source, path, "exec", dont_inherit=True), vars(module))
    except Exception as error:
        del sys.modules[module.__name__]
        message = f"{path} cannot be run: {type(error).__name__}: {error}"
        raise ValueError(message) from error
    return module


def user_file(name: str, group: str, relative_to: Path | None = None) -> Path | None:
    """Return the file of a user's own object: of `file.py:name`, or of an entry point.

    None is a name that is not a user's own.
    """
    if ":" in name:
        return _path(name, relative_to)
    point = find_entry_point(group, name)
    spec = find_spec(point.module) if point else None
    return Path(spec.origin) if spec and spec.origin else None


def find_entry_point(group: str, name: str) -> EntryPoint | None:
    """Return what an installed package registers under a name; None if none does."""
    return next(iter(entry_points(group=group, name=name)), None)


def _path(name: str, relative_to: Path | None) -> Path:
    return ((relative_to or Path()) / name.rpartition(":")[0]).resolve()


def load_from_file(name: str, relative_to: Path | None = None) -> object:
    """Return what `file.py:name` defines; an edited file is read anew.

    Args:
        name: A Python file and the name of an object in it.
        relative_to: The folder of a relative file; None is the current one.

    Raises:
        ValueError: There is no such file, it cannot be run, or it lacks the name.
    """
    path, attribute = _path(name, relative_to), name.rpartition(":")[2]
    if path.suffix != ".py":
        raise ValueError(f"{name}: {path} must be a Python file")
    if not path.is_file():
        raise ValueError(f"{name}: there is no file {path}")
    module = _execute(path, path.read_bytes())
    if not hasattr(module, attribute):
        public = (known for known in vars(module) if not known.startswith("_"))
        raise ValueError(f"{path}: {suggest('name', attribute, public)}")
    return getattr(module, attribute)
