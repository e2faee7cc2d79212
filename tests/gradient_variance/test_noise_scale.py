"""The noise scale: exact expectations, its interval by simulation, ranks, and state."""

import itertools
import json
import math

import numpy as np
import pytest
import torch

from batchramp.gradient_variance import NoiseScale


def truth(gradients):
    return gradients.var(0).sum().item(), gradients.mean(0).square().sum().item()


@pytest.mark.parametrize(("count", "size"), [(2, 1), (3, 1), (2, 2), (2, 3)])
def test_micro_batches_are_unbiased_without_replacement(count, size):
    # The exact expectation: every draw of a small set, each as likely as any other.
    gradients = torch.randn(6, 3, generator=torch.manual_seed(4), dtype=torch.float64)
    estimates = []
    for drawn in itertools.permutations(range(6), count * size):
        means = gradients[list(drawn)].reshape(count, size, 3).mean(1)
        noise = NoiseScale(num_samples=6)
        squares = means.square().sum().item()
        noise.update_micro_batches(
            count, size, squares, means.mean(0).square().sum().item()
        )
        estimates.append((noise.trace(), noise.squared_norm()))
    assert np.mean(estimates, axis=0) == pytest.approx(truth(gradients))


@pytest.mark.parametrize(("small", "large"), [(1, 2), (2, 5), (1, 6)])
def test_two_sizes_are_unbiased_without_replacement(small, large):
    gradients = torch.randn(6, 3, generator=torch.manual_seed(5), dtype=torch.float64)

    def average(size):
        subsets = itertools.combinations(range(6), size)
        norms = [gradients[list(s)].mean(0).square().sum().item() for s in subsets]
        return sum(norms) / len(norms)

    noise = NoiseScale(num_samples=6)
    # Linear in the squared norms, so their expectations give the estimate's.
    noise.update_two_sizes(small, average(small), large, average(large))
    assert (noise.trace(), noise.squared_norm()) == pytest.approx(truth(gradients))


def test_the_noise_scale_is_a_ratio_of_debiased_averages():
    noise = NoiseScale(None, decay=0.9)
    assert math.isnan(noise.noise_scale())
    pairs = [(2.0, 1.0), (4.0, 3.0), (9.0, 2.0)]
    for at_small, at_large in pairs:
        noise.update_two_sizes(1, at_small, 2, at_large)
    # At sizes 1 and 2: trace = 2 (small - large), squared norm = 2 large - small.
    weights = np.array([0.81, 0.9, 1.0]) / 2.71
    trace = weights @ [2 * (a - b) for a, b in pairs]
    squared = weights @ [2 * b - a for a, b in pairs]
    assert noise.trace() == pytest.approx(trace)
    assert noise.squared_norm() == pytest.approx(squared)
    assert noise.count == 3
    assert noise.noise_scale() == (
        pytest.approx(trace / squared) if squared > 0 else math.inf
    )


def test_without_a_signal_the_noise_scale_is_infinite():
    noise = NoiseScale(None)
    noise.update_two_sizes(1, 4.0, 2, 1.0)
    assert noise.squared_norm() < 0
    assert noise.noise_scale() == math.inf


def test_the_noise_scale_resumes():
    noise, again = NoiseScale(100, 0.5), NoiseScale(100, 0.5)
    noise.update_micro_batches(2, 4, 3.0, 1.0)
    again.load_state_dict(json.loads(json.dumps(noise.state_dict())))
    for each in (noise, again):
        each.update_micro_batches(2, 4, 5.0, 2.0)
    assert again.state_dict() == noise.state_dict()
    with pytest.raises(ValueError, match="state's num_samples must be None"):
        NoiseScale(None, decay=0.5).load_state_dict(noise.state_dict())
    with pytest.raises(ValueError, match="state must have the keys"):
        noise.load_state_dict({"count": 1})


def test_bad_noise_is_refused():
    with pytest.raises(ValueError, match="decay must be"):
        NoiseScale(None, decay=1.0)
    with pytest.raises(ValueError, match="num_samples must be"):
        NoiseScale(0)
    with pytest.raises(ValueError, match=r"count \* batch_size must be at most 10"):
        NoiseScale(10).update_micro_batches(3, 4, 1.0, 1.0)


def test_a_data_set_is_asked_for():
    with pytest.warns(
        UserWarning, match=r"NoiseScale\(num_samples=len\(dataset\)\)"
    ) as told:
        noise = NoiseScale(decay=0.5)
    assert told[0].filename == __file__
    # It is the endless stream that the warning says.
    for each in (noise, stream := NoiseScale(num_samples=None, decay=0.5)):
        each.update_micro_batches(2, 4, 3.0, 1.0)
    assert noise.state_dict() == stream.state_dict()


