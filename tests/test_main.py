"""The command as a process: how it is called, interrupted, and read by others."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import batchramp

COMMAND = (sys.executable, "-m", "batchramp")


def run(*arguments, **others):
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, check=False, **others
    )


def test_the_module_is_the_command():
    done = run("--version")
    assert done.stdout == f"batchramp, version {batchramp.__version__}\n"
    done = run("pln")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("batchramp: unknown command 'pln'")
    assert "Usage: batchramp " in run("--help").stdout


def test_the_script_is_the_command():
    script = shutil.which("batchramp", path=Path(sys.executable).parent)
    if script is None:
        pytest.skip("needs the script that an installation makes")
    done = subprocess.run([script, "--version"], capture_output=True, text=True)
    assert done.stdout == f"batchramp, version {batchramp.__version__}\n"


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("click", ["list"]),  # before the command itself is imported
        ("torch", ["run", "--dry-run"]),
        ("numpy", ["run", "--dry-run"]),
        ("polars", ["report", "none"]),
    ],
)
def test_an_interrupt_during_imports_is_one_line(tmp_path, module, arguments):
    # A module that is met first says that it is being imported, and takes its time.
    (tmp_path / f"{module}.py").write_text(
        "import os, time\n"
        "os.write(1, b'importing\\n')\n"
        "try:\n"
        "    time.sleep(60)\n"
        "except BaseException as error:  # as some packages do\n"
        "    raise ImportError('cannot be imported') from error\n"
    )
    with subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    ) as process:
        said = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert said == "importing\n", err
    assert process.returncode == 130
    assert (out, err) == ("", "batchramp: interrupted\n")


def test_an_interrupt_that_the_parent_ignores_stays_ignored(tmp_path):
    (tmp_path / "click.py").write_text(
        "import signal\n"
        "print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)\n"
        "raise SystemExit(0)\n"
    )
    done = run(
        "list",
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert done.stdout == "True\n"


@pytest.mark.parametrize(
    "arguments", [["list"], ["list", "--json"], ["plan", "umeda-warmup"], ["--help"]]
)
def test_a_reader_that_goes_away_ends_it_quietly(arguments):
    with subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.parametrize(
    ("arguments", "closed", "code"),
    [
        ("list", ">&-", 0),
        ("plan umeda-warmup", ">&- 2>&-", 0),
        ("lst", "2>&-", 2),
    ],
)
def test_a_closed_stream_is_no_error(arguments, closed, code):
    line = f'"{sys.executable}" -m batchramp {arguments} {closed}'
    done = subprocess.run(line, shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, "")


def test_a_run_without_streams_keeps_its_results_whole(tmp_path):
    (tmp_path / "own.py").write_text(
        "import os\n"
        "from dataclasses import replace\n"
        "from batchramp.workloads import find_workload\n"
        "def load(*arguments):\n"
        "    os.write(1, b'printed by a library')\n"
        "    return find_workload('digits').load(*arguments)\n"
        "mine = replace(find_workload('digits'), name='mine', load=load)\n"
    )
    (tmp_path / "own.toml").write_text(
        'name = "own"\nworkload = "own.py:mine"\nepochs = 1\nseeds = 1\nthreads = 1\n'
        '[[panel]]\nbaseline = "a"\ntargets = ["metric >= 0.5"]\n'
        '[[panel.entry]]\nlabel = "a"\nschedule = "constant"\n'
    )
    line = f'"{sys.executable}" -m batchramp run own.toml'
    done = subprocess.run(f"{line} <&- >&- 2>&-", shell=True, cwd=tmp_path)
    assert done.returncode == 0
    results = batchramp.read_results(tmp_path / "runs" / "own")
    assert {found["status"] for found in results.metadata.values()} == {"finished"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["list"], ["plan", "umeda-warmup"]])
def test_a_full_disk_is_one_line(arguments):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr == "batchramp: [Errno 28] No space left on device\n"


def test_letters_that_the_output_cannot_show_are_spelt_out(tmp_path):
    (tmp_path / "own.py").write_text(
        "from batchramp.schedules import make\n"
        "def mine(**_):\n    raise ValueError('\\N{SNOWMAN}')\n"
    )
    done = run(
        "plan",
        f"{tmp_path}/own.py:mine",
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )
    assert done.returncode == 2
    assert r"\u2603" in done.stderr
