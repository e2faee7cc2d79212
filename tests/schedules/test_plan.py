import json
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batchramp.schedules import (
    Horizon,
    Mark,
    Progress,
    Schedule,
    Settings,
    make,
    plan,
)

# Updates of 200 (Smith) and 300 (Umeda) passes over 50,000 samples: wrap, keep, drop.
UPDATES = [
    ("smith-decay", {}, 78_125, 78_200, 78_000),
    ("smith-increase", {}, 29_142, 29_240, 29_040),
    ("smith-initial-lr", {}, 6_407, 6_500, 6_300),
    ("smith-momentum", {}, 2_305, 2_360, 2_160),
    ("smith-hybrid", {}, 34_376, 34_520, 34_320),
    ("umeda-constant", {}, 117_188, 117_300, 117_000),
    ("umeda-increasing-batch", {}, 374_636, 374_760, 374_520),
    (
        "umeda-increasing-batch",
        {"growth": 3, "form": "affine"},
        710_810,
        710_910,
        710_700,
    ),
    (
        "umeda-increasing-batch",
        {"growth": 4, "form": "affine"},
        903_340,
        903_480,
        903_210,
    ),
]


@pytest.mark.parametrize(("name", "parameters", "wrap", "keep", "drop"), UPDATES)
def test_published_numbers_of_updates(name, parameters, wrap, keep, drop):
    counts = {
        boundary: plan(name, boundary=boundary, **parameters).updates
        for boundary in ("wrap", "keep", "drop")
    }
    assert counts == {"wrap": wrap, "keep": keep, "drop": drop}


def test_plain_growth_by_three_is_not_the_papers():
    assert plan("umeda-increasing-batch", growth=3).updates == 282_510


@pytest.mark.parametrize("decay", ["diminishing", "cosine", "linear", "polynomial"])
def test_the_rate_does_not_change_the_batches(decay):
    plain, shaped = (
        plan("umeda-increasing-batch", decay=shape) for shape in ("constant", decay)
    )
    assert shaped.runs == plain.runs
    assert shaped.updates == plain.updates == shaped.horizon.total_updates
    assert shaped.fingerprint != plain.fingerprint


def walk(schedule, horizon):
    """Every batch, one by one: (start, true size, settings), and where decided."""
    n, position, update, batches = horizon.num_samples, 0, 0, []
    state = schedule.init(horizon)
    while position < horizon.budget:
        decided, _ = schedule.decide(Progress(position, update), None, state)
        size, rest = decided.batch_size, n - position % n
        if horizon.boundary == "drop" and size > rest:
            position += rest
            continue
        true = min(size, rest) if horizon.boundary == "keep" else size
        batches.append((position, true, decided))
        position += true
        update += 1
    return batches


def check_against_walk(laid):
    schedule, horizon = laid.schedule, laid.horizon
    batches = walk(schedule, horizon)
    assert laid.updates == len(batches) == sum(stage.updates for stage in laid.stages)
    assert laid.samples == sum(true for _, true, _ in batches)

    first = 0
    for stage in laid.stages:
        held = batches[first : first + stage.updates]
        assert held[0][0] == stage.start
        assert held[0][2] == (stage.batch_size, stage.lr, stage.momentum)
        assert held[-1][2].lr == stage.lr_end
        for _, _, decided in held:
            assert decided[::2] == (stage.batch_size, stage.momentum)
        first += stage.updates

    for update, (_, _, decided) in enumerate(batches):
        assert laid.settings_of(update) == decided

    holder = {
        position: decided
        for start, true, decided in batches
        for position in range(start, start + true)
    }
    starts = [start for start, _, _ in batches]
    for position in range(horizon.budget):
        if position in holder:
            expected = holder[position]
        else:
            assert horizon.boundary == "drop"
            later = [i for i, start in enumerate(starts) if start > position]
            expected = batches[later[0] if later else -1][2]
        assert laid.settings_at(position) == expected

    # A sampler that knows the runs alone cuts the same batches.
    n, position, cut = horizon.num_samples, 0, []
    while position < horizon.budget:
        size = [size for start, size in laid.runs if start <= position][-1]
        rest = n - position % n
        if horizon.boundary == "drop" and size > rest:
            position += rest
            continue
        true = min(size, rest) if horizon.boundary == "keep" else size
        cut.append((position, true))
        position += true
    assert cut == [(start, true) for start, true, _ in batches]


