"""From what a user asks for to a race, and to its results."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from batchramp.benchmark.monitor import Monitor
from batchramp.benchmark.race import Race
from batchramp.benchmark.results import Results
from batchramp.benchmark.suite import (
    Suite,
    check_suite,
    load_suite,
    with_measures,
    with_seeds,
)
from batchramp.benchmark.suite_rules import MAX_THREADS
from batchramp.names import suggest, user_path
from batchramp.values import shown, whole

DEVICES = ("cpu", "cuda")


def make_race(
    suite: str | Path | Suite,
    *,
    out: str | Path | None = None,
    seeds: int | None = None,
    data: str | Path | None = None,
    device: str | None = None,
    jobs: int = 1,
    measure: Iterable[str] = (),
    folder: Path | None = None,
) -> Race:
    """Turn what a user asks for into a race.

    Args:
        suite: A built-in suite's name, a TOML file, or a suite.
        out: Results folder; `runs/<suite>` unless named.
        seeds: Instead of the suite's number of seeds.
        data: Parent directory of the data sets.
        device: `cpu` or `cuda`; a GPU if there is one, unless named.
        jobs: Trials at a time.
        measure: What to measure at each look, beside what the suite says.
        folder: What `file.py:name` in a `Suite` is relative to; a file's own folder
            counts for the file, and None is the current one.

    Raises:
        ValueError: An argument is not valid, or there is no such suite or device.
    """
    source = folder
    if isinstance(suite, Suite):
        suite = check_suite(suite)
    elif isinstance(suite, str | Path):
        suite, source = load_suite(user_path(suite))
    else:
        raise ValueError(
            f"suite must be a name, a TOML file or a Suite, got {shown(suite)}"
        )
    jobs = whole("jobs", jobs, least=1, most=MAX_THREADS)
    data_dir = None if data is None else user_path(data).absolute()
    if data_dir is not None and not data_dir.is_dir():
        raise ValueError(f"data directory {data_dir} must exist, and does not")
    if out is not None and not str(out):
        raise ValueError("out must name a folder, got ''")
    target = Path("runs", suite.name) if out is None else user_path(out)
    # Users' code may change the current folder; the results lie where they were asked.
    target = target.absolute()
    if target.exists() and not target.is_dir():
        raise ValueError(f"out must be a folder, got {target}, which is none")
    return Race(
        suite=with_measures(with_seeds(suite, seeds), measure),
        source=None if source is None else source.absolute(),
        out=target,
        data_dir=data_dir,
        device=find_device(device),
        jobs=jobs,
    )


def find_device(name: str | None) -> torch.device:
    """Return the named device; the GPU, if there is one, for None.

    Raises:
        ValueError: The name is unknown, or there is no such device here.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in DEVICES:
        raise ValueError(suggest("device", name, DEVICES))
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda needs a GPU that torch can use; there is none")
    return torch.device(name)


def run(
    suite: str | Path | Suite = "quick",
    *,
    out: str | Path | None = None,
    seeds: int | None = None,
    data: str | Path | None = None,
    device: str | None = None,
    jobs: int = 1,
    measure: Iterable[str] = (),
) -> Results:
    """Race a suite's schedules and return the results; as the command `batchramp run`.

    Run again with the same arguments, it runs only the trials that have not ended. A
    failed trial is in the results' metadata, with its error.

    Args:
        suite: A built-in suite's name, a TOML file, or a suite.
        out: Results folder; `runs/<suite>` unless named.
        seeds: Instead of the suite's number of seeds.
        data: Parent directory of the data sets.
        device: `cpu` or `cuda`; a GPU if there is one, unless named.
        jobs: Trials at a time; more than one disturb each other's clocks.
        measure: What to measure at each look, off the train clock, beside what the
            suite says: `gradient_norm`, `variance`, `noise_scale`, `sharpness`,
            `batch_mean`, `full_train_loss`.

    Raises:
        ValueError: An argument is not valid, or the folder holds another suite.
    """
    race = make_race(
        suite,
        out=out,
        seeds=seeds,
        data=data,
        device=device,
        jobs=jobs,
        measure=measure,
    )
    return race.run(Monitor()).results
