"""Names that users write: the nearest known one, and objects of their own files."""

from __future__ import annotations

import difflib
import importlib.util
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType


def suggest(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the message for an unknown name: the nearest known ones, or all of them.

    Args:
        kind: What the name should be, such as `"schedule"`.
        name: What was written.
        known: The names that exist.
    """
    known = sorted(known)
    nearest = difflib.get_close_matches(name, known, n=3)
    hint = (
        f"did you mean {' or '.join(nearest)}?"
        if nearest
        else f"there are {', '.join(known) or 'none'}"
    )
    return f"unknown {kind} {name!r}: {hint}"


@cache
def _execute(path: Path) -> ModuleType:
    name = f"batchramp_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} must be a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        message = f"{path} cannot be run: {type(error).__name__}: {error}"
        raise ValueError(message) from error
    return module


def user_file(name: str, relative_to: Path | None = None) -> Path:
    """Return the absolute path of the file in `file.py:name`."""
    return ((relative_to or Path()) / name.rpartition(":")[0]).resolve()


def load_from_file(name: str, relative_to: Path | None = None) -> object:
    """Return what `file.py:name` defines.

    Args:
        name: A Python file and the name of an object in it.
        relative_to: The folder of a relative file; None is the current one.

    Raises:
        ValueError: There is no such file, it cannot be run, or it lacks the name.
    """
    path, attribute = user_file(name, relative_to), name.rpartition(":")[2]
    if not path.is_file():
        raise ValueError(f"{name}: there is no file {path}")
    module = _execute(path)
    if not hasattr(module, attribute):
        public = (known for known in vars(module) if not known.startswith("_"))
        raise ValueError(f"{path}: {suggest('name', attribute, public)}")
    return getattr(module, attribute)