durations = st.one_of(
    st.decimals("0.001", 1, places=3).map(float),
    st.decimals("0.01", 7, places=2).map(lambda x: f"{x} epochs"),
    st.integers(1, 300).map(lambda x: f"{x} samples"),
)
milestones = st.lists(
    st.integers(1, 250).map(lambda x: f"{x} samples"), max_size=3, unique=True
).map(lambda x: sorted(x, key=lambda text: int(text.split()[0])))
update_milestones = st.lists(st.integers(1, 60), max_size=3, unique=True).map(
    lambda x: [f"{update} updates" for update in sorted(x)]
)


@st.composite
def named_plans(draw):
    n = draw(st.integers(8, 60))
    sizes = {
        "batch_size": draw(st.integers(1, 8)),
        "max_batch_size": draw(st.integers(8, n)),
    }
    rates = {
        "lr": 0.1,
        "max_lr": draw(st.floats(0.1, 1)),
    }
    growth = {
        "growth": draw(st.decimals("1.1", 4, places=1).map(float)),
        "interval": draw(durations),
        "form": draw(st.sampled_from(["geometric", "affine"])),
    }
    decay = draw(
        st.sampled_from(["constant", "diminishing", "cosine", "linear", "polynomial"])
    )
    events = {
        "milestones": draw(milestones) + draw(update_milestones),
        "factor": draw(st.decimals("1.1", 6, places=1).map(float)),
    }
    size = {"batch_size": sizes["batch_size"]}
    name, parameters = draw(
        st.sampled_from(
            [
                ("constant", size),
                ("constant-cosine", size),
                ("constant-warmup", {**size, "warmup": draw(durations)}),
                ("umeda-constant", {**size, "decay": decay}),
                ("umeda-increasing-batch", {**sizes, **growth, "decay": decay}),
                ("umeda-increasing-both", {**sizes, **growth, **rates}),
                (
                    "umeda-warmup",
                    {
                        **sizes,
                        **growth,
                        **rates,
                        "decay": draw(st.sampled_from(["constant", "cosine"])),
                    },
                ),
                ("smith-decay", {**size, **events}),
                ("smith-increase", {**sizes, **events}),
                ("smith-hybrid", {**sizes, **events}),
                ("smith-momentum", {**sizes, **events}),
            ]
        )
    )
    return name, {
        **parameters,
        "num_samples": n,
        "epochs": draw(st.decimals("0.3", 5, places=2).map(str)),
        "boundary": draw(st.sampled_from(["keep", "drop", "wrap"])),
    }


@settings(max_examples=300)
@given(named_plans())
def test_every_plan_equals_a_walk_update_by_update(arguments):
    name, parameters = arguments
    try:
        laid = plan(name, **parameters)
    except ValueError as error:
        # An interval drawn shorter than a sample of a tiny budget.
        assert "interval must be at least one sample" in str(error)  # noqa: PT017
        return
    check_against_walk(laid)


