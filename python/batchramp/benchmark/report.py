"""The report of a run: one HTML page that needs nothing but itself."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from batchramp.benchmark import charts
from batchramp.benchmark.drawing import Chart
from batchramp.benchmark.errors import trial_errors
from batchramp.benchmark.escaping import printable
from batchramp.benchmark.measured_charts import measured_charts
from batchramp.benchmark.measured_sheets import measured_sheets
from batchramp.benchmark.notes import run_notes
from batchramp.benchmark.results import Results
from batchramp.benchmark.sheets import PanelSheets, Sheet, panel_sheets
from batchramp.benchmark.tables import missing_baselines
from batchramp.benchmark.tuning import tuning_sheet
from batchramp.names import user_path

_SETTINGS = (
    "workload",
    "epochs",
    "cadence",
    "seeds",
    "boundary",
    "micro_batch",
    "threads",
)
_MANY = 4
"""Distinct values of one environment key that are still listed one by one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _PanelView:
    """What the template shows of one panel."""

    sheets: PanelSheets
    charts: tuple[Chart, ...]
    measured_charts: tuple[Chart, ...]
    measured: tuple[Sheet, ...]
    tuning: Sheet | None
    missing: tuple[str, ...]


def write_report(results: Results, path: str | Path) -> None:
    """Write the page, all or nothing.

    It holds, per panel, the learning curves against updates and epochs, the races in
    updates and seconds, the same tables as the terminal's (with tests against the
    baseline and single-look passages added), and below them why trials failed, how time
    is counted and where the trials ran.

    Args:
        results: A run.
        path: File to write; `~` is the home directory. An existing file is replaced and
            keeps its permissions, a link stays and what it names is replaced, and what
            is no file at all, such as a pipe or a device, is written into.

    Raises:
        OSError: It cannot be written there; the error names `path`.
    """
    path = user_path(path)
    page = to_html(results)
    try:
        mode = _mode(path)
        if mode is None or stat.S_ISREG(mode):
            _replace(Path(os.path.realpath(path)), page, mode)
        else:
            with path.open("w", encoding="utf-8") as stream:
                stream.write(page)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _replace(path: Path, page: str, mode: int | None) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        temporary.write_text(page, encoding="utf-8")
        if mode is not None:
            temporary.chmod(stat.S_IMODE(mode))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def to_html(results: Results) -> str:
    """The page as text."""
    # Both are slow to import, and only a report needs them.
    import jinja2
    import markupsafe

    template = resources.files("batchramp.benchmark") / "templates" / "report.html"
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_line_by_line,
    )
    environment.filters["inline"] = markupsafe.Markup
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        name=str(results.suite.get("name", "run")),
        settings={
            key.replace("_", " "): results.suite[key]
            for key in _SETTINGS
            if key in results.suite
        },
        notes=run_notes(results),
        errors=trial_errors(results),
        panels=[_view(results, sheets) for sheets in panel_sheets(results)],
        environment=_environment(results),
        trials=results.rows["trial"].n_unique(),
    )


def _line_by_line(value: Any) -> Any:
    """Spell out control characters of what is put into the page, but for its lines."""
    if type(value) is not str:  # drawings are markup
        return value
    return "\n".join(map(printable, value.split("\n")))


def _view(results: Results, sheets: PanelSheets) -> _PanelView:
    race = charts.race_chart(results, sheets.panel)
    curves = charts.curve_charts(results, sheets.panel)
    return _PanelView(
        sheets=sheets,
        charts=(*curves, *([race] if race else [])),
        measured_charts=measured_charts(results, sheets.panel),
        measured=measured_sheets(results, sheets.panel),
        tuning=tuning_sheet(results, sheets.panel),
        missing=missing_baselines(results, sheets.panel),
    )


def _environment(results: Results) -> dict[str, str]:
    """Where the trials ran; what differs between them is listed, or counted if much."""
    values: dict[str, list[str]] = {}
    for metadata in results.metadata.values():
        described: dict[str, Any] = metadata.get("environment", {})
        for key, value in described.items():
            seen = values.setdefault(key, [])
            if str(value) not in seen:
                seen.append(str(value))
    return {
        key.replace("_", " "): "; ".join(seen)
        if len(seen) <= _MANY
        else f"{min(seen)} to {max(seen)} ({len(seen)} values)"
        for key, seen in values.items()
    }
