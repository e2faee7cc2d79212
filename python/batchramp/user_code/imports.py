"""Which files a user's own file runs: itself, and what its imports name, transitively."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path

from batchramp.user_code.errors import is_installed


@dataclass(frozen=True)
class Module:
    """A module of a user's own.

    Attributes:
        name: Its dotted name.
        path: Its file; of a package, its `__init__.py`.
        is_package: Whether modules may lie below it.
    """

    name: str
    path: Path
    is_package: bool = False


def imported_modules(
    file: Path,
    folders: Sequence[Path],
    read: Callable[[Path], bytes],
    *,
    package: str = "",
    inside: Path | None = None,
) -> dict[str, Module]:
    """Find every module of a user's own that a file imports, transitively.

    Import statements count wherever they stand: in functions, in branches, under
    `TYPE_CHECKING`. What lies in the standard library or in an installed package does
    not count and is not followed; what is not found is left to whoever runs the file.

    Args:
        file: Where to begin; it is not part of the answer unless something imports it.
        folders: Where neighbours are looked for, before `sys.path`.
        read: Returns the bytes of a file.
        package: The package that `file` is part of; empty for a file by itself.
        inside: A folder whose files count although they are installed.

    Raises:
        ValueError: An imported neighbour hides a module of the standard library, or an
            installed one that is loaded already: Python would run either of the two.
    """
    finder = _Finder(file, folders, inside)
    found: dict[str, Module] = {}
    waiting = [(file, package)]
    while waiting:
        path, its_package = waiting.pop()
        for name in _names(read(path), path, its_package):
            for module in finder.along(name):
                if module.name not in found:
                    found[module.name] = module
                    if module.path.suffix == ".py":
                        parent = module.name.rpartition(".")[0]
                        own = module.name if module.is_package else parent
                        waiting.append((module.path, own))
    return found


def _names(source: bytes, path: Path, package: str) -> Iterator[str]:
    """Yield each dotted name that an import statement of a file may stand for."""
    try:
        tree = ast.parse(source, path)
    except (SyntaxError, ValueError):  # it is told where the file is run
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if node.level == 0:
        return node.module or ""
    parts = package.split(".") if package else []
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, node.module] if node.module else parts)


class _Finder:
    """Resolves dotted names to files as an import would, without importing."""

    def __init__(
        self, file: Path, folders: Sequence[Path], inside: Path | None
    ) -> None:
        self._file = file
        self._folders = [str(folder) for folder in folders]
        self._inside = inside
        self._specs: dict[str, ModuleSpec | None] = {}

    def along(self, name: str) -> Iterator[Module]:
        """Yield the modules that importing `name` runs, if they are a user's own."""
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            dotted = ".".join(parts[:end])
            if dotted not in self._specs:
                self._specs[dotted] = self._find(dotted)
            spec = self._specs[dotted]
            if spec is None:
                return
            if spec.has_location and spec.origin and self._counts(Path(spec.origin)):
                is_package = spec.submodule_search_locations is not None
                yield Module(dotted, Path(spec.origin).resolve(), is_package)
            elif spec.submodule_search_locations is None or spec.origin:
                return  # installed; a namespace package has no file and goes on

    def _counts(self, path: Path) -> bool:
        own = self._inside is not None and path.is_relative_to(self._inside)
        return own or not is_installed(path)

    def _find(self, dotted: str) -> ModuleSpec | None:
        parent, _, _ = dotted.rpartition(".")
        if parent:
            above = self._specs[parent]
            assert above is not None
            # Without the parents' names: a folder without `__init__.py` would ask for
            # its parent among the modules that are loaded.
            child = dotted.rpartition(".")[2]
            return PathFinder.find_spec(child, above.submodule_search_locations)
        if dotted == "batchramp":
            return None
        beside = PathFinder.find_spec(dotted, self._folders)
        if beside is not None and beside.origin is not None:
            path = Path(beside.origin)
            hidden = _hidden_by(dotted)
            if not hidden:
                return beside
            if path.resolve() != self._file:
                raise ValueError(
                    f"{path.name} must not have the name of {hidden}, which an import "
                    f"of {dotted} may mean too: rename it"
                )
            return None
        try:
            return PathFinder.find_spec(dotted, [*self._folders, *sys.path]) or (
                find_spec(dotted)
            )
        except (ImportError, ValueError):  # a module without a spec, such as __main__
            return None


def _hidden_by(name: str) -> str:
    """Say what a neighbour of that name would hide from others; "" for nothing."""
    loaded = getattr(getattr(sys.modules.get(name), "__spec__", None), "origin", None)
    if name in sys.stdlib_module_names:
        return "a module of the standard library"
    if loaded and Path(loaded).is_absolute() and is_installed(loaded):
        return "an installed package"
    return ""
