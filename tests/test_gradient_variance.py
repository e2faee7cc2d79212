"""The noise scale against exact expectations."""

import itertools
import json
import math

import numpy as np
import pytest
import torch

from batchramp.gradient_variance import GradientVariance, NoiseScale


def test_the_scalar_path_equals_the_coordinates():
    torch.manual_seed(3)
    means = torch.randn(6, 40, dtype=torch.float64) + 1
    noise = NoiseScale()
    noise.update_micro_batches(
        6, 4, means.square().sum().item(), means.mean(0).square().sum().item()
    )
    trace = GradientVariance.from_stacked(means, 4, dtype="float64").trace()
    assert noise.trace == pytest.approx(trace)


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
        estimates.append((noise.trace, noise.squared_norm))
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
    assert (noise.trace, noise.squared_norm) == pytest.approx(truth(gradients))


def test_the_noise_scale_is_a_ratio_of_debiased_averages():
    noise = NoiseScale(decay=0.9)
    assert math.isnan(noise.noise_scale)
    pairs = [(2.0, 1.0), (4.0, 3.0), (9.0, 2.0)]
    for at_small, at_large in pairs:
        noise.update_two_sizes(1, at_small, 2, at_large)
    # At sizes 1 and 2: trace = 2 (small - large), squared norm = 2 large - small.
    weights = np.array([0.81, 0.9, 1.0]) / 2.71
    trace = weights @ [2 * (a - b) for a, b in pairs]
    squared = weights @ [2 * b - a for a, b in pairs]
    assert noise.trace == pytest.approx(trace)
    assert noise.squared_norm == pytest.approx(squared)
    assert noise.count == 3
    assert noise.noise_scale == (
        pytest.approx(trace / squared) if squared > 0 else math.inf
    )


def test_without_a_signal_the_noise_scale_is_infinite():
    noise = NoiseScale()
    noise.update_two_sizes(1, 4.0, 2, 1.0)
    assert noise.squared_norm < 0
    assert noise.noise_scale == math.inf


def test_the_noise_scale_resumes():
    noise, again = NoiseScale(100, 0.5), NoiseScale(100, 0.5)
    noise.update_micro_batches(2, 4, 3.0, 1.0)
    again.load_state_dict(json.loads(json.dumps(noise.state_dict())))
    for each in (noise, again):
        each.update_micro_batches(2, 4, 5.0, 2.0)
    assert again.state_dict() == noise.state_dict()
    with pytest.raises(ValueError, match="state's num_samples must be None"):
        NoiseScale(decay=0.5).load_state_dict(noise.state_dict())
    with pytest.raises(ValueError, match="state must have the keys"):
        noise.load_state_dict({"count": 1})


def test_bad_noise_is_refused():
    with pytest.raises(ValueError, match="decay must be"):
        NoiseScale(decay=1.0)
    with pytest.raises(ValueError, match="num_samples must be"):
        NoiseScale(0)
    with pytest.raises(ValueError, match=r"count \* batch_size must be at most 10"):
        NoiseScale(10).update_micro_batches(3, 4, 1.0, 1.0)
    noise = NoiseScale()
    noise.update_micro_batches(2, 1, math.nan, 1.0)
    assert math.isnan(noise.noise_scale)
