"""A race: a suite's trials run seed by seed, and every one that ends is kept."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from batchramp import _rust
from batchramp.benchmark.continuing import read_earlier, threads_of, with_earlier
from batchramp.benchmark.cores import default_threads
from batchramp.benchmark.environment import describe_environment
from batchramp.benchmark.holder import hold
from batchramp.benchmark.identity import differences
from batchramp.benchmark.monitor import Monitor, Outcome
from batchramp.benchmark.results import Results, results_of, write_suite
from batchramp.benchmark.suite import Suite, exact
from batchramp.benchmark.survey import Survey, survey
from batchramp.benchmark.trial_files import ENDED, write_trial
from batchramp.benchmark.trials import PlannedTrial, ResolvedSuite
from batchramp.benchmark.workers import Died, in_workers
from batchramp.training.loop import run_trial
from batchramp.training.rehearsal import rehearse
from batchramp.training.torch_settings import settings_kept
from batchramp.training.trial import Record, Row
from batchramp.user_code.loading import UserCode


@dataclass(frozen=True)
class Execution:
    """What one execution of a race did.

    Attributes:
        outcomes: How each trial of this execution ended, in that order.
        results: The race's trials in its folder, this execution's and earlier ones'.
    """

    outcomes: tuple[Outcome, ...]
    results: Results


@dataclass(frozen=True)
class DryRun:
    """What an execution would do.

    Attributes:
        planned_updates: By label; None for an adaptive schedule.
        pending: Number of trials that have not ended yet.
        notes: What a person should know of the results folder.
    """

    planned_updates: Mapping[str, int | None]
    pending: int
    notes: tuple[str, ...]


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
            ValueError: Something in the suite is not valid, or the results folder is of
                another format.
        """
        with _alone(), self._session(UserCode(self.source, self.suite.sources)) as made:
            return made, made.order()

    def dry_run(self, monitor: Monitor) -> DryRun:
        """Say what would be run, and try every entry with one update of a copy.

        Raises:
            ValueError: As `prepare`; the folder holds another question; or every trial
                of an entry would fail.
        """
        code = UserCode(self.source, self.suite.sources)
        with _alone(), self._session(code) as resolved:
            found = self._survey(resolved, monitor)
            tried = set()
            for trial in found.trials:
                if trial.label not in tried:
                    tried.add(trial.label)
                    data = resolved.data(trial.seed, trial.identity["data"])
                    rehearse(resolved.trial(trial), data, self.device)
        return DryRun(
            {k: plan.updates if plan else None for k, plan in resolved.plans.items()},
            len(found.pending),
            tuple(found.notes),
        )

    def run(self, monitor: Monitor) -> Execution:
        """Run every pending trial, keeping each as it ends.

        A failed trial is recorded and the run goes on. An interrupt loses at most the
        trials under way.

        Raises:
            ValueError: As `prepare`; the folder holds another question; or another
                process runs into it.
            OSError: The folder cannot be read or written; what is kept stays.
        """
        code = UserCode(self.source, self.suite.sources)
        with _alone(), ExitStack() as stack:
            held = (self.out / "suite.toml").exists()
            if held:  # before anything is loaded
                stack.enter_context(hold(self.out))
            resolved = stack.enter_context(self._session(code))
            found = self._survey(resolved, monitor)
            if not held:
                stack.enter_context(hold(self.out))
                found = survey(self.out, resolved)  # with what came meanwhile
            return self._execute(resolved, code, found, monitor)

    @contextmanager
    def _session(
        self, code: UserCode, threads: int | None = None
    ) -> Iterator[ResolvedSuite]:
        """Resolve the suite, in a process that is afterwards as it was before.

        Args:
            code: The users' files.
            threads: torch's threads; where None, the suite's, or those that the folder
                began with, which jobs never change, or what the machine has.
        """
        if threads is None:
            threads = self.suite.threads
        if threads is None:
            threads = threads_of(self.out, read_earlier(self.out))
        if threads is None:
            threads = default_threads(self.jobs)
        with settings_kept(), code.importable():
            torch.set_num_threads(threads)
            resolved = ResolvedSuite(self.suite, code, self.data_dir, self.device)
            if torch.get_num_threads() != threads:
                raise ValueError(
                    f"threads must be {threads}, and a file of the suite set "
                    f"{torch.get_num_threads()}: write threads = "
                    f"{torch.get_num_threads()} in the suite instead"
                )
            yield resolved

    def _survey(self, resolved: ResolvedSuite, monitor: Monitor) -> Survey:
        hashed = iter(range(1, self.suite.seeds + 1))
        return survey(
            self.out,
            resolved,
            lambda: monitor.prepare(next(hashed), self.suite.seeds),
        )

    def _execute(
        self,
        resolved: ResolvedSuite,
        code: UserCode,
        found: Survey,
        monitor: Monitor,
    ) -> Execution:
        table = resolved.to_toml([*found.trials, *found.beyond])
        table["batchramp"] = _rust.__version__
        for note in found.notes:
            monitor.note(note)
        back = found.held_back
        if not back:
            write_suite(self.out, table)
        elif found.earlier is not None and len(back) < len(self.suite.entries()):
            write_suite(self.out, with_earlier(table, found.earlier, back))
        work = {trial.id: self._work(resolved, trial) for trial in found.pending}
        monitor.begin(len(found.pending), sum(work.values()))
        outcomes = []
        execute = self._in_turn if self.jobs == 1 else self._in_parallel
        with closing(execute(resolved, code, found.pending, monitor)) as ended:
            for trial, record, environment in ended:
                outcome = self._keep(trial, record, environment)
                if trial.label in back and outcome.status in ENDED:
                    write_suite(self.out, table)
                    back = frozenset()
                outcomes.append(outcome)
                monitor.end(outcome, work[trial.id])
        return Execution(tuple(outcomes), results_of(self.out, table))

    def _in_turn(
        self,
        resolved: ResolvedSuite,
        _: UserCode,
        pending: list[PlannedTrial],
        monitor: Monitor,
    ) -> Generator[tuple[PlannedTrial, Record, dict[str, str]]]:
        for trial in pending:

            def on_look(row: Row, trial: PlannedTrial = trial) -> None:
                monitor.look(trial.label, trial.seed, row)

            yield trial, *self._train(resolved, trial, on_look)

    def _in_parallel(
        self,
        _: ResolvedSuite,
        code: UserCode,
        pending: list[PlannedTrial],
        __: Monitor,
    ) -> Generator[tuple[PlannedTrial, Record, dict[str, str]]]:
        argument = (self, code.read, torch.get_num_threads())
        with closing(in_workers(_worker, argument, pending, self.jobs)) as answers:
            for index, answer in answers:
                if isinstance(answer, Died):
                    record = Record((), "failed", answer.reason)
                    answer = record, describe_environment(self.device, jobs=self.jobs)
                yield pending[index], *answer

    def _train(
        self,
        resolved: ResolvedSuite,
        planned: PlannedTrial,
        on_look: Callable[[Row], None] = lambda _: None,
    ) -> tuple[Record, dict[str, str]]:
        environment = describe_environment(self.device, jobs=self.jobs)
        try:
            data = resolved.data(planned.seed, planned.identity["data"])
            trial = resolved.trial(planned)
        except ValueError as error:
            told = traceback.format_exc()
            return Record((), "failed", str(error), traceback=told), environment
        record = run_trial(trial, data, self.device, on_look)
        try:
            resolved.check_imports()
        except ValueError as error:
            return Record(record.rows, "failed", str(error)), environment
        return record, environment

    def _keep(
        self, trial: PlannedTrial, record: Record, environment: Mapping[str, str]
    ) -> Outcome:
        own = {
            "workload": trial.identity["workload"],
            "seed": trial.seed,
            "status": record.status,
        }
        metadata = {
            "status": record.status,
            "error": record.error,
            "traceback": record.traceback,
            "notes": list(record.notes),
            "identity": trial.identity,
            "environment": dict(environment),
        }
        rows = [{**own, **asdict(row)} for row in record.rows]
        # A trial that failed before its first look is a row too: counted, not overlooked.
        write_trial(self.out, trial.id, rows or [own], metadata)
        return Outcome(trial.label, trial.seed, record.status, record.error)

    def _work(self, resolved: ResolvedSuite, trial: PlannedTrial) -> float:
        """Estimate a trial's share of the run, to say what is left.

        A small model's update costs a constant, worth some 200 of its samples.
        """
        plan = resolved.plans[trial.label]
        samples = float(exact("epochs", self.suite.epochs)) * resolved.num_samples
        updates = plan.updates if plan else samples / 32
        return 200 * updates + samples