@dataclass(frozen=True)
class Table(Schedule):
    """Sizes, up or down, by marks of either clock."""

    marks: tuple[tuple[bool, int], ...]
    sizes: tuple[int, ...]
    name = "table"

    def parameters(self):
        return {"marks": self.marks, "sizes": self.sizes}

    def init(self, horizon):
        return None

    def decide(self, progress, evidence, state):
        passed = sum(
            at <= (progress.update if in_updates else progress.position)
            for in_updates, at in self.marks
        )
        return Settings(self.sizes[passed], 0.1 * (1 + progress.position), 0.0), state

    def events(self, horizon):
        return tuple(
            Mark(update=at) if in_updates else Mark(position=at)
            for in_updates, at in self.marks
        )

    def restore(self, values):
        return values


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 100)), max_size=6),
    st.lists(st.integers(1, 20), min_size=7, max_size=7),
    st.integers(20, 40),
    st.sampled_from(["keep", "drop", "wrap"]),
)
@example([(False, 15)], [7, 4] + [1] * 5, 20, "drop")
@example([(False, 14)], [7, 4] + [1] * 5, 20, "drop")
@example([(True, 2)], [7, 4] + [1] * 5, 20, "drop")
@example([(False, 14), (False, 20)], [7, 9, 2] + [1] * 4, 20, "drop")
def test_sizes_may_move_either_way(marks, sizes, n, boundary):
    schedule = Table(tuple(marks), tuple(sizes))
    check_against_walk(plan(schedule, num_samples=n, epochs=4, boundary=boundary))


def test_positions_under_each_boundary():
    starts = {}
    for boundary in ("keep", "drop", "wrap"):
        laid = plan(
            "constant", num_samples=10, epochs=2, batch_size=4, boundary=boundary
        )
        starts[boundary] = [start for start, _, _ in walk(laid.schedule, laid.horizon)]
        assert laid.updates == len(starts[boundary])
        assert laid.samples == {"keep": 20, "drop": 16, "wrap": 20}[boundary]
    assert starts == {
        "keep": [0, 4, 8, 10, 14, 18],
        "drop": [0, 4, 10, 14],
        "wrap": [0, 4, 8, 12, 16],
    }


def test_the_last_batch_may_overshoot_the_budget():
    laid = plan("constant", num_samples=10, epochs="0.9", batch_size=6, boundary="wrap")
    assert (laid.horizon.budget, laid.updates, laid.samples) == (9, 2, 12)
    laid = plan("constant", num_samples=10, epochs="0.9", batch_size=6)
    assert (laid.updates, laid.samples) == (2, 10)


def test_events_declare_size_and_rate_steps():
    laid = plan("umeda-increasing-both", epochs=10, num_samples=5000)
    marks = laid.schedule.events(laid.horizon)
    assert marks == tuple(Mark(position=5000 * k) for k in range(1, 10))
    assert [stage.start for stage in laid.stages] == [5000 * k for k in range(10)]


def test_the_defaults_are_the_papers():
    laid = plan("umeda-constant")
    assert (laid.horizon.num_samples, laid.horizon.budget) == (50_000, 15_000_000)
    assert plan(make("smith-decay")).horizon.budget == 10_000_000
    assert plan("smith-decay", epochs=1).horizon.budget == 50_000


def test_numbers_may_be_written():
    laid = plan("smith-decay", num_samples="50021", epochs="0.3")
    assert laid == plan("smith-decay", num_samples=50_021, epochs=0.3)
    assert laid.horizon.budget == 15_006


def test_the_dict_is_json_and_names_what_the_command_prints():
    laid = plan("smith-increase")
    values = laid.to_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["updates"] == 29_240
    assert values["samples"] == 10_000_000
    assert values["stages"][3] == {
        "start": 8_000_000,
        "batch_size": 5120,
        "lr": pytest.approx(0.032),
        "lr_end": pytest.approx(0.032),
        "momentum": 0.9,
        "updates": 400,
    }
    assert laid.runs == tuple((s["start"], s["batch_size"]) for s in values["stages"])


