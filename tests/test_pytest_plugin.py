import json
import re
import shlex
from pathlib import Path

import pytest
import torch

# Its runs unload what they import, and torch cannot be loaded twice in a process.
import batchramp.benchmark.single_race  # noqa: F401
from batchramp import _rust
from batchramp.benchmark.environment import describe_environment
from batchramp.pytest_plugin import QUANTITIES

pytest_plugins = "pytester"

RACE = """
def test_speed(time_to_accuracy):
    summary = time_to_accuracy(
        "digits", "smith-increase", target={target!r}, epochs=2, seeds=3, threads=1,
        cadence=0.25, set={{"lr": 0.1, "batch_size": 16, "max_batch_size": 128}},
    )
    seeds = {seeds}
    assert len(summary.updates) == len(summary.train_seconds) == seeds
    assert summary.misses == {misses}
    assert summary.planned_updates == 68
"""
MISSES = RACE.format(target="metric >= 1.5", seeds=3, misses=3)
REACHES = RACE.format(target="metric >= 0.8", seeds=3, misses=0)

# A workload whose inputs are scaled seed by seed, so that some seeds diverge.
SCALED = """
from dataclasses import replace
from batchramp.workloads import find_workload
from batchramp.workloads.interface import Data, Split

digits = find_workload("digits")

def scaled(factors):
    def load(data_dir, seed):
        data = digits.load(data_dir, seed)
        train = Split(data.train.inputs * factors[seed % 2], data.train.targets)
        return Data(train=train, test=data.test)
    return load

one = replace(digits, name="one", load=scaled([1.0, 1e30]))
all = replace(digits, name="all", load=scaled([1e30, 1e30]))
"""
SHORT = """target="metric >= 1.5", epochs=1, seeds=2, threads=1,
        set={"lr": 0.1, "batch_size": 16}"""


@pytest.fixture(autouse=True)
def only_our_plugins(pytester):
    # Hypothesis is loaded anew at the end of every inner run, which takes a second.
    pytester.makeini("[pytest]\naddopts = -p no:hypothesispytest")


@pytest.fixture
def records(pytester):
    """Runs a test that passes; returns the entries of pytest-benchmark's JSON."""

    def run(source, *options, own="", **outcomes):
        pytester.makepyfile(source, own=own)
        path = pytester.path / "records.json"
        done = pytester.runpytest_inprocess(f"--benchmark-json={path}", *options)
        done.assert_outcomes(**(outcomes or {"passed": 1}))
        return json.loads(path.read_text())["benchmarks"]

    return run


def test_a_race_is_three_entries_in_groups_of_their_own(records):
    found = {entry["group"]: entry for entry in records(REACHES)}
    assert sorted(found) == sorted(f"batchramp: {name}" for name in QUANTITIES)
    ran = describe_environment(torch.device("cpu"))
    for quantity in QUANTITIES:
        entry = found[f"batchramp: {quantity}"]
        assert entry["name"] == f"test_speed:{quantity}"
        assert entry["fullname"].endswith(f"::test_speed:{quantity}")
        assert entry["extra_info"] == {
            "quantity": quantity,
            "workload": "digits",
            "schedule": "smith-increase",
            "set": {"lr": 0.1, "batch_size": 16, "max_batch_size": 128},
            "target": "metric >= 0.8",
            "epochs": 2,
            "seeds": 3,
            "cadence": 0.25,
            "threads": 1,
            "batchramp": _rust.__version__,
            "torch": torch.__version__,
            "device": "cpu",
            "cpu": ran["cpu"],
            "cpu_capability": ran["cpu_capability"],
            "traced_by": [],
            "planned_updates": 68,
            "updates_to_target": entry["extra_info"]["updates_to_target"],
            "misses": 0,
        }
    updates = found["batchramp: updates"]
    reached = updates["extra_info"]["updates_to_target"]
    assert updates["stats"]["data"] == reached
    assert updates["stats"]["rounds"] == len(reached) == 3
    assert all(0 < count <= 68 for count in reached)
    seconds = found["batchramp: train_seconds"]["stats"]
    assert seconds["rounds"] == 3
    assert seconds["min"] > 0
    assert found["batchramp: misses"]["stats"]["data"] == [1.0]