_running = threading.Lock()
_runner: list[int] = []
"""The thread that holds `_running`: torch's generators and threads are the process's."""


@contextmanager
def _alone() -> Iterator[None]:
    """Wait until no other thread of this process runs a race.

    Raises:
        ValueError: This very thread does: a race is run inside a race.
    """
    if threading.get_ident() in _runner:
        raise ValueError(
            "a run must not begin another one: it would set the generators and threads "
            "that its own trials draw from"
        )
    with _running:
        _runner.append(threading.get_ident())
        try:
            yield
        finally:
            _runner.pop()


@contextmanager
def _worker(
    argument: tuple[Race, Mapping[Path, bytes], int],
) -> Iterator[Callable[[PlannedTrial], tuple[Record, dict[str, str]]]]:
    """Give what trains a trial in a process of its own, from what the run has read.

    Args:
        argument: The race, the bytes of the users' files, torch's threads.

    Raises:
        ValueError: This process comes to another trial than was asked for.
    """
    race, read, threads = argument
    code = UserCode(race.source, race.suite.sources, read)
    with race._session(code, threads) as resolved:

        def train(planned: PlannedTrial) -> tuple[Record, dict[str, str]]:
            trained = race._train(resolved, planned)
            if trained[0].status in ENDED:
                here = resolved.planned(planned.label, planned.seed)
                for told in differences(planned.identity, here.identity):
                    raise ValueError(
                        f"what makes the trial {planned.label} seed {planned.seed} "
                        f"must be the same in the run and in this process, and differs: "
                        f"{told}"
                    )
            return trained

        yield train
