"""Tune the suite `batch-size`: the search behind its baselines, and its targets.

    python benches/tune_batch_size.py

The suite shows what a batch size does at one rate, and at rates scaled with it: those
rates follow from its question and are not tuned. .2 at 32 samples leaves room to scale
by 4 both ways; it was chosen after a trial run on seeds 5000 and 5001. What the picture
is held against, a constant batch and one with a cosine, gets the search of the suite
`quick` (`tune_quick.py`), on the same tuning seeds; the targets are calibrated as there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomli_w
from tune_quick import SCORE, TUNING_SEEDS, calibrate, search, tuned_entry

from batchramp.benchmark.suite import Entry, Panel, Suite

ROOT = Path(__file__).parent.parent
SUITE_FILE = ROOT / "python/batchramp/benchmark/suites/batch-size.toml"

RATE, SIZE = 0.2, 32
SIZES = (8, 32, 128, 512)
EASIER = "full_train_loss <= 0.02"
"""The workload's own target: the calibrated ones are out of most entries' reach."""

COMMON: dict[str, Any] = {
    "workload": "digits",
    "epochs": 40,
    "cadence": 0.25,
    "threads": 1,
}
MEASURES = {
    "gradient_norm": 1,
    "variance": 1,
    "noise_scale": 1,
    "sharpness": 2,
    "batch_mean": 10,
}


def held(label: str, rate: float, size: int) -> Entry:
    return Entry(label=label, schedule="constant", set={"lr": rate, "batch_size": size})


def main() -> None:
    baselines = []
    for label, schedule in (("tuned", "constant"), ("cosine", "constant-cosine")):
        spec = (schedule, {"lr": RATE, "batch_size": SIZE})
        found = search(label, spec, {}, COMMON)
        baselines.append(tuned_entry(label, spec, found))
    targets = (*calibrate("tuned", baselines[0], {}, COMMON), EASIER)
    panels = []
    for title, rule in (
        (f"One rate, {RATE:g}, for every batch size", lambda _: RATE),
        (f"Rates in proportion: {RATE:g} at {SIZE}", lambda size: RATE * size / SIZE),
    ):
        kind = "same" if rule(0) else "scaled"
        entries = [held(f"{size} {kind}", rule(size), size) for size in SIZES]
        references = [
            Entry(
                label=f"{entry.label} {SIZE} ({kind})",
                schedule=entry.schedule,
                set=entry.set,
                search=entry.search,
            )
            for entry in baselines
        ]
        panels.append(
            Panel(
                title=title,
                entries=(*entries, *references),
                baseline=references[-1].label,
                targets=targets,
            )
        )
    suite = Suite(
        name="batch-size",
        panels=tuple(panels),
        search_score=SCORE,
        measures=MEASURES,
        **COMMON,
    )
    table = suite.to_dict()
    del table["first_seed"]
    for panel in table["panel"]:
        panel["entry"] = [
            {key: value for key, value in entry.items() if value != {}}
            for entry in panel["entry"]
        ]
    header = (
        "# What does the batch size do? Constant sizes, at one rate and at rates in\n"
        "# proportion, with the gradient's variance and the sharpness measured.\n"
        "# Written by benches/tune_batch_size.py, which says what was tuned.\n"
    )
    SUITE_FILE.write_text(header + tomli_w.dumps(table))
    trials = sum(len(entry.search.lr) for entry in baselines if entry.search)
    print(f"wrote {SUITE_FILE.name} after {trials * TUNING_SEEDS} tuning trials")


if __name__ == "__main__":
    main()