def test_a_data_set_that_is_not_said_biases_and_one_that_is_does_not():
    rng = np.random.default_rng(1)
    gradients = rng.normal(size=(300, 10)) + 0.3
    trace, signal = gradients.var(0, ddof=1).sum(), (gradients.mean(0) ** 2).sum()
    said, stream = NoiseScale(300, decay=0.999), NoiseScale(None, decay=0.999)
    for _ in range(3000):
        rows = gradients[rng.choice(300, 128, replace=False)]
        means = rows.reshape(4, 32, 10).mean(1)
        for noise in (said, stream):
            squared = float((means.mean(0) ** 2).sum())
            noise.update_micro_batches(4, 32, float((means**2).sum()), squared)
    low, high = said.interval()
    assert low <= trace / signal <= high
    assert not stream.interval()[0] <= trace / signal <= stream.interval()[1]
    # By just what the documentation says.
    off = said.squared_norm() - stream.squared_norm()
    assert off == pytest.approx(said.trace() / 300)


def noisy_quadratic(updates, count, size, *, signal=1.0, seed=0):
    """Norms of a quadratic's stochastic gradients, and the truth about them.

    The loss of sample i is x.A.x / 2 - e_i.x with e_i normal, of deviations s: its
    gradient at x is A x - e_i, so that tr(Sigma) = |s|^2 and G = A x.
    """
    rng = np.random.default_rng(seed)
    deviations = np.arange(1, 21) ** -0.5
    gradient = np.full(20, math.sqrt(signal / 20))
    noise = rng.normal(size=(updates, count, 20)) * deviations / math.sqrt(size)
    gradients = gradient + noise
    norms = zip(
        (gradients**2).sum((1, 2)).tolist(),
        (gradients.mean(1) ** 2).sum(1).tolist(),
        strict=True,
    )
    return norms, float(deviations @ deviations), signal


def test_a_noisy_quadratics_truth_is_met_within_a_percent():
    norms, trace, signal = noisy_quadratic(20_000, 4, 8)
    by_parts, by_sizes = NoiseScale(None, decay=0.9999), NoiseScale(None, decay=0.9999)
    for total, mean in norms:
        by_parts.update_micro_batches(4, 8, total, mean)
        by_sizes.update_two_sizes(8, total / 4, 32, mean)
    for noise in (by_parts, by_sizes):
        assert noise.trace() == pytest.approx(trace, rel=0.01)
        assert noise.squared_norm() == pytest.approx(signal, rel=0.01)
        assert noise.noise_scale() == pytest.approx(trace / signal, rel=0.01)


def test_a_finite_sets_truth_is_met_within_a_percent():
    rng = np.random.default_rng(1)
    gradients = rng.normal(size=(300, 10)) + 0.3
    full = gradients.mean(0)
    noise = NoiseScale(num_samples=300, decay=0.9999)
    for _ in range(20_000):
        means = (
            gradients[rng.choice(300, 128, replace=False)].reshape(4, 32, 10).mean(1)
        )
        mean = means.mean(0)
        noise.update_micro_batches(4, 32, float((means**2).sum()), float(mean @ mean))
    assert noise.trace() == pytest.approx(gradients.var(0, ddof=1).sum(), rel=0.01)
    assert noise.squared_norm() == pytest.approx(full @ full, rel=0.01)


@pytest.mark.parametrize(("updates", "decay"), [(12, 0.9), (80, 0.9), (40, 0.99)])
@pytest.mark.parametrize("signal", [1.0, 0.1, 0.0])
def test_the_interval_covers_at_least_its_level(updates, decay, signal):
    trials, covered = 400, 0
    norms, trace, _ = noisy_quadratic(trials * updates, 4, 8, signal=signal, seed=2)
    truth = trace / signal if signal else math.inf
    for _ in range(trials):
        noise = NoiseScale(None, decay=decay)
        for total, mean in itertools.islice(norms, updates):
            noise.update_micro_batches(4, 8, total, mean)
        low, high = noise.interval(0.9)
        assert 0 <= low <= noise.noise_scale() <= high
        covered += low <= truth <= high
    assert covered / trials > 0.9 - 3 * math.sqrt(0.9 * 0.1 / trials)


