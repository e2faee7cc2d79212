"""The files of users' own that one run loads: read once, hashed and run as read."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module, invalidate_caches
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

from batchramp.names import find_entry_point, suggest, user_path
from batchramp.user_code.errors import is_installed, is_users_own, told
from batchramp.user_code.imports import Module, imported_modules

_first_seen: dict[Path, str] = {}
"""Digests of files that this process had imported before we came to them."""


class UserCode:
    """Users' own files, as they were when they were first read.

    What is hashed is what is run: a file is read once, and its modules run from those
    bytes, not from a cached bytecode or from an edit of a moment later. They are
    importable, by each other and by what they call, inside `importable()`; at its end
    `sys.modules` and `sys.path` are as before, so that another run reads them anew.

    Args:
        folder: Where a relative file is looked up, and whose files are importable: a
            suite's folder. None is the current one.
        extra: Files beside the suite that count without being imported.
        read: What another process has read, to run the very same.

    Raises:
        ValueError: An extra file is not there.
    """

    def __init__(
        self,
        folder: Path | None = None,
        extra: Sequence[str] = (),
        read: Mapping[Path, bytes] | None = None,
    ) -> None:
        self.folder = (folder or Path()).resolve()
        self.read: dict[Path, bytes] = dict(read or {})
        self._extra = {
            name: (self.folder / user_path(name)).resolve() for name in extra
        }
        for name, path in self._extra.items():
            if not path.is_file() and path not in self.read:
                raise ValueError(f"sources: there is no file {name} ({path})")
            self._bytes(path)
        self._folders = [self.folder]
        self._sources: dict[str, dict[str, str]] = {}
        self._modules: dict[str, Module] = {}
        self._set_aside: dict[str, ModuleType | None] = {}
        self._minded: set[str] = set()
        self._active = False

    def extra_sources(self) -> dict[str, str]:
        """Return the SHA-256 of each extra file, by its name as it was written."""
        return {name: self._digest(path) for name, path in self._extra.items()}

    def sources(self, name: str, group: str) -> dict[str, str]:
        """Return the SHA-256 of each module of users' own behind a name.

        Args:
            name: `file.py:name`, an entry point's name, or a built-in one.
            group: The entry points' group.

        Returns:
            By dotted module name; `""` is the file itself, and a built-in name has
            none. An installed package counts with its own modules only.

        Raises:
            ValueError: There is no such file, or it cannot be told what it imports.
        """
        if name not in self._sources:
            self._sources[name] = self._find_sources(name, group)
        return self._sources[name]

    def load(self, name: str) -> object:
        """Return what `file.py:name` defines.

        Raises:
            ValueError: There is no such file, it cannot be run, or it lacks the name.
        """
        path, attribute = self._path(name), name.rpartition(":")[2]
        self.sources(name, "")
        main = Module(self._main_name(path), path)
        try:
            with self.importable():
                self._declare(main)
                module = import_module(main.name)
                self.check_imports()
        except SystemExit as error:
            raise ValueError(f"{path} calls exit when it is run: {error}") from error
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise ValueError(f"{path} cannot be run: {told(error)}") from error
        if not hasattr(module, attribute):
            public = (known for known in vars(module) if not known.startswith("_"))
            raise ValueError(f"{path}: {suggest('name', attribute, public)}")
        return getattr(module, attribute)

    @contextmanager
    def importable(self) -> Iterator[None]:
        """Let users' files import their neighbours, here and in processes begun here.

        Inside itself it changes nothing.
        """
        if self._active:
            yield
            return
        finder = _Neighbours(self)
        path_before = list(sys.path)
        invalidate_caches()
        sys.meta_path.insert(0, finder)
        # At the end: for processes begun here, and never in the way of the installed.
        sys.path.extend(str(folder) for folder in self._folders)
        self._active = True
        before = set(sys.modules)
        self._minded = set(before)
        for name in self._modules:
            self._put_aside(name)
        try:
            yield
        finally:
            self._active = False
            sys.meta_path.remove(finder)
            sys.path[:] = path_before
            for name in set(sys.modules) - before:
                if _own_file(sys.modules[name]):
                    del sys.modules[name]
            for name, module in self._set_aside.items():
                sys.modules.pop(name, None)
                if module is not None:
                    sys.modules[name] = module
            self._set_aside.clear()

    def check_imports(self) -> None:
        """Refuse what runs here and has no part in what a trial is known by.

        An import that no statement shows, or that is found where a file itself has said
        to look, is known only once it has been run.

        Raises:
            ValueError: A module of a user's own was imported and not read before.
        """
        if not any(self._sources.values()):
            return
        packages = {
            name.partition(".")[0] for found in self._sources.values() for name in found
        }
        for name, module in list(sys.modules.items()):
            if name in self._minded and name.partition(".")[0] not in packages:
                continue
            self._minded.add(name)
            path = _own_file(module)
            if path is not None and path not in self.read:
                raise ValueError(self._unseen(path))

    def _unseen(self, path: Path) -> str:
        return (
            f"{path.name} is imported, but no import statement that can be followed "
            "names it, so its edits would go unseen: add it to the suite: sources = "
            f'["{os.path.relpath(path, self.folder)}"]'
        )

    def spec_of(self, name: str) -> ModuleSpec | None:
        """Return the spec of a module that is known from the import statements."""
        module = self._modules.get(name)
        if module is None or module.path.suffix != ".py":
            return None
        return spec_from_file_location(
            name,
            module.path,
            loader=_AsRead(module.path, self._bytes(module.path)),
            submodule_search_locations=(
                [str(module.path.parent)] if module.is_package else None
            ),
        )

    def spec_of_extra(
        self, name: str, search: Sequence[str] | None
    ) -> ModuleSpec | None:
        """Return the spec of a neighbour that no import statement names.

        Raises:
            ImportError: The suite does not name it either, so that it would have no
                part in what a trial is known by.
        """
        if not self._modules:  # a run without files of users' own minds no import
            return None
        places = [str(folder) for folder in self._folders]
        elsewhere = [place for place in sys.path if place not in places]
        spec = PathFinder.find_spec(name, elsewhere if search is None else search)
        if spec is None and search is None:  # the installed comes before a neighbour
            spec = PathFinder.find_spec(name, places)
        if spec is None or not spec.has_location or not spec.origin:
            return None
        path = Path(spec.origin).resolve()
        if path in self._extra.values():
            is_package = spec.submodule_search_locations is not None
            self._declare(Module(name, path, is_package))
            return self.spec_of(name)
        if is_users_own(path) and any(map(path.is_relative_to, self._folders)):
            raise ImportError(self._unseen(path))
        return None

    def _find_sources(self, name: str, group: str) -> dict[str, str]:
        if ":" in name:
            path, package, inside = self._path(name), "", None
            self._add_folder(path.parent)
        else:
            point = find_entry_point(group, name)
            spec = None if point is None else _spec(point.module)
            if spec is None or not spec.origin:
                return {}
            path = Path(spec.origin).resolve()
            package = spec.parent or ""
            inside = path.parent if package else None
        # As if the file were run by itself: its own folder comes first.
        folders = list(dict.fromkeys([path.parent, self.folder]))
        modules = imported_modules(
            path, folders, self._bytes, package=package, inside=inside
        )
        for module in modules.values():
            beside = any(map(module.path.is_relative_to, folders))
            runs_as_read = beside or module.name not in sys.modules
            # An extension is loaded once a process, and never from bytes.
            if ":" in name and runs_as_read and module.path.suffix == ".py":
                self._declare(module)
            else:
                self._check_unedited(module)
        digests = {
            module.name: self._digest(module.path) for module in modules.values()
        }
        return {"": self._digest(path), **digests}

    def _path(self, name: str) -> Path:
        written, _, attribute = name.rpartition(":")
        path = (self.folder / user_path(written)).resolve()
        if path.suffix != ".py":
            raise ValueError(f"{name}: {path} must be a Python file")
        if path not in self.read and not path.is_file():
            raise ValueError(f"{name}: there is no file {path}")
        if not attribute.isidentifier():
            raise ValueError(f"{name}: the name after ':' must be one of the file's")
        return path

    def _main_name(self, path: Path) -> str:
        """The name that others would import the file by, where it is free."""
        for name, module in self._modules.items():
            if module.path == path:
                return name
        name = path.stem
        if not (
            "." in name
            or name in self._modules
            or name in sys.stdlib_module_names
            or _is_others(name, path)
        ):
            return name
        place = hashlib.sha256(bytes(path)).hexdigest()[:8]
        return f"batchramp_user_{name.replace('.', '_')}_{place}"

    def _declare(self, module: Module) -> None:
        known = self._modules.setdefault(module.name, module)
        if known.path != module.path:
            raise ValueError(
                f"one suite's files must mean one file by import {module.name}, got "
                f"{known.path} and {module.path}: rename one of them"
            )
        if self._active:
            self._put_aside(module.name)

    def _put_aside(self, name: str) -> None:
        """Make room for a module, and for the folders above it, which are modules too."""
        while name:
            if name not in self._set_aside:
                self._set_aside[name] = sys.modules.pop(name, None)
            name = name.rpartition(".")[0]

    def _add_folder(self, folder: Path) -> None:
        if folder in self._folders:
            return
        self._folders.insert(0, folder)
        if self._active:
            sys.path.append(str(folder))

    def _check_unedited(self, module: Module) -> None:
        """Refuse to take an edited file for the one that runs here since long."""
        digest = self._digest(module.path)
        imported = module.name in sys.modules and module.path not in _first_seen
        edited = imported and module.path.stat().st_mtime > _process_began()
        if edited or _first_seen.setdefault(module.path, digest) != digest:
            raise ValueError(
                f"{module.path} must not change after this process imported it: begin "
                "a new process"
            )

    def _bytes(self, path: Path) -> bytes:
        if path not in self.read:
            self.read[path] = path.read_bytes()
        return self.read[path]

    def _digest(self, path: Path) -> str:
        return hashlib.sha256(self._bytes(path)).hexdigest()


@cache
def _process_began() -> float:
    return psutil.Process().create_time()


def _spec(module: str) -> ModuleSpec | None:
    try:
        return find_spec(module)
    except (ImportError, ValueError):
        return None


def _own_file(module: ModuleType) -> Path | None:
    """The file of a module of a user's own; None for the script that runs, and others."""
    file = getattr(module, "__file__", None)
    is_script = module is sys.modules.get("__main__")  # which has more than one name
    return None if not file or is_script or is_installed(file) else Path(file).resolve()


def _is_others(name: str, path: Path) -> bool:
    """Whether a top-level name stands, or would stand, for another file than `path`."""
    loaded = sys.modules.get(name)
    spec = getattr(loaded, "__spec__", None) if loaded else PathFinder.find_spec(name)
    if spec is None:
        return loaded is not None
    return spec.origin is not None and Path(spec.origin).resolve() != path


class _AsRead(SourceLoader):
    """Runs a module from the bytes that were hashed."""

    def __init__(self, path: Path, content: bytes) -> None:
        self._path = path
        self._content = content

    def get_filename(self, _fullname: str) -> str:
        return str(self._path)

    def get_data(self, path: Any) -> bytes:
        # Without `path_stats` no bytecode is asked for, only the source.
        if Path(path) == self._path:
            return self._content
        return Path(path).read_bytes()


class _Neighbours(MetaPathFinder):
    """Finds users' own modules before anything else does."""

    def __init__(self, code: UserCode) -> None:
        self._code = code

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        _target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        return self._code.spec_of(fullname) or self._code.spec_of_extra(fullname, path)
