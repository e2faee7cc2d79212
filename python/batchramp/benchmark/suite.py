"""A suite: the trials of one question, as a value read from TOML.

Nothing here imports torch or reads data; `resolve` in `trials.py` does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from importlib import resources
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import msgspec

from batchramp.benchmark.suite_rules import (
    LONGEST_PATH,
    check_panel,
    check_sizes,
    repeated,
)
from batchramp.benchmark.targets import Target, parse_target
from batchramp.benchmark.toml_text import check_depth, parse_toml, read_toml
from batchramp.names import suggest
from batchramp.schedules import BOUNDARIES
from batchramp.schedules.parameters import exact_decimal, whole_number
from batchramp.values import plain_text, shown

MEASURES = (
    "full_train_loss",
    "gradient_norm",
    "variance",
    "noise_scale",
    "sharpness",
    "batch_mean",
)
"""What a look can measure beside the metric; `training.measures` says what each is."""

Number = int | float | str


class Search(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The tuning search that an entry's rate comes from; reports show it.

    Attributes:
        lr: Initial rates that were tried, at least 5, increasing.
        score: What each gave on the tuning seeds, lower is better; `inf` is diverged.
        seeds: Number of tuning seeds, at least 3.
    """

    lr: tuple[float, ...]
    score: tuple[float, ...]
    seeds: int


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One schedule of a panel.

    Attributes:
        label: What tables call it; unique in the suite.
        schedule: A schedule's name, or `file.py:name`.
        set: Parameters that differ from the schedule's defaults.
        baseline: Label of what it is compared with; its panel's unless named.
        search: The tuning search that its rate comes from.
    """

    label: str
    schedule: str
    set: dict[str, Any] = {}
    baseline: str | None = None
    search: Search | None = None

    @property
    def tuning(self) -> str:
        """How its parameters were chosen, as tables say it."""
        if self.search is not None:
            return "tuned"
        return "as set" if self.set else "paper defaults"


class Panel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Schedules that are compared with each other, under common regularisation.

    Attributes:
        entries: The schedules (`[[panel.entry]]`).
        baseline: Label of the entry that speed-ups are measured against.
        targets: Such as `"metric >= 0.96"`; the workload's own where none is named.
        title: What the panel asks.
        weight_decay: Coefficient of L2 regularisation in SGD.
        nesterov: Nesterov's momentum.
    """

    entries: tuple[Entry, ...] = msgspec.field(name="entry")
    baseline: str
    targets: tuple[str, ...] = ()
    title: str = ""
    weight_decay: float = 0.0
    nesterov: bool = False


