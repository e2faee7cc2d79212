import itertools
import json

import numpy as np
import pytest

from batchramp.schedules import (
    Horizon,
    Progress,
    describe,
    load,
    make,
    names,
    plan,
    summaries,
)
from batchramp.user_code.loading import UserCode
from batchramp.values import shown

NAMES = [
    "constant",
    "constant-cosine",
    "constant-warmup",
    "umeda-constant",
    "umeda-increasing-batch",
    "umeda-increasing-both",
    "umeda-warmup",
    "smith-decay",
    "smith-increase",
    "smith-hybrid",
    "smith-initial-lr",
    "smith-momentum",
    "noise-scale",
]


def test_the_names_are_fixed():
    assert sorted(names()) == sorted(NAMES)
    assert list(summaries()) == list(names())
    assert all(line.endswith(".") and len(line) <= 85 for line in summaries().values())


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_complete_documented_and_make_the_same_again(name):
    schedule = make(name)
    values = schedule.parameters()
    assert json.loads(json.dumps(values)) == values
    assert make(name, **values) == schedule
    description = describe(name)
    assert {p.name: p.default for p in description.parameters} == values
    assert all(parameter.meaning for parameter in description.parameters)
    assert description.summary == summaries()[name]
    assert description.num_samples > 0


@pytest.mark.parametrize("name", NAMES)
def test_states_survive_json(name):
    schedule = make(name)
    horizon = Horizon.of(50_000, 300)
    state = schedule.init(horizon)
    restored = schedule.restore(json.loads(json.dumps(state)))
    assert restored == state
    progress = Progress(7_600_000, 200_000)
    assert schedule.decide(progress, None, restored) == schedule.decide(
        progress, None, state
    )


def test_the_papers_defaults():
    assert make("smith-momentum").parameters() == {
        "lr": 0.5,
        "batch_size": 3200,
        "max_batch_size": 5120,
        "momentum": 0.98,
        "factor": 5.0,
        "milestones": [0.3, 0.6, 0.8],
    }
    assert make("umeda-warmup").parameters() == {
        "lr": 0.1,
        "max_lr": 0.2,
        "decay": "constant",
        "batch_size": 8,
        "max_batch_size": 4096,
        "growth": 2.0,
        "interval": 0.1,
        "form": "geometric",
        "momentum": 0.0,
    }


def test_unknown_names_get_the_nearest():
    with pytest.raises(ValueError, match=r"smith-deacy.*smith-decay"):
        make("smith-deacy")
    with pytest.raises(ValueError, match=r"umeda-warmup.*'max_lrr'.*max_lr"):
        make("umeda-warmup", max_lrr=1)
    with pytest.raises(ValueError, match=r"decay 'cosin'.*cosine"):
        make("umeda-constant", decay="cosin")
    with pytest.raises(ValueError, match=r"form 'affin'.*affine"):
        make("umeda-warmup", form="affin")


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        ("constant", "decay"),
        ("umeda-constant", "max_batch_size"),
        ("umeda-increasing-both", "decay"),
        ("umeda-warmup", "power"),
        ("smith-decay", "max_batch_size"),
        ("constant-warmup", "lr"),
        ("noise-scale", "growth"),
    ],
)
def test_parameters_that_mean_nothing_to_a_schedule_are_refused(name, parameter):
    with pytest.raises(ValueError, match=f"'{parameter}'"):
        make(name, **{parameter: 2})


BAD = {
    "lr": [float("nan"), float("inf"), 0, -0.1, True, "0.1", None, 10**400],
    "max_lr": [float("nan"), 0, 0.05, 10**9999],
    "lr_growth": [1, 0.5, float("inf"), "x"],
    "batch_size": [0, -1, 1.5, True, "8", None, float("nan"), float("inf"), 2**63 + 1],
    "max_batch_size": [0, 7, 8.5, True, 10**400, 1e300, np.inf, "9" * 10**5],
    "momentum": [1, -0.1, float("nan"), True, None, 10**9999],
    "growth": [1, 0.5, float("nan"), float("inf"), True, 10**400],
    "interval": [0, -1, 2, "3 weeks", "10 updates", None, "1e999 epochs", [[[[[]]]]]],
    "form": ["linear", 3, None, "x" * 10**5],
}


