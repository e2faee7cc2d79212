"""Data directories: what a workload says when its files are absent or damaged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def find(workload: str, data_dir: Path | None, layouts: dict[str, str]) -> Path:
    """Return the first of several places in which a data set may lie.

    Args:
        workload: Name of the workload, for messages.
        data_dir: The directory that the user named: the parent of the data sets.
        layouts: Path of a file that shows a layout, relative to `data_dir`, to the
            layout's name.

    Raises:
        ValueError: No directory was named, or it holds none of the layouts.
    """
    expected = " or ".join(f"{path} ({layout})" for path, layout in layouts.items())
    if data_dir is None:
        raise ValueError(
            f"the workload {workload} needs data: --data DIR, where DIR holds {expected}"
        )
    for path in layouts:
        if (data_dir / path).exists():
            return data_dir / path
    raise ValueError(f"data directory {data_dir} must hold {expected}, and does not")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file raises into one `ValueError` that names the file."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    except Exception as error:  # decoders raise exceptions of their own
        reason = str(error).strip().partition("\n")[0]
        message = f"{path} is damaged: {type(error).__name__}: {reason}"
        raise ValueError(message) from error
