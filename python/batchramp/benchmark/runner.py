"""Runs a suite's trials, seed by seed, and keeps every one that ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from batchramp import _rust
from batchramp.benchmark.environment import describe_environment
from batchramp.benchmark.results import (
    Results,
    read_results,
    read_status,
    read_suite,
    write_suite,
    write_trial,
)
from batchramp.benchmark.suite import (
    MAX_THREADS,
    Suite,
    check_suite,
    load_suite,
    with_measures,
    with_seeds,
)
from batchramp.benchmark.trials import PlannedTrial, ResolvedSuite
from batchramp.names import suggest
from batchramp.training.loop import run_trial
from batchramp.training.trial import Record, Row

DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Outcome:
    """How one trial ended: its label, seed, status, and the error of a failed one."""

    label: str
    seed: int
    status: str
    error: str | None = None


class Monitor:
    """Is told how a run goes; this one listens to nothing."""

    def begin(self, trials: int, work: float) -> None:
        """The trials to run, and the work they are together, in its own unit."""

    def look(self, label: str, seed: int, row: Row) -> None:
        """A trial of this process recorded a row."""

    def end(self, outcome: Outcome, work: float) -> None:
        """A trial ended, `work` of the whole."""


@dataclass(frozen=True)
class Race:
    """One execution of a suite: its folder, device and way of working.

    Attributes:
        suite: What to run.
        source: Folder that the suite's own files are relative to.
        out: Results folder.
        data_dir: Parent directory of the data sets.
        device: Where trials train.
        jobs: Trials at a time. More than one disturb each other's clocks.
    """

    suite: Suite
    source: Path | None
    out: Path
    data_dir: Path | None
    device: torch.device
    jobs: int = 1

    def prepare(self) -> tuple[ResolvedSuite, list[PlannedTrial]]:
        """Resolve the suite and list its trials in the order of running.

        Raises:
            ValueError: Something in the suite is not valid, or the results folder
                holds another suite or another format.
        """
        with _threads(self._num_threads()):
            resolved = ResolvedSuite(
                self.suite, self.source, self.data_dir, self.device
            )
            trials = resolved.order()
        if (self.out / "suite.toml").exists():
            found = read_suite(self.out)
            if found["question"] != resolved.question():
                raise ValueError(
                    f"{self.out} holds the results of another suite "
                    f"({found['name']}): choose another folder with --out, or remove it"
                )
        return resolved, trials

    def pending(self, trials: list[PlannedTrial]) -> list[PlannedTrial]:
        """Return the trials, each identity once, that have not ended yet."""
        unique = {trial.id: trial for trial in trials}
        ended = ("finished", "diverged")
        return [t for t in unique.values() if read_status(self.out, t.id) not in ended]

    def run(self, monitor: Monitor) -> list[Outcome]:
        """Run every pending trial, keeping each as it ends.

        A failed trial is recorded and the run goes on. An interrupt loses at most the
        trials under way.

        Returns:
            How each trial of this execution ended.
        """
        resolved, trials = self.prepare()
        table = resolved.to_toml(trials)
        table |= {"question": resolved.question(), "batchramp": _rust.__version__}
        write_suite(self.out, table)
        pending = self.pending(trials)
        work = {trial.id: _work(resolved, trial) for trial in pending}
        monitor.begin(len(pending), sum(work.values()))
        outcomes = []
        execute = self._in_turn if self.jobs == 1 else self._in_parallel
        with closing(execute(resolved, pending, monitor)) as ended:
            for trial, outcome in ended:
                outcomes.append(outcome)
                monitor.end(outcome, work[trial.id])
        return outcomes

    def _num_threads(self) -> int:
        affinity = getattr(os, "sched_getaffinity", None)  # Linux only
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        return self.suite.threads or max(1, cores // self.jobs)

    def _in_turn(
        self, resolved: ResolvedSuite, pending: list[PlannedTrial], monitor: Monitor
    ) -> Generator[tuple[PlannedTrial, Outcome]]:
        with _threads(self._num_threads()):
            for trial in pending:
                yield trial, self._run_one(resolved, trial, monitor)

    def _in_parallel(
        self, _: ResolvedSuite, pending: list[PlannedTrial], __: Monitor
    ) -> Generator[tuple[PlannedTrial, Outcome]]:
        context = multiprocessing.get_context("spawn")
        others = multiprocessing.active_children()
        pool = ProcessPoolExecutor(
            self.jobs, context, initializer=_begin_worker, initargs=(self,)
        )
        try:
            with _interrupts_ignored():  # which the workers inherit
                futures = {
                    pool.submit(_run_in_worker, trial.id): trial for trial in pending
                }
            for future in as_completed(futures):
                trial = futures[future]
                try:
                    outcome = future.result()
                except BrokenExecutor:
                    record = Record((), "failed", "a process of the run was killed")
                    outcome = self._keep(trial, record)
                yield trial, outcome
        finally:
            # An interrupt must not wait for the trials under way.
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                if child not in others:
                    child.terminate()

    def _run_one(
        self, resolved: ResolvedSuite, trial: PlannedTrial, monitor: Monitor
    ) -> Outcome:
        def on_look(row: Row) -> None:
            monitor.look(trial.label, trial.seed, row)

        data = resolved.data(trial.seed)
        record = run_trial(trial.trial, data, self.device, on_look)
        return self._keep(trial, record)

    def _keep(self, trial: PlannedTrial, record: Record) -> Outcome:
        own = {
            "workload": trial.trial.workload.name,
            "seed": trial.seed,
            "status": record.status,
        }
        metadata = {
            "status": record.status,
            "error": record.error,
            "identity": trial.identity,
            "environment": describe_environment(self.device),
        }
        rows = [{**own, **asdict(row)} for row in record.rows]
        # A trial that failed before its first look is a row too: counted, not overlooked.
        write_trial(self.out, trial.id, rows or [own], metadata)
        return Outcome(trial.label, trial.seed, record.status, record.error)


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
        check_suite(suite)
    else:
        suite, source = load_suite(suite)
    if not 1 <= jobs <= MAX_THREADS:
        raise ValueError(
            f"jobs must be at least 1 and at most {MAX_THREADS}, got {jobs}"
        )
    data_dir = None if data is None else Path(data)
    if data_dir is not None and not data_dir.is_dir():
        raise ValueError(f"data directory {data_dir} must exist, and does not")
    return Race(
        suite=with_measures(with_seeds(suite, seeds), measure),
        source=source,
        out=Path(out) if out is not None else Path("runs", suite.name),
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


def _work(resolved: ResolvedSuite, trial: PlannedTrial) -> float:
    """Estimate a trial's share of the run, to say what is left.

    A small model's update costs a constant, worth some 200 of its samples.
    """
    plan = resolved.plans[trial.label]
    samples = float(trial.trial.epochs) * resolved.num_samples
    updates = plan.updates if plan else samples / 32
    return 200 * updates + samples


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Start processes that leave an interrupt to this one, from their first import on.

    A worker that printed a traceback of its own would not help. Only the main thread
    may say how signals are handled.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


_worker: dict[str, Any] = {}


def _begin_worker(race: Race) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(race._num_threads())
    resolved, trials = race.prepare()
    by_id = {trial.id: trial for trial in trials}
    _worker["run"] = lambda trial_id: race._run_one(
        resolved, by_id[trial_id], Monitor()
    )


def _end_with_parent() -> None:
    """A worker whose parent was killed would else wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run_in_worker(trial_id: str) -> Outcome:
    run: Callable[[str], Outcome] = _worker["run"]
    return run(trial_id)


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
    race.run(Monitor())
    return read_results(race.out)