def test_the_interval_narrows_and_says_where_it_knows_nothing():
    norms, trace, signal = noisy_quadratic(500, 4, 8)
    noise = NoiseScale(None, decay=0.99)
    assert noise.interval() == (0.0, math.inf)
    noise.update_micro_batches(4, 8, *next(norms))
    assert noise.interval() == (0.0, math.inf)
    for pair in norms:
        noise.update_micro_batches(4, 8, *pair)
    low, high = noise.interval(0.5)
    assert noise.interval(0.99)[0] < low < high < noise.interval(0.99)[1]
    assert high - low < 0.2 * trace / signal
    alone = NoiseScale(None, decay=0.0)
    for _ in range(3):
        alone.update_micro_batches(2, 1, 3.0, 1.0)
    assert alone.interval() == (0.0, math.inf)
    for level in (0, 1, -0.5):
        with pytest.raises(ValueError, match="level must be"):
            noise.interval(level)


def test_a_negative_signal_has_an_interval_without_an_upper_end():
    noise = NoiseScale(None)
    rng = np.random.default_rng(3)
    for wobble in rng.normal(size=60):
        noise.update_two_sizes(1, 4.0 + 0.01 * wobble, 2, 1.0 - 0.01 * wobble)
    assert noise.squared_norm() < 0
    low, high = noise.interval()
    assert low > 0
    assert high == math.inf


def test_a_negative_trace_has_a_noise_scale_of_zero():
    noise = NoiseScale(None)
    noise.update_two_sizes(1, 1.0, 2, 4.0)
    assert noise.trace() < 0 < noise.squared_norm()
    assert noise.noise_scale() == 0


def test_tensors_are_read_only_when_asked_for():
    unreadable = torch.ones((), device="meta")  # reading it raises
    noise = NoiseScale(None)
    for _ in range(NoiseScale.PENDING - 1):
        noise.update_micro_batches(4, 8, unreadable, unreadable)
    assert noise.count == NoiseScale.PENDING - 1
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        noise.trace()


def test_tensors_give_what_numbers_give():
    norms, _, _ = noisy_quadratic(NoiseScale.PENDING + 9, 4, 8)
    lazy, eager = NoiseScale(None), NoiseScale(None)
    for total, mean in norms:
        pair = torch.tensor([total, mean], dtype=torch.float64)
        lazy.update_micro_batches(4, 8, *pair)
        eager.update_micro_batches(4, 8, total, mean)
        assert lazy.count == eager.count
    assert lazy.state_dict() == eager.state_dict()
    assert lazy.interval() == eager.interval()
    with pytest.raises(ValueError, match="count must be at least 2"):
        lazy.update_micro_batches(1, 8, torch.tensor(1.0), 1.0)
    assert lazy.count == eager.count


def test_numbers_after_tensors_count_after_them():
    pairs = [(9.0, 1.0), (20.0, 1.0), (7.0, 2.0)]
    expected = NoiseScale(None, decay=0.5)
    for small, large in pairs:
        expected.update_two_sizes(1, small, 9, large)
    mixed = NoiseScale(None, decay=0.5)
    for index, (small, large) in enumerate(pairs):
        first = small if index == 1 else torch.tensor(small)
        mixed.update_two_sizes(1, first, 9, large)
    assert mixed.trace() == pytest.approx(expected.trace(), rel=1e-12)


def test_one_bad_tensor_loses_no_other_update():
    noise = NoiseScale(None)
    for norm in (9.0, -4.0, 9.0, 9.0):
        noise.update_two_sizes(1, torch.tensor(norm), 9, torch.tensor(1.0))
    with pytest.raises(ValueError, match="must not be negative"):
        noise.trace()
    assert noise.count == 3
    assert noise.trace() == pytest.approx(9.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n: n.update_two_sizes(1, torch.ones(3), 9, 1.0), r"shape \(\), got"),
        (lambda n: n.update_two_sizes(1, None, 9, 1.0), "must be a number, got None"),
        (lambda n: n.update_two_sizes(1, "a", 9, 1.0), "must be a number, got 'a'"),
        (lambda n: n.update_micro_batches(2, 1.5, 1.0, 1.0), "batch_size must be a"),
        (lambda n: n.interval("a"), "level must be a number, got 'a'"),
        (lambda n: NoiseScale(None, decay="x"), "decay must be a number, got 'x'"),
        (lambda n: n.load_state_dict(None), "state must have the keys"),
        (
            lambda n: n.load_state_dict(n.state_dict() | {"trace": None}),
            "state's trace",
        ),
        (
            lambda n: n.load_state_dict(n.state_dict() | {"trace_squares": -5.0}),
            "state's trace_squares must be at least 0",
        ),
    ],
)
def test_wrong_kinds_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(NoiseScale(None))