def test_a_seed_that_misses_counts_its_whole_budget(records):
    found = {entry["group"]: entry for entry in records(MISSES)}
    updates = found["batchramp: updates"]
    assert updates["stats"]["data"] == [68, 68, 68]
    assert updates["extra_info"]["updates_to_target"] == [None, None, None]
    assert found["batchramp: misses"]["stats"]["data"] == [4.0]
    assert found["batchramp: train_seconds"]["stats"]["min"] > 0


def test_with_benchmarks_disabled_one_seed_is_trained(pytester):
    pytester.makepyfile(RACE.format(target="metric >= 0.8", seeds=1, misses=0))
    pytester.runpytest_inprocess("--benchmark-disable").assert_outcomes(passed=1)


def test_updates_repeat_so_that_a_gate_on_them_holds(pytester):
    def regressions():
        gate = ("--benchmark-compare=0001", "--benchmark-compare-fail=median:5%")
        done = pytester.runpytest_inprocess(*gate)
        assert any("batchramp: updates': 2 tests" in line for line in done.outlines)
        # What the same machine says of the same seconds is left out: it may say anything.
        told = [line.split()[0] for line in done.errlines if "has failed" in line]
        return {name for name in told if not name.endswith("train_seconds")}

    narrow = """
from dataclasses import replace
from batchramp.workloads import find_workload
from batchramp.workloads.models import mlp
model = lambda: mlp(features=64, hidden=64, classes=10)
mine = replace(find_workload("digits"), name="mine", model=model)
"""
    own = pytester.makepyfile(own=narrow)
    pytester.makepyfile(
        """
def test_speed(time_to_accuracy):
    time_to_accuracy("own.py:mine", "constant", target="metric >= 0.8", epochs=2,
                     seeds=3, threads=1, set={"lr": 0.1, "batch_size": 16})
"""
    )
    pytester.runpytest_inprocess("--benchmark-autosave").assert_outcomes(passed=1)
    assert regressions() == set()
    own.write_text(narrow.replace("hidden=64", "hidden=1"))
    assert regressions() == {"test_speed:updates", "test_speed:misses"}


def test_two_races_of_one_test_are_told_apart(records):
    source = """
def test_both(time_to_accuracy):
    for schedule in ("constant", "constant-cosine"):
        time_to_accuracy("digits", schedule, target="metric >= 0.5", epochs=1, seeds=1,
                         threads=1, set={"lr": 0.1, "batch_size": 32})
"""
    found = records(source)
    assert [(entry["name"], entry["extra_info"]["schedule"]) for entry in found] == [
        *((f"test_both:{name}", "constant") for name in QUANTITIES),
        *((f"test_both:2:{name}", "constant-cosine") for name in QUANTITIES),
    ]


def test_what_cannot_be_asked_is_a_value_error(pytester):
    pytester.makepyfile("""
import pytest

GOOD = {"target": "metric >= 0.5", "epochs": 1, "seeds": 1}

@pytest.mark.parametrize(("changed", "told"), [
    ({"workload": "digit"}, "unknown workload 'digit'.*digits"),
    ({"schedule": "constnat"}, "unknown schedule 'constnat'.*constant"),
    ({"set": {"batch_size": 0}}, "batch_size must be .* at least 1, got 0"),
    ({"set": {"rl": 0.1}}, "'rl'.*lr"),
    ({"target": "metric > 0.5"}, "target must be"),
    ({"target": 0.5}, r"target must be of type str, got 0.5"),
    ({"epochs": 0}, "epochs must be above 0, got 0"),
    ({"seeds": 0}, "seeds must be at least 1, got 0"),
    ({"seeds": "3"}, "seeds must be of type int, got '3'"),
    ({"threads": 2.5}, "threads must be of type int"),
    ({"weight_decay": "x"}, r"panel\\[0\\].weight_decay must be of type float"),
    ({"thread": 1}, "unknown option 'thread'.*threads"),
    ({"data": "none"}, "data directory .*none must exist"),
    ({"device": "gpu"}, "unknown device 'gpu'"),
    ({"device": 3}, "device must be of type str, got 3"),
    ({"workload": 3}, "workload must be of type str, got 3"),
    ({"schedule": None}, "schedule must be of type str, got None"),
    ({"set": [1]}, r"set must map parameters' names to values, got \\[1\\]"),
    ({"set": {1: 2}}, "set must map parameters' names to values"),
    ({"set": {"lr": object()}}, "set must hold plain values"),
    ({"data": 3}, "data must be of type str, got 3"),
])
def test_refused(time_to_accuracy, changed, told):
    arguments = {"workload": "digits", "schedule": "constant", **GOOD, **changed}
    with pytest.raises(ValueError, match=told):
        time_to_accuracy(
            arguments.pop("workload"), arguments.pop("schedule"), **arguments
        )
""")
    done = pytester.runpytest_inprocess("--benchmark-disable")
    done.assert_outcomes(passed=21)


