"""The rules of a suite that concern its sizes and its panels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from batchramp.names import suggest
from batchramp.schedules.parameters import MAX_WHOLE
from batchramp.values import plain_text, shown, whole

if TYPE_CHECKING:
    from batchramp.benchmark.suite import Entry, Panel, Search, Suite

MAX_THREADS = 1024
"""Beyond some number of threads torch ends the process."""

MAX_TRIALS = 1_000_000
"""The most trials: at a second each they take twelve days."""

MAX_LOOKS = 1_000_000
"""The most looks of a trial, each of which is a row of its results."""

LONGEST_PATH = 4096
"""The longest path, as systems have it."""


def check_sizes(suite: Suite, epochs: Fraction, cadence: Fraction) -> None:
    """Check numbers that say how much is to be done, before it costs anything."""
    for name, number, most in (
        ("seeds", suite.seeds, MAX_TRIALS),
        ("micro_batch", suite.micro_batch, MAX_WHOLE),
        ("threads", suite.threads, MAX_THREADS),
    ):
        if number is not None:
            whole(name, number, least=1, most=most)
    if cadence >= epochs:
        raise ValueError(
            f"cadence must be below epochs ({suite.epochs}), so that a second look can "
            f"confirm a target, got {suite.cadence}"
        )
    if epochs > cadence * MAX_LOOKS:
        raise ValueError(
            f"cadence must give at most {MAX_LOOKS} looks in {suite.epochs} epochs, got "
            f"{shown(suite.cadence)}"
        )
    if not 0 <= suite.first_seed <= 2**63 - suite.seeds:
        raise ValueError(
            "first_seed must be at least 0, and the last seed below 2**63, got "
            f"{shown(suite.first_seed)} and {suite.seeds} seeds"
        )
    entries = sum(len(panel.entries) for panel in suite.panels)
    if entries == 0:
        raise ValueError("a suite must have at least one [[panel]] with an entry")
    if entries * suite.seeds > MAX_TRIALS:
        raise ValueError(
            f"seeds must be at most {MAX_TRIALS // entries} with {entries} entries "
            f"({MAX_TRIALS} trials), got {suite.seeds}"
        )


def repeated(texts: Iterable[str]) -> str | None:
    """The text that comes twice, or None."""
    (text, count), *_ = Counter(texts).most_common(1) or [("", 0)]
    return text if count > 1 else None


def check_panel(panel: Panel) -> None:
    """Check a panel's title, baselines, weight decay, parameters and searches."""
    plain_text("title", panel.title)
    known = {entry.label for entry in panel.entries}
    for baseline in (panel.baseline, *(entry.baseline for entry in panel.entries)):
        if baseline is not None and baseline not in known:
            raise ValueError(suggest("baseline", baseline, known))
    if not (panel.weight_decay >= 0 and math.isfinite(panel.weight_decay)):
        raise ValueError(
            f"weight_decay must be finite and at least 0, got {panel.weight_decay}"
        )
    for entry in panel.entries:
        plain_text("schedule", entry.schedule, most=LONGEST_PATH)
        for key, value in entry.set.items():
            plain_text(f"key of set of entry {entry.label!r}", key)
            _check_parameter(f"{key} of entry {entry.label!r}", value)
        if entry.search is not None:
            _check_search(entry, entry.search)


def _check_parameter(name: str, value: Any) -> None:
    """Refuse dates and times, which are no JSON; their rule is the schedule's own."""
    if isinstance(value, list | tuple):
        for item in value:
            _check_parameter(name, item)
    elif isinstance(value, dict):
        for item in value.values():
            _check_parameter(name, item)
    elif not isinstance(value, str | int | float | None):
        raise ValueError(
            f"{name} must be made of numbers, texts, truth values, arrays and tables, "
            f"got {shown(value)}"
        )


def _check_search(entry: Entry, search: Search) -> None:
    name = f"search of entry {entry.label!r}"
    if len(search.lr) < 5 or len(search.lr) != len(search.score) or search.seeds < 3:
        raise ValueError(
            f"{name} must have at least 5 rates, a score for each, and 3 seeds, got "
            f"{len(search.lr)} rates, {len(search.score)} scores, {search.seeds} seeds"
        )
    if not all(low < high for low, high in pairwise(search.lr)):
        raise ValueError(f"{name} must have increasing rates, got {list(search.lr)}")
    if any(map(math.isnan, search.score)):
        raise ValueError(
            f"{name} must have numbers or inf as scores, got {list(search.score)}"
        )
    best = search.lr[search.score.index(min(search.score))]
    chosen = entry.set.get("lr", entry.set.get("base_lr"))
    if chosen != best:
        raise ValueError(f"{name} has its best score at lr {best}, got lr {chosen}")
