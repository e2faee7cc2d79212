"""What is told while a run goes on, to a real terminal and to a file."""

import contextlib
import io
import os
import pty
import threading
from contextlib import redirect_stderr, redirect_stdout

import pytest

from batchramp.benchmark.monitor import Outcome
from batchramp.benchmark.progress import ProgressMonitor
from batchramp.benchmark.terminal import draws, output, remarks

SETTINGS = ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return monkeypatch.setenv


class Terminal:
    """One end of a terminal, and all that was written to it."""

    def __init__(self):
        self._ours, theirs = pty.openpty()
        self.stream = open(theirs, "w", encoding="utf-8")  # noqa: PTH123, SIM115
        self._read = []
        self._reader = threading.Thread(target=self._listen)
        self._reader.start()

    def _listen(self):
        # Without a reader a terminal takes some kilobytes, and then waits for one.
        with contextlib.suppress(OSError):  # the other end was closed
            while part := os.read(self._ours, 1 << 16):
                self._read.append(part)

    def close(self):
        self.stream.close()
        self._reader.join()
        return b"".join(self._read).decode()


@pytest.fixture
def terminal():
    terminal = Terminal()
    yield terminal
    terminal.close()
    os.close(terminal._ours)


def race(stream, outcomes, done=()):
    with redirect_stderr(stream), ProgressMonitor(remarks()) as monitor:
        for number in done:
            monitor.prepare(number, len(done))
        monitor.begin(len(outcomes), float(len(outcomes)))
        for outcome in outcomes:
            monitor.end(outcome, 1.0)


def logged(outcomes, done=()):
    stream = io.StringIO()
    race(stream, outcomes, done)
    return stream.getvalue()


def drawn_on(stream):
    with redirect_stderr(stream):
        return draws(remarks())


def test_a_terminal_gets_a_bar(terminal):
    race(terminal.stream, [Outcome("a", 0, "finished")])
    told = terminal.close()
    assert "1/1" in told
    assert "trials" in told


@pytest.mark.parametrize(
    ("name", "value"),
    [("FORCE_COLOR", "1"), ("TTY_COMPATIBLE", "1"), ("TTY_INTERACTIVE", "1")],
)
def test_no_setting_draws_a_bar_into_a_file(environment, name, value):
    environment(name, value)
    environment("TTY_COMPATIBLE", "1")
    assert logged([Outcome("a", 0, "finished")] * 3) == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [("TERM", "dumb"), ("TTY_COMPATIBLE", "0"), ("TTY_INTERACTIVE", "0")],
)
def test_a_terminal_that_cannot_go_back_gets_lines(terminal, environment, name, value):
    environment(name, value)
    assert not drawn_on(terminal.stream)


def test_without_colour_there_is_still_a_bar(terminal, environment):
    environment("NO_COLOR", "1")
    assert drawn_on(terminal.stream)


@pytest.mark.parametrize("columns", ["40", "1", "0", "x", ""])
def test_any_width_will_do(terminal, environment, columns):
    environment("COLUMNS", columns)
    label = "a long label of a schedule " * 4
    race(terminal.stream, [Outcome(label, 0, "failed", "why")])
    assert "failed: why" in terminal.close()


def test_an_error_is_told_when_it_is_first_met(monkeypatch):
    monkeypatch.setattr("batchramp.benchmark.progress.LINE_EVERY_SECONDS", 0.0)
    outcomes = [Outcome("a", seed, "failed", "KeyError: 'x'") for seed in range(56)]
    outcomes += [Outcome("b", 0, "failed", "another"), Outcome("b", 1, "finished")]
    lines = logged(outcomes, done=range(2)).splitlines()
    assert lines[:2] == ["0 of 2 seeds prepared", "1 of 2 seeds prepared"]
    assert [line for line in lines if ": " in line] == [
        "a seed 0 failed: KeyError: 'x'",
        "b seed 0 failed: another",
    ]
    assert lines[-1].startswith("58 of 58 trials, 57 failed, about 0 s left")


def test_nothing_of_a_users_text_is_obeyed():
    outcome = Outcome("\x1b[2J[bold]", 0, "failed", "w\u202eer\x07\x9b")
    assert logged([outcome]) == r"\x1b[2J[bold] seed 0 failed: w\u202eer\x07\x9b" + "\n"


def test_a_reader_of_the_log_that_goes_away_ends_no_run():
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as stream:  # noqa: PTH123
        race(
            stream, [Outcome("a", seed, "failed", f"error {seed}") for seed in range(3)]
        )
        with redirect_stdout(stream), pytest.raises(BrokenPipeError):
            output().print("a table")
        # What could not be written is written once more when the stream is closed.
        elsewhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(elsewhere, writing)
        os.close(elsewhere)