def test_a_trial_that_fails_is_an_error(pytester):
    pytester.makepyfile(
        own="""
from batchramp.workloads import Workload
from batchramp.workloads.digits import load
mine = Workload(name="mine", load=load, model=lambda: 1 / 0)
"""
    )
    pytester.makepyfile("""
import pytest

def test_failing(time_to_accuracy, capfd):
    with pytest.raises(RuntimeError) as raised:
        time_to_accuracy("own.py:mine", "constant", target="metric >= 0.5", epochs=1)
    told = "ZeroDivisionError: division by zero (own.py:3, in <lambda>)"
    assert str(raised.value) == "seed 0 failed: " + told
    (note,) = raised.value.__notes__
    assert note.startswith("Traceback")
    assert "lambda: 1 / 0" in note
    assert capfd.readouterr() == ("", "")
""")
    pytester.runpytest_inprocess().assert_outcomes(passed=1)


def test_without_pytest_benchmark_it_says_what_to_install(pytester):
    pytester.makepyfile("def test_speed(time_to_accuracy): pass")
    done = pytester.runpytest_inprocess("-p", "no:benchmark")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*time_to_accuracy needs pytest-benchmark*"])


def test_a_seed_that_diverges_does_not_look_fast(records):
    found = records(
        f"""
def test_one(time_to_accuracy):
    summary = time_to_accuracy("own.py:one", "constant", {SHORT})
    assert summary.misses == 2
""",
        own=SCALED,
    )
    seconds, updates, _ = (entry["stats"]["data"] for entry in found)
    assert updates == [82, 82]
    assert seconds[0] == seconds[1] > 0


def test_where_every_seed_diverges_there_is_nothing_to_count(records):
    found = records(
        f"""
import pytest

def test_all(time_to_accuracy):
    with pytest.raises(RuntimeError, match="every seed diverged.*misses"):
        time_to_accuracy("own.py:all", "constant", {SHORT})
    summary = time_to_accuracy(
        "own.py:all", "constant", quantities=("misses",), {SHORT}
    )
    assert summary.misses == 2
""",
        own=SCALED,
    )
    assert [(e["name"], e["stats"]["data"]) for e in found] == [
        ("test_all:2:misses", [3.0])
    ]


def test_quantities_choose_the_entries(records):
    found = records(f"""
import pytest

@pytest.mark.benchmark(group="mine")
def test_chosen(time_to_accuracy):
    wrong = (
        ("updates", "quantities must be some of .* got 'updates'"),
        (3, "quantities must be some of .* got 3"),
        ((), r"quantities must be some of .* got \\(\\)"),
        (("misses", "misses"), "each once, got"),
        (("update",), "unknown quantity 'update': did you mean updates?"),
        ((3,), "unknown quantity '3'"),
    )
    for quantities, told in wrong:
        with pytest.raises(ValueError, match=told):
            time_to_accuracy("digits", "constant", quantities=quantities, {SHORT})
    time_to_accuracy("digits", "constant", quantities=["updates", "misses"], {SHORT})
""")
    assert [(e["name"], e["group"]) for e in found] == [
        ("test_chosen:7:updates", "mine: updates"),
        ("test_chosen:7:misses", "mine: misses"),
    ]


