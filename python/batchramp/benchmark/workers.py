"""Processes that train trials side by side, and outlive neither the run nor each other.

A worker is a fresh interpreter that reads pickled tasks from its standard input and
writes pickled answers to what was its standard output; whatever user code prints goes to
standard error. It ends by itself as soon as the run does: its input then ends.

Nothing heavy is imported here, so that this holds from a worker's first moment on.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, Any

TRIES = 2
"""How often a task is begun whose worker dies; only its own task is tried again."""


@dataclass(frozen=True)
class Died:
    """What comes of a task whose workers were killed or ended themselves."""

    reason: str


@dataclass(eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    task: int | None = None
    answers: threading.Thread = field(init=False)


def in_workers(
    make: Callable[[Any], AbstractContextManager[Callable[[Any], Any]]],
    argument: Any,
    tasks: Sequence[Any],
    number: int,
) -> Generator[tuple[int, Any]]:
    """Yield the index and the answer of each task, in the order in which they end.

    Args:
        make: A function of a module, called once in each worker; inside what it
            returns, tasks are answered by what that gives.
        argument: Its argument; it, the tasks and the answers are pickled.
        tasks: What to do, begun in this order.
        number: Workers at a time, at least 1.

    Returns:
        For each task its answer, or `Died`. What `make` or the answering raises is
        raised here as a ValueError with its text. When the generator is closed, all
        workers are ended.
    """
    waiting = deque(range(len(tasks)))
    tries = [0] * len(tasks)
    events: queue.SimpleQueue[tuple[_Worker, Any]] = queue.SimpleQueue()
    begin = pickle.dumps((make, argument))
    workers: set[_Worker] = set()
    done = 0
    try:
        for _ in range(min(number, len(tasks))):
            workers.add(_start(begin, events))
        while done < len(tasks):
            worker, event = events.get()
            task, worker.task = worker.task, None
            ended: list[tuple[int, Any]] = []
            if event is None:
                workers.discard(worker)
                reason = _ending(worker.process.wait())
                _end({worker})
                if task is None:
                    raise ValueError(f"a process of the run {reason} before it began")
                if tries[task] < TRIES:
                    waiting.appendleft(task)
                else:
                    ended.append((task, Died(f"its process {reason}, {TRIES} times")))
                if waiting:
                    workers.add(_start(begin, events))
            else:
                kind, value = event
                if kind == "failed":
                    raise ValueError(value)
                if task is not None:
                    ended.append((task, value))
                if waiting:  # before the answer is told, which may take its time
                    worker.task = waiting.popleft()
                    tries[worker.task] += 1
                    _write(worker, pickle.dumps(tasks[worker.task]))
            for index, value in ended:
                done += 1
                yield index, value
    finally:
        _end(workers)


def _start(begin: bytes, events: queue.SimpleQueue[tuple[_Worker, Any]]) -> _Worker:
    code = "from batchramp.benchmark.workers import serve; serve()"
    with _interrupts_ignored():  # which the worker inherits
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    worker = _Worker(process)
    worker.answers = threading.Thread(
        target=_listen, args=(worker, events), daemon=True
    )
    worker.answers.start()
    _write(worker, begin)
    return worker


def _write(worker: _Worker, content: bytes) -> None:
    stream = worker.process.stdin
    assert stream is not None
    with suppress(OSError):  # it has died; its answers end, which says so
        pickle.dump(content, stream)
        stream.flush()


def _listen(worker: _Worker, events: queue.SimpleQueue[tuple[_Worker, Any]]) -> None:
    stream = worker.process.stdout
    assert stream is not None
    while True:
        try:
            event = pickle.load(stream)
        except Exception:  # the end, or half an answer of a worker that died
            events.put((worker, None))
            return
        events.put((worker, event))


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _end(workers: set[_Worker]) -> None:
    """An interrupt must not wait for the trials under way."""
    for worker in workers:
        worker.process.kill()
    for worker in workers:
        worker.process.wait()
        worker.answers.join(timeout=5)  # a process of user code may hold the pipe
        for stream in (worker.process.stdin, worker.process.stdout):
            assert stream is not None
            with suppress(OSError):  # a task that was never read
                stream.close()


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Start processes that leave an interrupt to this one, from their first import on.

    Only the main thread may say how signals are handled.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def serve() -> None:
    """Answer tasks until there are no more: what a worker runs."""
    tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    source = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    # User code, and what it calls, may read and print.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    threading.Thread(target=_receive, args=(source, tasks), daemon=True).start()

    def answer(kind: str, value: Any) -> None:
        pickle.dump((kind, value), answers)
        answers.flush()

    try:
        make, argument = pickle.loads(tasks.get())
        with make(argument) as run:
            answer("ready", None)
            while True:
                answer("answer", run(pickle.loads(tasks.get())))
    except BaseException as error:
        told = f"{type(error).__name__}: {error}"
        if isinstance(error, ValueError):
            told = str(error)
        answer("failed", f"a process of the run could not go on: {told}")


def _receive(source: IO[bytes], tasks: queue.SimpleQueue[bytes]) -> None:
    """Pass tasks on unread; the end of input is the end of the run, and of this process.

    What a task holds is unpickled, and so imported, where it does not delay that end.
    """
    while True:
        try:
            tasks.put(pickle.load(source))
        except EOFError:
            os._exit(1)
