"""Names and paths that users write, and the nearest known ones."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

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


def find_entry_point(group: str, name: str) -> EntryPoint | None:
    """Return what an installed package registers under a name; None if none does."""
    return next(iter(entry_points(group=group, name=name)), None)