MANY = f"""
import pytest

def test_plain():
    pass

def test_other(benchmark):
    benchmark(int)

@pytest.fixture
def race(time_to_accuracy):
    return time_to_accuracy

@pytest.mark.parametrize("schedule", ["constant", "constant-cosine"])
def test_race(race, schedule):
    race("digits", schedule, {SHORT})
"""


def test_a_race_is_a_benchmark_to_benchmark_only(records):
    found = records(MANY, "--benchmark-only", passed=3, skipped=1)
    assert len(found) == 1 + 2 * len(QUANTITIES)


def test_a_race_is_skipped_with_the_other_benchmarks(pytester):
    pytester.makepyfile(MANY)
    done = pytester.runpytest_inprocess("--benchmark-skip")
    done.assert_outcomes(passed=1, skipped=3)


def test_disabled_and_enabled_again_it_records(records):
    found = records(MANY, "--benchmark-disable", "--benchmark-enable", passed=4)
    assert len(found) == 1 + 2 * len(QUANTITIES)


def test_options_for_timed_functions_change_no_figure_and_are_not_claimed(records):
    found = records(
        REACHES,
        "--benchmark-cprofile=tottime",
        "--benchmark-cprofile-loops=2",
        "--benchmark-disable-gc",
        "--benchmark-warmup=on",
        "--benchmark-min-rounds=7",
        "--benchmark-timer=time.time",
        "--benchmark-calibration-precision=1",
    )
    assert [entry["stats"]["rounds"] for entry in found] == [3, 3, 1]
    for entry in found:
        assert "cprofile" not in entry
        assert not entry["options"]["disable_gc"]
        assert not entry["options"]["warmup"]
        assert entry["options"]["timer"] != "time"
    updates = found[1]
    assert updates["stats"]["data"] == updates["extra_info"]["updates_to_target"]


@pytest.mark.parametrize("group_by", ["func", "param", "param:schedule", "fullfunc"])
def test_quantities_never_share_a_table(pytester, group_by):
    pytester.makepyfile(MANY)
    done = pytester.runpytest_inprocess(
        f"--benchmark-group-by={group_by}", "-k", "race", "--benchmark-columns=median"
    )
    done.assert_outcomes(passed=2, deselected=2)
    tables = "\n".join(done.outlines).split(" benchmark '")[1:]
    per_quantity = 1 if "func" in group_by else 2
    assert len(tables) == per_quantity * len(QUANTITIES)
    for table in tables:
        rows = [line.split()[0] for line in table.splitlines() if "test_race[" in line]
        assert len(rows) == 2 / per_quantity
        assert len({row.rpartition(":")[2] for row in rows}) == 1


def test_a_relative_file_lies_beside_the_test(pytester):
    folder = pytester.mkdir("deep")
    (folder / "own.py").write_text(SCALED)
    (folder / "test_deep.py").write_text(f"""
def test_one(time_to_accuracy):
    time_to_accuracy("own.py:one", "constant", {SHORT})
""")
    pytester.runpytest_inprocess("--benchmark-disable").assert_outcomes(passed=1)


WATCHED = f"""
import sys
import pytest

def watch(*_):
    return watch

@pytest.fixture
def watched():
    before = sys.gettrace(), sys.getprofile()
    sys.settrace(watch)
    sys.setprofile(watch)
    yield
    sys.settrace(before[0])
    sys.setprofile(before[1])

@pytest.mark.parametrize("name", ["mine", "broken"])
def test_race(time_to_accuracy, watched, name):
    try:
        time_to_accuracy(f"own.py:{{name}}", "constant", {SHORT})
    except RuntimeError as error:
        assert name == "broken"
        assert "seed 0 failed: ZeroDivisionError: division by zero" in str(error)
    assert (sys.gettrace(), sys.getprofile()) == (watch, watch)

def test_who_watched():
    from pathlib import Path
    seen = Path(__file__).with_name("seen").read_text().split()
    assert set(seen) == {{SEEN}}
"""


