import math

import pytest

from batchramp.schedules import Horizon, Progress, make, plan

N, EPOCHS = 1000, 30
BUDGET = N * EPOCHS


def rate(schedule, position, update, total_updates=700):
    horizon = Horizon(num_samples=N, budget=BUDGET, total_updates=total_updates)
    progress = Progress(position, update)
    return schedule.decide(progress, None, schedule.init(horizon))[0].lr


PLACES = [(0, 0), (1, 1), (999, 20), (1000, 21), (15_500, 350), (29_999, 699)]


@pytest.mark.parametrize(("position", "update"), PLACES)
@pytest.mark.parametrize(
    ("decay", "formula"),
    [
        ("constant", lambda _e, _t: 0.3),
        ("diminishing", lambda _, t: 0.3 / math.sqrt(t + 1)),
        ("cosine", lambda e, _: 0.3 * 0.5 * (1 + math.cos(math.pi * e / EPOCHS))),
        ("linear", lambda _, t: 0.3 * (1 - t / 700)),
        ("polynomial", lambda _, t: 0.3 * (1 - t / 700) ** 2),
    ],
)
@pytest.mark.parametrize("name", ["umeda-constant", "umeda-increasing-batch"])
def test_decays(name, decay, formula, position, update):
    sizes = {} if name == "umeda-constant" else {"max_batch_size": 512}
    schedule = make(name, lr=0.3, decay=decay, **sizes)
    expected = formula(position // N, update)
    assert rate(schedule, position, update) == pytest.approx(expected, rel=1e-14)


def test_a_power_of_ones_own():
    schedule = make("umeda-constant", lr=0.3, decay="polynomial", power=0.9)
    assert rate(schedule, 0, 70) == pytest.approx(0.3 * 0.9**0.9, rel=1e-14)


@pytest.mark.parametrize("decay", ["linear", "polynomial"])
def test_the_rate_is_the_initial_one_while_the_total_is_not_known(decay):
    schedule = make("umeda-constant", decay=decay)
    assert schedule.needs_total_updates
    assert rate(schedule, 500, 300, total_updates=None) == 0.1


@pytest.mark.parametrize("decay", ["constant", "diminishing", "cosine"])
def test_other_decays_need_no_total(decay):
    assert not make("umeda-constant", decay=decay).needs_total_updates


@pytest.mark.parametrize(("max_lr", "gamma"), [(0.2, 1.080), (0.5, 1.196), (1, 1.292)])
def test_the_growing_rate_has_the_papers_factors(max_lr, gamma):
    laid = plan("umeda-increasing-both", max_lr=max_lr)
    rates = [stage.lr for stage in laid.stages]
    assert len(rates) == 10
    for k, lr in enumerate(rates):
        assert lr == pytest.approx(0.1 * (max_lr / 0.1) ** (k / 9), rel=1e-14)
    assert rates[-1] == max_lr
    assert rates[1] / rates[0] == pytest.approx(gamma, abs=5e-4)


@pytest.mark.parametrize("gamma", [1.5, 1.9, 1e40])
def test_the_affine_growing_rate(gamma):
    laid = plan("umeda-increasing-both", max_lr=0.2, lr_growth=gamma)
    a = (0.2 - 0.1) / (gamma ** (300 / 30 - 1) - 1) if gamma < 9 else 0.0
    for k, stage in enumerate(laid.stages):
        expected = a * gamma**k + 0.1 - a if gamma < 9 else 0.1 + 0.1 * (k == 9)
        assert stage.lr == pytest.approx(expected, rel=1e-13)


def test_warm_up_takes_ten_steps_and_then_holds():
    laid = plan("umeda-warmup", max_lr=1.0)
    for j in range(10):
        lr = laid.settings_at(150_000 * j).lr
        assert lr == pytest.approx(0.1 * 10 ** (j / 9), rel=1e-14)
        assert laid.settings_at(150_000 * j + 149_999).lr == lr
    assert {stage.lr for stage in laid.stages if stage.start >= 1_350_000} == {1.0}
    assert [stage.batch_size for stage in laid.stages] == [8] * 10 + [
        8 * 2**k for k in range(1, 10)
    ]


def test_warm_up_then_cosine_by_whole_passes():
    laid = plan("umeda-warmup", max_lr=0.5, decay="cosine")
    assert laid.settings_at(1_499_999).lr == 0.5
    for epoch in (30, 31, 100, 299):
        expected = 0.5 * 0.5 * (1 + math.cos(math.pi * (epoch - 30) / 270))
        for offset in (0, 25_000):
            lr = laid.settings_at(epoch * 50_000 + offset).lr
            assert lr == pytest.approx(expected, rel=1e-12)


def test_constant_cosine_follows_position():
    schedule = make("constant-cosine", lr=0.3)
    for position, update in PLACES:
        expected = 0.3 * 0.5 * (1 + math.cos(math.pi * position / BUDGET))
        assert rate(schedule, position, update) == pytest.approx(expected, rel=1e-14)


def test_goyals_warm_up():
    laid = plan("constant-warmup")
    end = 5 * 1_281_167
    warm, held = laid.stages
    assert warm.lr == 0.1
    assert held.lr == held.lr_end == pytest.approx(0.1 * 8192 / 256)
    assert warm.lr_end < held.lr
    assert held.start >= end
    first = (held.start - warm.start) // 2 // 8192 * 8192
    middle = laid.settings_at(first)
    assert 0.1 < middle.lr < 3.2
    schedule = make("constant-warmup", warmup="500 updates", batch_size=512)
    assert rate(schedule, 0, 250) == pytest.approx(0.15)
    assert rate(schedule, 0, 500) == 0.2
    schedule = make("constant-warmup", warmup=0, batch_size=512)
    assert rate(schedule, 0, 0) == 0.2


def test_rates_of_stages_are_those_of_their_first_and_last_updates():
    laid = plan("umeda-increasing-batch", decay="linear")
    total = laid.updates
    first = 0
    for stage in laid.stages:
        assert stage.lr == pytest.approx(0.1 * (1 - first / total), rel=1e-14)
        first += stage.updates
        assert stage.lr_end == pytest.approx(0.1 * (1 - (first - 1) / total), rel=1e-12)