@pytest.mark.parametrize(
    ("parameter", "value"),
    [(parameter, value) for parameter, values in BAD.items() for value in values],
    ids=itertools.count(),
)
def test_values_are_checked_one_by_one(parameter, value):
    with pytest.raises(ValueError, match=f"^(unknown )?{parameter} ") as error:
        make("umeda-increasing-both", **{parameter: value})
    assert len(str(error.value)) < 300
    assert shown(value) in str(error.value)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("smith-decay", {"factor": 1}),
        ("smith-decay", {"factor": float("inf")}),
        ("smith-decay", {"milestones": 0.5}),
        ("smith-decay", {"milestones": "0.5"}),
        ("smith-decay", {"milestones": [60]}),
        ("umeda-constant", {"power": 0}),
        ("umeda-warmup", {"decay": "linear"}),
        ("constant-warmup", {"base_lr": 0}),
        ("constant-warmup", {"base_batch_size": 0}),
        ("constant-warmup", {"warmup": "-1 epochs"}),
    ],
)
def test_other_bad_values(name, parameters):
    (parameter,) = parameters
    with pytest.raises(ValueError, match=parameter):
        make(name, **parameters)


def test_whole_floats_are_whole_numbers():
    assert make("constant", batch_size=128.0).parameters()["batch_size"] == 128


OWN = '''
from dataclasses import dataclass
from batchramp.schedules import Mark, Schedule, Settings

@dataclass(frozen=True)
class Falling(Schedule):
    """Halves the batch in the middle."""
    batch_size: int = 8
    name = "falling"
    def parameters(self): return {"batch_size": self.batch_size}
    def init(self, horizon): return horizon.budget
    def decide(self, progress, evidence, state):
        late = 2 * progress.position >= state
        return Settings(self.batch_size // (2 if late else 1), 0.1, 0.0), state
    def events(self, horizon): return (Mark(position=-(-horizon.budget // 2)),)
    def restore(self, values): return values

class Impossible(Falling):
    evidence = frozenset({"micro_batches"})
    needs_total_updates = True

def factory(*, size): return Falling(size)
def broken(): return 3
instance = Falling(6)
number = 5
'''


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path


def test_a_schedule_of_ones_own(own):
    for spec, parameters in [
        ("own.py:Falling", {"batch_size": 6}),
        ("own.py:factory", {"size": 6}),
        ("own.py:instance", {}),
    ]:
        schedule = load(spec, UserCode(own), **parameters)
        laid = plan(schedule, num_samples=12, epochs=2, boundary="drop")
        assert [(s.start, s.batch_size) for s in laid.stages] == [(0, 6), (12, 3)]
    laid = plan(f"{own}/own.py:factory", num_samples=12, epochs=2, size=4)
    assert laid.updates == 3 + 6


@pytest.mark.parametrize(
    ("spec", "parameters", "message"),
    [
        ("none.py:x", {}, "none.py"),
        ("own.py:Faling", {}, "Falling"),
        ("own.py:Falling", {"batch_sise": 1}, "batch_size"),
        ("own.py:factory", {}, "size"),
        ("own.py:instance", {"batch_size": 1}, "class or factory"),
        ("own.py:broken", {}, "Schedule, got 3"),
        ("own.py:number", {}, "got 5"),
        ("own.py:Impossible", {}, "adaptive"),
    ],
)
def test_errors_of_ones_own(own, spec, parameters, message):
    with pytest.raises(ValueError, match=message):
        load(spec, UserCode(own), **parameters)


def test_ones_own_has_no_default_size(own):
    with pytest.raises(ValueError, match="num_samples must be given"):
        plan(load("own.py:instance", UserCode(own)), epochs=2)