@pytest.mark.parametrize(
    ("option", "seen"),
    [("--benchmark-enable", "None"), ("--benchmark-disable", "watch")],
)
def test_tracers_pause_while_seconds_are_recorded(pytester, option, seen):
    pytester.makepyfile(
        own="""
import sys
from dataclasses import replace
from pathlib import Path
from batchramp.workloads import find_workload

digits = find_workload("digits")

def loss(outputs, targets):
    watchers = sys.gettrace(), sys.getprofile()
    names = (getattr(watcher, "__name__", "None") for watcher in watchers)
    with Path(__file__).with_name("seen").open("a") as file:
        file.write(" ".join(names) + " ")
    return digits.loss(outputs, targets)

def fail():
    return 1 / 0

mine = replace(digits, name="mine", loss=loss)
broken = replace(digits, name="broken", model=fail)
"""
    )
    pytester.makepyfile(WATCHED.replace("{SEEN}", f'{{"{seen}"}}'))
    pytester.runpytest_inprocess(option).assert_outcomes(passed=3)


def test_a_race_that_was_never_asked_for_is_warned_of(pytester):
    pytester.makepyfile(f"""
import pytest

def test_unused(time_to_accuracy):
    pass

def test_used(time_to_accuracy):
    with pytest.raises(ValueError):
        time_to_accuracy("digit", "constant", {SHORT})
""")
    done = pytester.runpytest_inprocess("-W", "error", "--benchmark-disable")
    done.assert_outcomes(passed=2, errors=1)
    done.stdout.fnmatch_lines(["*ERROR at teardown of test_unused*"])


def test_a_comparison_with_another_question_is_warned_of(pytester):
    def warnings():
        done = pytester.runpytest_inprocess("--benchmark-compare=0001", "-Wdefault")
        assert done.ret == 0
        return [line for line in done.outlines if "another question" in line]

    path = pytester.makepyfile(REACHES)
    pytester.runpytest_inprocess("--benchmark-autosave").assert_outcomes(passed=1)
    assert warnings() == []
    path.write_text(
        REACHES.replace(">= 0.8", ">= 0.7").replace('"lr": 0.1', '"lr": 0.2')
    )
    (told,) = warnings()
    assert 'target "metric >= 0.8" there, "metric >= 0.7" here' in told
    assert '"lr": 0.1' in told
    assert '"lr": 0.2' in told
    assert "seeds" not in told


def test_xdist_trains_one_seed_and_says_so(pytester):
    pytest.importorskip("xdist")
    pytester.makepyfile(RACE.format(target="metric >= 0.8", seeds=1, misses=0))
    done = pytester.runpytest_subprocess("-n2")
    done.assert_outcomes(passed=1)
    done.stderr.fnmatch_lines(["*Benchmarks are automatically disabled because xdist*"])


def test_codspeed_selects_a_race_and_says_that_it_records_nothing(pytester):
    pytest.importorskip("pytest_codspeed")
    pytester.makepyfile(MANY)
    done = pytester.runpytest_subprocess("--codspeed", "-k", "race")
    done.assert_outcomes(passed=3, deselected=1, warnings=2)
    done.stdout.fnmatch_lines(["*CodSpeed cannot read the train clock*"])


def test_the_documented_lines_gate(pytester):
    text = (Path(__file__).parents[1] / "docs" / "pytest.md").read_text()
    (source,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    first, both = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    learning, speed = both.splitlines()
    (pytester.mkdir("tests") / "test_documented.py").write_text(source)

    def type_in(line, passed):
        command, *arguments = shlex.split(line)
        assert command == "pytest"
        done = pytester.runpytest_inprocess(*arguments)
        assert done.parseoutcomes()["passed"] == passed
        return done

    type_in(first, 2)
    assert type_in(learning, 1).ret == 0
    # What the seconds say is the machine's affair; that they are compared is ours.
    lines = type_in(speed, 1).outlines
    assert any("train_seconds': 2 tests" in line for line in lines)
    assert any("misses': 2 tests" in line for line in lines)