def test_the_fingerprint_follows_what_was_laid():
    base = plan("smith-decay")
    assert plan("smith-decay").fingerprint == base.fingerprint
    others = [
        plan("smith-decay", lr=0.2),
        plan("smith-decay", boundary="drop"),
        plan("smith-decay", num_samples=50_001),
        plan("smith-decay", epochs=201),
    ]
    assert len({base.fingerprint, *(other.fingerprint for other in others)}) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "epochs must be positive"),
        ({"epochs": -1}, "epochs must be positive"),
        ({"epochs": float("nan")}, "epochs must be a finite decimal number, got nan"),
        ({"epochs": float("inf")}, "epochs must be a finite decimal number, got inf"),
        ({"epochs": "ten"}, "epochs must be a finite decimal number, got 'ten'"),
        ({"epochs": True}, "epochs must be a finite decimal number, got True"),
        ({"epochs": 1e-9}, "at least one of the 50000 samples"),
        ({"num_samples": 0}, "num_samples must be a whole number of at least 1, got 0"),
        ({"num_samples": 1.5}, "num_samples must be a whole number"),
        ({"num_samples": "many"}, "num_samples must be a finite decimal number"),
        ({"num_samples": "2.5"}, "num_samples must be a whole number"),
        ({"boundary": "kepp"}, "boundary 'kepp'.*keep"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        plan("constant", **arguments)


def test_sizes_above_the_number_of_samples_are_refused_once_reached():
    with pytest.raises(ValueError, match=r"^batch_size must be at most 100 .*got 128"):
        plan("constant", num_samples=100)
    with pytest.raises(
        ValueError, match=r"^max_batch_size must be at most 2000 .*3200"
    ):
        plan("smith-increase", num_samples=2000)
    with pytest.raises(ValueError, match="batch_size must be at most 2000"):
        plan("smith-increase", num_samples=2000, milestones=["9 updates", "99 updates"])
    # A maximum that is never reached is no fault.
    assert plan("umeda-increasing-batch", num_samples=1297, growth=1.5).updates > 0
    late = ["9 updates", "999999 updates"]
    assert plan("smith-increase", num_samples=2000, milestones=late).updates > 0


def test_a_position_has_63_bits():
    with pytest.raises(ValueError, match=r"epochs must reach at most 2\*\*63 samples"):
        plan("constant", epochs=10**15)
    with pytest.raises(ValueError, match=r"budget must be at most 2\*\*63, got"):
        Horizon(num_samples=3, budget=2**63 + 1)


@pytest.mark.parametrize("position", ["3", 3.5, True, None, [3], np.float64(3)])
def test_a_position_is_a_whole_number(position):
    laid = plan("constant", num_samples=500, epochs=2)
    with pytest.raises(ValueError, match=r"^position must be a whole number, got ."):
        laid.settings_at(position)
    assert laid.settings_at(np.int64(3)) == laid.settings_at(3)


@pytest.mark.parametrize("position", [-1, 1000, 5000, 10**400])
def test_settings_outside_the_plan(position):
    laid = plan("constant", num_samples=500, epochs=2)
    with pytest.raises(ValueError, match=r"below 1000 .*the budget"):
        laid.settings_at(position)
    with pytest.raises(ValueError, match=rf"update must be .* below {laid.updates} "):
        laid.settings_of(position)


def test_a_schedule_takes_no_parameters_besides():
    with pytest.raises(ValueError, match="must be a name to take parameters"):
        plan(make("constant"), lr=0.2)


class Undeclared(Table):
    def events(self, horizon):
        return ()


def test_undeclared_changes_are_found():
    schedule = Undeclared(((False, 10),), (2, 4))
    with pytest.raises(ValueError, match="must declare an event"):
        plan(schedule, num_samples=20, epochs=1)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [((0,), "got 0"), ((2.5,), "got 2.5"), ((21,), "at most 20"), ((None,), "None")],
)
def test_settings_of_ones_own_are_checked(sizes, message):
    with pytest.raises(ValueError, match=f"'table' at position 0: .*{message}"):
        plan(Table((), sizes), num_samples=20, epochs=1)