class Suite(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The trials of one question.

    Attributes:
        name: Names the default results folder.
        workload: A workload's name, or `file.py:name`.
        panels: Its comparisons (`[[panel]]`).
        epochs: Budget of every trial, in passes over the training set.
        cadence: Epochs between looks, equal for all.
        seeds: Number of seeds.
        first_seed: The first of them; the others follow.
        search_score: What the entries' searches scored by, in words.
        boundary: What happens to a batch at a pass's end.
        measures: Epochs between measurements, by any name of `MEASURES`; at the end too.
            `full_train_loss` is measured at every look unless set, `gradient_norm` at
            the end, the others not at all. Set to `epochs` or more, only at the end.
        micro_batch: The most samples of one forward and backward pass.
        threads: torch's CPU threads; the machine's cores unless set.
        sources: Files that its trials depend on and that no import statement shows,
            such as a configuration that a workload reads; relative to the suite. Their
            contents count in each trial's identity.
    """

    name: str
    workload: str
    panels: tuple[Panel, ...] = msgspec.field(name="panel")
    epochs: Number
    cadence: Number = 0.25
    seeds: int = 8
    first_seed: int = 0
    search_score: str | None = None
    boundary: str = "keep"
    measures: dict[str, Number] = {}
    micro_batch: int | None = None
    threads: int | None = None
    sources: tuple[str, ...] = ()

    def entries(self) -> list[tuple[Panel, Entry]]:
        """Return every entry with its panel, in the suite's order."""
        return [(panel, entry) for panel in self.panels for entry in panel.entries]

    def to_dict(self) -> dict[str, Any]:
        """Return what its TOML says, defaults filled in, without what is unset."""
        table: dict[str, Any] = _without_none(msgspec.to_builtins(self))
        return table


def load_suite(name: str | Path) -> tuple[Suite, Path | None]:
    """Read a suite by the name of a built-in one or by the path of a TOML file.

    Returns:
        The suite, and the folder its own files are relative to (None: built in).

    Raises:
        ValueError: There is no such suite, or it breaks a rule; the message names it.
    """
    if not isinstance(name, str | Path):
        raise ValueError(f"suite must be a name or a path, got {shown(name)}")
    built_in = resources.files("batchramp.benchmark") / "suites"
    if f"{name}.toml" in {file.name for file in built_in.iterdir()}:
        return parse_suite((built_in / f"{name}.toml").read_text("utf-8")), None
    path = Path(name)
    if not _is_file(path):
        known = (file.name.removesuffix(".toml") for file in built_in.iterdir())
        hint = suggest("suite", str(name), known)
        raise ValueError(f"{hint} (nor is there a file of that name)")
    try:
        return parse_suite(read_toml(path)), path.parent
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # as for a name that is too long
        return False


def parse_suite(text: str) -> Suite:
    """Read a suite from TOML; see `make_suite`.

    Raises:
        ValueError: It is not TOML, or breaks a rule.
    """
    return make_suite(parse_toml(text))


def make_suite(table: dict[str, Any]) -> Suite:
    """Make a suite from what its TOML says and check every rule that needs no data.

    Raises:
        ValueError: It has an unknown or missing key, a value of the wrong kind or out
            of range, labels that repeat, or a baseline that is no label.
    """
    if not isinstance(table, dict):
        raise ValueError(f"a suite must be a table, got {shown(table)}")
    check_depth(table)
    _check_keys(table)
    try:
        suite = msgspec.convert(table, Suite)
    except msgspec.ValidationError as error:
        raise ValueError(_explain(error, table)) from error
    _check_rules(suite)
    return suite


def check_suite(suite: Suite) -> Suite:
    """Return a suite that was made in Python as its TOML makes it; see `make_suite`.

    Raises:
        ValueError: As `make_suite`, or it holds something that TOML has no word for.
    """
    try:
        table = msgspec.to_builtins(suite, enc_hook=_plain)
    except (TypeError, RecursionError, OverflowError) as error:
        message = f"a suite must hold what TOML can say: {error}"
        raise ValueError(message) from error
    return make_suite(table)


def _plain(value: Any) -> Any:
    """A number of NumPy's as Python's own."""
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    raise TypeError(f"got {shown(value)}")


def with_seeds(suite: Suite, seeds: int | None) -> Suite:
    """Return the suite with another number of seeds, or itself for None."""
    if seeds is None:
        return suite
    changed = msgspec.structs.replace(suite, seeds=whole_number("seeds", seeds))
    _check_rules(changed)
    return changed


def with_measures(suite: Suite, names: Iterable[str]) -> Suite:
    """Return the suite with more measures, at every look unless it says when itself.

    Args:
        suite: What was asked.
        names: Of `MEASURES`; a hyphen is as good as an underscore.

    Raises:
        ValueError: They are no names, or one of them is unknown.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise ValueError(f"measure must be a list of names, got {shown(names)}")
    asked = {
        plain_text("measure", name).strip().replace("-", "_"): suite.cadence
        for name in names
    }
    changed = msgspec.structs.replace(suite, measures=asked | suite.measures)
    _check_rules(changed)
    return changed


def exact(name: str, value: Number) -> Fraction:
    """Return a positive decimal number exactly.

    Raises:
        ValueError: It is not a finite decimal number above zero.
    """
    number = exact_decimal(name, value)
    if number <= 0:
        raise ValueError(f"{name} must be above 0, got {shown(value)}")
    return number


def resolved_measures(suite: Suite) -> dict[str, Fraction]:
    """Return the epochs between measurements; targets have no part in it.

    So a suite that differs in its targets alone needs no new run.
    """
    measures = {"full_train_loss": exact("cadence", suite.cadence)}
    return measures | {
        name: exact(f"measures.{name}", value) for name, value in suite.measures.items()
    }


def check_targets(suite: Suite, of_workload: tuple[str, ...]) -> None:
    """Refuse a target on a measure that is not taken often enough to confirm it.

    Args:
        suite: What was asked.
        of_workload: The workload's own targets, for panels that name none.

    Raises:
        ValueError: A target's measure is taken at the end only.
    """
    measures, epochs = resolved_measures(suite), exact("epochs", suite.epochs)
    for panel in suite.panels:
        for target in panel_targets(panel, of_workload):
            column = target.column
            if column in MEASURES and measures.get(column, epochs) >= epochs:
                raise ValueError(
                    f"target {target.text!r} needs its measure before the end: set "
                    f"measures.{column} to epochs below {suite.epochs}, got "
                    f"{suite.measures.get(column, 'none')}"
                )


def _check_keys(table: dict[str, Any]) -> None:
    """Name the nearest key for each unknown one, which msgspec does not."""
    _check_table("a suite", table, Suite)
    for panel in _tables(table.get("panel")):
        _check_table("a panel", panel, Panel)
        for entry in _tables(panel.get("entry")):
            _check_table("an entry", entry, Entry)
            if isinstance(entry.get("search"), dict):
                _check_table("a search", entry["search"], Search)


def _check_table(kind: str, table: dict[str, Any], struct: type[Any]) -> None:
    known = [field.encode_name for field in msgspec.structs.fields(struct)]
    for key in table:
        if not isinstance(key, str) or key not in known:
            raise ValueError(suggest(f"key of {kind}", str(key), known))


def _tables(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        return []
    return [table for table in value if isinstance(table, dict)]


def _explain(error: msgspec.ValidationError, table: dict[str, Any]) -> str:
    """Name the value at fault, of which msgspec names the kind."""
    rule, _, place = str(error).partition(" - at `$")
    place = place.strip(".`")
    value: Any = table
    for key, index in re.findall(r"(\w+)|\[(\d+)\]", place):
        value = value[key] if key else value[int(index)]
    if rule.startswith("Expected "):
        kind = rule.removeprefix("Expected ").partition(", got")[0].replace("`", "")
        return f"{place} must be of type {kind}, got {shown(value)}"
    return f"{place or 'a suite'}: {rule}"


def _check_rules(suite: Suite) -> None:
    """Check every rule of a suite that needs no data; see `make_suite`."""
    plain_text("name", suite.name)
    plain_text("workload", suite.workload, most=LONGEST_PATH)
    if Path(suite.name).name != suite.name or suite.name in ("", ".."):
        raise ValueError(f"name must be that of one folder, got {suite.name!r}")
    check_sizes(suite, exact("epochs", suite.epochs), exact("cadence", suite.cadence))
    if suite.boundary not in BOUNDARIES:
        raise ValueError(suggest("boundary", suite.boundary, BOUNDARIES))
    for name in suite.measures:
        if name not in MEASURES:
            raise ValueError(suggest("measure", name, MEASURES))
    for source in suite.sources:
        if not plain_text("sources", source, most=LONGEST_PATH).strip():
            raise ValueError(f"sources must be paths of files, got {source!r}")
    if twice := repeated(suite.sources):
        raise ValueError(f"sources must name each file once, got {shown(twice)} twice")
    labels = [entry.label for _, entry in suite.entries()]
    for label in labels:
        if not plain_text("label", label).strip():
            raise ValueError(f"label must have a letter or digit, got {label!r}")
    if twice := repeated(labels):
        raise ValueError(f"label must be unique in the suite, got {twice!r} twice")
    if suite.search_score is not None:
        plain_text("search_score", suite.search_score)
    for panel in suite.panels:
        check_panel(panel)
    resolved_measures(suite)
    check_targets(suite, ())


def panel_targets(panel: Panel, of_workload: tuple[str, ...]) -> tuple[Target, ...]:
    """Return a panel's targets, or the workload's own where it names none."""
    return tuple(parse_target(target) for target in panel.targets or of_workload)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value
