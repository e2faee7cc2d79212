import json

import pytest

# Its runs unload what they import, and torch cannot be loaded twice in a process.
import batchramp.benchmark.single_race  # noqa: F401

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
QUANTITIES = ["train_seconds", "updates", "misses"]


@pytest.fixture(autouse=True)
def only_our_plugins(pytester):
    # Hypothesis is loaded anew at the end of every inner run, which takes a second.
    pytester.makeini("[pytest]\naddopts = -p no:hypothesispytest")


@pytest.fixture
def records(pytester):
    """Runs a test that passes; returns the entries of pytest-benchmark's JSON."""

    def run(source):
        pytester.makepyfile(source)
        path = pytester.path / "records.json"
        done = pytester.runpytest_inprocess(f"--benchmark-json={path}")
        done.assert_outcomes(passed=1)
        return json.loads(path.read_text())["benchmarks"]

    return run


def test_a_race_is_three_entries_in_groups_of_their_own(records):
    found = {
        entry["group"]: entry
        for entry in records(RACE.format(target="metric >= 0.8", seeds=3, misses=0))
    }
    assert sorted(found) == sorted(f"batchramp: {name}" for name in QUANTITIES)
    for quantity in QUANTITIES:
        entry = found[f"batchramp: {quantity}"]
        assert entry["name"] == f"test_speed:{quantity}"
        assert entry["fullname"].endswith(f"::test_speed:{quantity}")
        assert entry["extra_info"] == {
            "workload": "digits",
            "schedule": "smith-increase",
            "set": {"lr": 0.1, "batch_size": 16, "max_batch_size": 128},
            "target": "metric >= 0.8",
            "epochs": 2,
            "cadence": 0.25,
            "threads": 1,
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
    found = {
        entry["group"]: entry
        for entry in records(RACE.format(target="metric >= 1.5", seeds=3, misses=3))
    }
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

    race = RACE.format(target="metric >= 0.8", seeds=3, misses=0)
    path = pytester.makepyfile(race)
    pytester.runpytest_inprocess("--benchmark-autosave").assert_outcomes(passed=1)
    assert regressions() == set()
    path.write_text(
        race.replace(">= 0.8", ">= 1.5").replace("misses == 0", "misses == 3")
    )
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
    ({"target": 0.5}, r"targets\\[0\\] must be of type str, got 0.5"),
    ({"epochs": 0}, "epochs must be above 0, got 0"),
    ({"seeds": 0}, "seeds must be at least 1, got 0"),
    ({"seeds": "3"}, "seeds must be of type int, got '3'"),
    ({"threads": 2.5}, "threads must be of type int"),
    ({"weight_decay": "x"}, r"panel\\[0\\].weight_decay must be of type float"),
    ({"thread": 1}, "unknown option 'thread'.*threads"),
    ({"data": "none"}, "data directory none must exist"),
    ({"device": "gpu"}, "unknown device 'gpu'"),
])
def test_refused(time_to_accuracy, changed, told):
    arguments = {"workload": "digits", "schedule": "constant", **GOOD, **changed}
    with pytest.raises(ValueError, match=told):
        time_to_accuracy(
            arguments.pop("workload"), arguments.pop("schedule"), **arguments
        )
""")
    done = pytester.runpytest_inprocess("--benchmark-disable")
    done.assert_outcomes(passed=14)


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

def test_failing(time_to_accuracy):
    with pytest.raises(RuntimeError, match="seed 0 failed: ZeroDivisionError"):
        time_to_accuracy("own.py:mine", "constant", target="metric >= 0.5", epochs=1)
""")
    pytester.runpytest_inprocess().assert_outcomes(passed=1)


def test_without_pytest_benchmark_it_says_what_to_install(pytester):
    pytester.makepyfile("def test_speed(time_to_accuracy): pass")
    done = pytester.runpytest_inprocess("-p", "no:benchmark")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*time_to_accuracy needs pytest-benchmark*"])
