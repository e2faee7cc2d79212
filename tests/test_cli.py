import itertools
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

import batchramp
from batchramp.benchmark.results import read_suite, write_suite
from batchramp.cli import main
from batchramp.schedules import names

SUITE = """\
name = "tiny"
workload = "digits"
epochs = 1
seeds = 2
threads = 1
[[panel]]
baseline = "still"
targets = ["metric >= 0.3", "metric >= 1.5"]
[[panel.entry]]
label = "still"
schedule = "constant"
set = { lr = 0.1, batch_size = 16 }
[[panel.entry]]
label = "led [/b]"
schedule = "noise-scale"
set = { lr = 0.1, batch_size = 16, max_batch_size = 128 }
"""

COMMANDS = ["run", "plan", "report", "compare", "list"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A suite, and its run."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tiny.toml").write_text(SUITE)
    assert main(["run", str(folder / "tiny.toml"), "--out", str(folder / "run")]) == 0
    return folder


@pytest.fixture
def call(capsys):
    """Calls the command; returns its exit code, standard output and error."""

    def command(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return command


@pytest.fixture
def call_json(call):
    """Calls it with --json; returns what it printed, which must be JSON to the letter."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    def command(*arguments):
        code, out, _ = call(*arguments, "--json")
        assert code == 0
        return json.loads(out, parse_constant=refuse)

    return command


@pytest.mark.parametrize(
    ("arguments", "updates"),
    [
        # 60, 60, 40 and 40 epochs of 50,000 samples by 128, passes running on.
        (
            ["smith-decay", "--num-samples", 50000, "--epochs", 200, "--boundary=wrap"],
            78_125,
        ),
        (["umeda-constant", "--boundary", "keep"], 117_300),
        (["umeda-increasing-batch", "--boundary", "keep"], 374_760),
        (["umeda-constant", "--epochs", 1, "--set", "batch_size=50000"], 1),
        (["umeda-constant", "--epochs", "0.5", "--num-samples", "1e3"], 4),
    ],
)
def test_plan_counts_updates(call_json, call, arguments, updates):
    found = call_json("plan", *arguments)
    assert found["updates"] == updates
    assert sum(stage["updates"] for stage in found["stages"]) == updates
    columns = "start batch_size lr lr_end momentum updates"
    assert set(found["stages"][0]) == set(columns.split())
    assert found["samples"] > 0
    code, out, err = call("plan", *arguments)
    assert (code, err) == (0, "")
    assert f"{updates:,} updates" in out


def test_a_parameter_is_json_or_else_a_string(call_json):
    laid = call_json(
        "plan",
        "umeda-increasing-batch",
        *("--num-samples", 1000, "--epochs", 10),
        *("--set", "decay=cosine", "--set", 'interval="2 epochs"'),
        *("--set", "batch_size=10", "--set", "max_batch_size=100", "--set", "lr=1e-1"),
    )
    parameters = laid["parameters"]
    assert parameters["decay"] == "cosine"
    assert parameters["interval"] == "2 epochs"
    assert parameters["lr"] == 0.1
    assert [stage["start"] for stage in laid["stages"]] == [0, 2000, 4000, 6000, 8000]
    sizes = [stage["batch_size"] for stage in laid["stages"]]
    assert sizes == [10, 20, 40, 80, 100]
    unquoted = call_json(
        "plan", "smith-decay", "--set", 'milestones=["60 epochs", 0.6]'
    )
    assert unquoted["parameters"]["milestones"] == ["60 epochs", 0.6]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["pln"], ["command 'pln'", "plan"]),
        (["run", "quik"], ["suite 'quik'", "quick"]),
        (["run", "quick", "--jobs", 0], ["jobs", "at least 1", "0"]),
        (["run", "quick", "--seeds", 0], ["seeds", "at least 1", "0"]),
        (["run", "quick", "--seeds", "x"], ["--seeds", "'x'"]),
        (["run", "quick", "--device", "gpu"], ["device 'gpu'", "cpu"]),
        (["run", "quick", "--data", "/none"], ["/none must exist"]),
        (["run", "--nosuch"], ["--nosuch"]),
        (["plan"], ["SCHEDULE"]),
        (["plan", "smith-deacy"], ["schedule 'smith-deacy'", "smith-decay"]),
        (["plan", "smith-decay", "--set", "facto=2"], ["'facto'", "factor"]),
        (["plan", "smith-decay", "--set", "factor"], ["--set", "key=value", "factor"]),
        (["plan", "smith-decay", "--set", "=2"], ["--set", "key=value"]),
        (["plan", "smith-decay", "--set", "lr=NaN"], ["lr", "finite", "nan"]),
        (["plan", "smith-decay", "--set", "batch_size=x"], ["batch_size", "'x'"]),
        (["plan", "smith-decay", "--set", "epochs=3"], ["smith-decay 'epochs'"]),
        (["plan", "smith-decay", "--set", "schedule=x"], ["'schedule'"]),
        (["plan", "smith-decay", "--boundary", "warp"], ["'warp'", "wrap"]),
        (["plan", "smith-decay", "--epochs", "nan"], ["epochs", "finite", "'nan'"]),
        (["plan", "smith-decay", "--num-samples", "2.5"], ["num_samples", "2.5"]),
        (["plan", "smith-decay", "--num-samples", 100], ["batch_size", "at most 100"]),
        (["plan", "noise-scale"], ["static", "noise-scale"]),
        (["plan", "none.py:x"], ["no file", "none.py"]),
        (["report", "/none"], ["/none", "suite.toml"]),
        (["compare", "/none"], ["NEW"]),
        (["compare", "/none", "/none"], ["/none", "suite.toml"]),
        (["compare", "/none,", "/none"], ["commas", "'/none,'"]),
        (["compare", "/none,/none", "/none"], ["must differ", "/none twice"]),
        (["list", "more"], ["more"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(call, arguments, told):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("batchramp: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    for part in told:
        assert part in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["plan", "smith-decay", "--set", f"milestones={'[' * 10**5}"],
            "nest so deeply",
        ),
        (
            ["plan", "constant", "--set", f"lr={'9' * 400}"],
            "lr must be a finite number",
        ),
        (["plan", "constant", "--set", f"lr={'9' * 10**4}"], "lr must be a finite num"),
        (["plan", "constant", "--set", "lr=1e999"], "lr must be .* got inf"),
        (["plan", "constant", "--set", "x" * 10**5], "--set must be key=value"),
        (["plan", "constant", "--epochs", "9" * 10**4], "epochs must have at most 100"),
        (
            ["plan", "constant", "--num-samples", "1e999"],
            r"num_samples must .* 2\*\*63",
        ),
        (["plan", "x" * 10**5], "schedule must have at most 200 characters"),
        (["plan", f"{'x' * 10**5}.py:y"], "xxx"),
        (["run", "x" * 10**5], "unknown suite 'xxx"),
        (["run", "quick", "--seeds", "1000000000"], "seeds must be at most 1000000"),
        (["run", "quick", "--seeds", "9" * 10**4], "--seeds"),
        (["run", "quick", "--data", "x" * 10**5], "xxx"),
        (["x" * 10**5], "unknown command 'xxx"),
    ],
    ids=itertools.count(),
)
def test_inputs_without_a_limit_of_size_are_one_short_line(call, arguments, told):
    code, _, error = call(*arguments)
    assert code == 2
    assert re.search(told, error)
    assert len(error) < 1100
    assert error.count("\n") == 1


def test_errors_of_files_are_one_line_too(call, folder):
    (folder / "file").touch()
    damaged, other_format = folder / "damaged", folder / "other"
    for copy in (damaged, other_format):
        shutil.copytree(folder / "run", copy)
    trial = min((damaged / "trials").iterdir())
    trial.write_bytes(trial.read_bytes()[:1000])
    write_suite(other_format, read_suite(damaged) | {"format": 99})
    for arguments in (
        ["report", folder / "run", "--html", folder / "none" / "x.html"],
        ["run", folder / "tiny.toml", "--out", folder / "file"],
        ["compare", folder / "run", folder / "run", "--margin", "nan"],
        ["compare", folder / "run", folder / "run", "--only", "update"],
        ["compare", folder / "run", f"{folder / 'run'},{folder / 'file'}"],
        ["report", folder],
        ["report", damaged],
        ["compare", folder / "run", damaged],
        ["run", folder / "tiny.toml", "--out", other_format],
        ["report", other_format],
        ["compare", other_format, folder / "run"],
    ):
        code, out, err = call(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("batchramp: ")
        assert err.count("\n") == 1


def test_run_ends_with_a_table(call, folder):
    code, out, err = call("run", folder / "tiny.toml", "--out", folder / "run")
    assert (code, err) == (0, "")
    for part in (
        "To metric >= 0.3",
        "still",
        "led [/b]",
        "not reached",
        "fixed budget",
    ):
        assert part in out
    assert call("report", folder / "run") == (0, out, "")


def test_run_measures_what_is_named(call, folder, tmp_path):
    suite, names = folder / "tiny.toml", "noise-scale,variance,gradient-norm,sharpness"
    out = tmp_path / "out"
    arguments = ("run", suite, "--out", out, "--seeds", 1, "--measure")
    assert call(*arguments, names)[0] == 0
    rows = batchramp.read_results(out).rows
    for column in (*names.replace("-", "_").split(","), "sharpness_residual"):
        assert rows[column].is_finite().all()
    assert rows["batch_variance"].is_null().all()
    # Measures are part of a trial's identity: others are another question.
    code, _, error = call(*arguments, "sharpness")
    assert (code, error.count("\n")) == (2, 1)
    assert "holds another question: measures" in error
    code, _, error = call(*arguments, "noise,sharpness")
    assert (code, error.count("\n")) == (2, 1)
    assert "unknown measure 'noise': did you mean noise_scale" in error


def test_run_prints_json_and_nothing_else(call_json, folder):
    found = call_json("run", folder / "tiny.toml", "--out", folder / "run")
    assert (found["suite"], found["workload"]) == ("tiny", "digits")
    races = found["panels"][0]["race"]
    assert [(row["schedule"], row["target"], row["reached"]) for row in races] == [
        ("still", "metric >= 0.3", 2),
        ("still", "metric >= 1.5", 0),
        ("led [/b]", "metric >= 0.3", 2),
        ("led [/b]", "metric >= 1.5", 0),
    ]
    assert call_json("report", folder / "run") == found


def test_a_dry_run_says_what_would_be_run_and_runs_nothing(call, call_json, folder):
    arguments = ("run", folder / "tiny.toml", "--seeds", 3, "--dry-run", "--out")
    fresh = folder / "fresh"
    assert call_json(*arguments, fresh) == {
        "out": str(fresh),
        "pending": 6,
        "entries": [
            {"panel": 0, "schedule": "still", "updates": 82, "trials": 3},
            {"panel": 0, "schedule": "led [/b]", "updates": None, "trials": 3},
        ],
        "notes": [],
    }
    assert call_json(*arguments, folder / "run")["pending"] == 2
    code, out, err = call(*arguments, fresh)
    assert (code, err) == (0, "")
    for part in ("6 trials", "still", "82", "led [/b]", "adaptive"):
        assert part in out
    assert not fresh.exists()


def test_the_default_folder_is_named_after_the_suite(call_json, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert call_json("run", "--dry-run", "--seeds", 1)["out"] == str(
        tmp_path / "runs" / "quick"
    )


def test_a_failed_trial_is_exit_code_1(call, tmp_path):
    (tmp_path / "own.py").write_text(
        "from batchramp.workloads import Workload\n"
        "from batchramp.workloads.digits import load\n"
        "mine = Workload(name='mine', load=load, model=lambda: 1 / 0)\n"
    )
    path = tmp_path / "own.toml"
    path.write_text(SUITE.replace("digits", "own.py:mine"))
    code, out, err = call("run", path, "--out", tmp_path / "out", "--json")
    assert code == 1
    told = json.loads(out)
    assert told["panels"][0]["budget"][0]["finished"] == 0
    (error,) = told["errors"]
    assert (
        error["error"] == "ZeroDivisionError: division by zero (own.py:3, in <lambda>)"
    )
    assert error["traceback"].startswith("Traceback (most recent call last):")
    assert error["trials"] == 4
    assert told["notes"][0].startswith("of 4 trials 4 failed")
    # The error comes when it is first met, and once more where nothing hides it: last.
    last = [
        "4 trials failed:",
        error["error"],
        "  4 trials: still, seeds 0 and 1; led [/b], seeds 0 and 1",
    ]
    assert err.count("ZeroDivisionError") == 2
    assert err.splitlines()[-4:] == [
        *last,
        "batchramp: 4 trials failed; the same command tries them again",
    ]
    # `report` shows them too, in its output.
    code, out, err = call("report", tmp_path / "out")
    assert (code, err) == (0, "")
    assert out.splitlines()[-3:] == last
    assert "0 finished" in out


def test_report_writes_a_page(call, folder, tmp_path):
    page = tmp_path / "page [b].html"
    code, out, err = call("report", folder / "run", "--html", page)
    assert code == 0, err
    assert "To metric >= 0.3" in out
    assert err == f"wrote {page}\n"
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_compare_tells_by_its_exit_code(call, call_json, folder, tmp_path):
    run = folder / "run"
    same = call_json("compare", run, run)
    assert same["exit_code"] == 0
    code, out, err = call("compare", run, run)
    assert (code, err) == (0, "")
    assert "equal" in out
    assert out.startswith("Fine: ")
    # Another batch size was asked: not comparable; and so is one other seed.
    other = tmp_path / "other.toml"
    other.write_text(SUITE.replace("batch_size = 16 }", "batch_size = 8 }"))
    assert call("run", other, "--out", tmp_path / "other")[0] == 0
    code, out, err = call("compare", run, tmp_path / "other")
    assert (code, err) == (3, "")
    assert out.startswith("Cannot tell: ")
    assert "set.batch_size is 16 in base, 8 in new" in " ".join(out.split())
    other.write_text(SUITE.replace("threads", "first_seed = 7\nthreads"))
    assert call("run", other, "--seeds", 1, "--out", tmp_path / "one")[0] == 0
    code, out, err = call("compare", run, tmp_path / "one", "--json")
    assert (code, err) == (3, "")
    assert json.loads(out)["exit_code"] == 3
    # Runs of one side stand with commas between; what is looked at can be chosen.
    runs = [tmp_path / name for name in ("a", "b", "c", "d", "e", "f")]
    for out in runs:
        assert call("run", folder / "tiny.toml", "--out", out)[0] == 0
    base, new = (",".join(map(str, side)) for side in (runs[:3], runs[3:]))
    only = ("--only", "metric,planned_updates", "--only", "updates")
    found = call_json("compare", base, new, *only)
    assert (found["base_runs"], found["exit_code"]) == (3, 0)
    named = {row["quantity"] for row in found["rows"]}
    assert named == {"metric", "planned_updates", "updates"}
    # A copy of a run tells nothing of how much runs vary.
    shutil.copytree(runs[0], tmp_path / "copy")
    code, out, err = call("compare", f"{runs[0]},{tmp_path}/copy,{runs[1]}", new)
    assert (code, out) == (2, "")
    assert "got base and base 2 with" in err
    assert err.count("\n") == 1


def test_list_names_what_there_is(call, call_json):
    found = call_json("list")
    assert "quick" in found["suites"]
    assert set(found["schedules"]) == set(names())
    assert set(found["workloads"]) == {"digits", "fashion_mnist", "cifar10"}
    code, out, err = call("list")
    assert (code, err) == (0, "")
    for name in (*found["suites"], *found["schedules"], *found["workloads"]):
        assert f"  {name}" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_how(call, command):
    code, out, err = call(command, "--help")
    assert (code, err) == (0, "")
    assert f"\n  batchramp {command} " in out
    assert "--json" in out


def test_help_of_the_whole_command(call):
    code, out, err = call("--help")
    assert (code, err) == (0, "")
    for command in COMMANDS:
        assert f"\n  {command} " in out
    assert "batchramp run " in out
    assert call("--version") == (0, f"batchramp, version {batchramp.__version__}\n", "")
    code, out, err = call()
    assert (code, out) == (2, "")
    assert "Commands:" in err


WITHOUT_TORCH = """
import contextlib, io, json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
from batchramp.cli import main
import batchramp
told = {}
for line in sys.stdin.read().splitlines():
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(line.split("|"))
    told[line] = code, out.getvalue(), err.getvalue()
try:
    batchramp.run()
except ModuleNotFoundError as error:
    told["run()"] = 0, str(error), ""
print(json.dumps(told))
"""


def test_what_works_without_torch(folder):
    run, page = folder / "run", folder / "page.html"
    working = ["plan|umeda-constant", "list", f"report|{run}|--html|{page}"]
    working += [f"compare|{run}|{run}", f"report|{run}|--json", "--help"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH],
        input="\n".join([*working, "run", "run|quick|--dry-run"]),
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    for line in working:
        code, out, _ = told[line]
        assert code == 0
        assert out
    for line in ("run", "run|quick|--dry-run"):
        assert told[line] == [
            2,
            "",
            "batchramp: run trains with torch: pip install 'batchramp[torch]'\n",
        ]
    assert "pip install 'batchramp[torch]'" in told["run()"][1]


def test_a_users_schedule_that_raises_is_one_line(call, tmp_path):
    own = tmp_path / "own.py"
    own.write_text(
        "from batchramp.schedules import make\ndef broken(**_):\n    return 1 / 0\n"
    )
    code, out, err = call("plan", f"{own}:broken")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "broken: ZeroDivisionError: division by zero" in err


def test_folders_without_results_are_one_line_and_without_trials_a_table(
    call, folder, tmp_path
):
    empty, bare, torn = (tmp_path / name for name in ("empty", "bare", "torn"))
    empty.mkdir()
    shutil.copytree(folder / "run", bare)
    shutil.rmtree(bare / "trials")
    shutil.copytree(folder / "run", torn)
    suite = torn / "suite.toml"
    suite.write_bytes(suite.read_bytes()[:-20])
    for place in (empty, torn, tmp_path / "\x1b[2J"):
        code, out, err = call("report", place)
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
        assert "\x1b" not in err
    code, out, err = call("report", bare)
    assert (code, err) == (0, "")
    assert "Take care: of 4 trials 4 not run" in out
    assert "no trial" in out


def test_paths_are_literal_and_home_is_filled_in(call, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    odd = "lr=[1] *~?{x}"
    shutil.copytree(folder / "run", tmp_path / odd)
    code, _, err = call("report", f"~/{odd}", "--html", "~/page.html")
    assert (code, err) == (0, "wrote ~/page.html\n")
    assert (tmp_path / "page.html").is_file()
    assert not (tmp_path / "~").exists()
    assert call("compare", odd, f"~/{odd}")[0] == 0
    assert call("report", "~nobody-of-this-name/x")[0] == 2


def test_colours_can_be_forced_and_a_bar_cannot(folder):
    environment = {**os.environ, "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "batchramp", "run", folder / "tiny.toml"),
            *("--out", folder / "run"),
        ],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert "\x1b[1m" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("settings", "backend"),
    [
        (b"lines.linewidth: \xff\xfe", None),
        (b"no colon, and\nlines.linewidth: x\nfont.size: 40\n", None),
        (b"text.usetex: True\n", "nonsense"),
    ],
)
def test_a_users_plots_cannot_break_a_page(folder, tmp_path, settings, backend):
    plain, other = tmp_path / "plain", tmp_path / "other"
    command = (sys.executable, "-m", "batchramp", "report", folder / "run", "--html")
    environment = dict(os.environ)
    for place in (plain, other):
        place.mkdir()
        subprocess.run(
            [*command, "page.html"],
            cwd=place,
            env=environment,
            check=True,
            capture_output=True,
        )
        (other.parent / "matplotlibrc").write_bytes(settings)
        environment["MATPLOTLIBRC"] = str(other.parent)
        environment |= {"MPLBACKEND": backend} if backend else {}
    pages = [(place / "page.html").read_text("utf-8") for place in (plain, other)]
    assert pages[0] == pages[1]


def test_control_characters_never_reach_the_terminal(call, tmp_path):
    own = tmp_path / "own.py"
    own.write_text(
        "def broken(**_):\n    raise RuntimeError('\\x1b[2Jgone\\u202e\\x9b31m')\n"
    )
    code, out, err = call("plan", f"{own}:broken")
    assert (code, out) == (2, "")
    assert r"\x1b[2Jgone\u202e\x9b31m" in err
    for arguments in (
        ["plan", "a\x1b[2Jb"],
        ["plan", "smith-decay", "--set", "a\x1b=1"],
        ["lis\x1bt"],
        ["list", "\x1b"],
        ["compare", "\x1b", "\x9b"],
        ["run", "\x1b", "--data", "\u202e"],
        ["report", "\x1b", "--html", "\x1b"],
    ):
        code, out, err = call(*arguments)
        assert (code, out) == (2, "")
        assert not re.search("[\x1b\x9b\u202e]", err)


def test_what_a_users_schedule_prints_is_not_among_the_results(
    call_json, call, tmp_path
):
    own = tmp_path / "own.py"
    own.write_text(
        "import os\n"
        "from batchramp.schedules import make\n"
        "print('imported')\n"
        "def mine(lr=0.1):\n"
        "    print('called')\n"
        "    return make('umeda-constant', lr=lr)\n"
    )
    assert call_json("plan", f"{own}:mine")["updates"] == 117_300
    code, out, err = call("plan", f"{own}:mine")
    assert (code, "called" in out, "called" in err) == (0, False, True)
