"""What a look measures: against loops over single samples and dense Hessians."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd.functional import hessian
from torch.func import functional_call

from batchramp.training import measures, sharpness
from batchramp.training.measures import Subject, batch_mean, full_noise, measure
from batchramp.workloads import Split, Workload, find_workload

N = 23


def make_model():
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def make_convolutions():
    torch.manual_seed(5)
    image = nn.Unflatten(1, (1, 2, 2))
    return nn.Sequential(
        *(image, nn.Conv2d(1, 3, 2, padding=1), nn.Tanh(), nn.Conv2d(3, 2, 2)),
        *(nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)),
    ).double()


def make_train(samples=N):
    generator = torch.Generator().manual_seed(6)
    inputs = torch.randn(samples, 4, generator=generator, dtype=torch.float64)
    return Split(inputs, torch.randint(3, (samples,), generator=generator))


WORKLOAD = Workload(name="toy", load=lambda folder, seed: None, model=make_model)


def make_subject(**changes):
    given = {"train": make_train(), "seed": 0, "batch_size": 5}
    return Subject(make_model(), WORKLOAD, **(given | changes))


def sample_gradients(model, train):
    rows = []
    for index in range(len(train)):
        where = slice(index, index + 1)
        loss = WORKLOAD.loss(model(train.inputs[where]), train.targets[where]).sum()
        parts = torch.autograd.grad(loss, list(model.parameters()))
        rows.append(torch.cat([part.reshape(-1) for part in parts]))
    return torch.stack(rows)


@pytest.mark.parametrize("chunk", [4, 11, 1000])
def test_noise_is_that_of_all_samples(monkeypatch, chunk):
    monkeypatch.setattr(measures, "CHUNK", chunk)
    model, train = make_model(), make_train()
    rows = sample_gradients(model, train)
    trace, signal = full_noise(model, WORKLOAD, train)
    assert trace == pytest.approx(float(rows.var(0).sum()), rel=1e-10)
    assert signal == pytest.approx(float(rows.mean(0).square().sum()), rel=1e-10)
    found, failed = measure(make_subject(), {"variance", "noise_scale"})
    assert failed == {}
    assert found == pytest.approx({"variance": trace, "noise_scale": trace / signal})


def test_only_what_is_asked_for_is_measured():
    nothing = ({}, {})
    assert measure(make_subject(), ()) == nothing
    found, _ = measure(make_subject(), {"full_train_loss"})
    assert set(found) == {"full_train_loss"}
    for name in ("noise_scale", "variance"):
        assert set(measure(make_subject(), {name})[0]) == {name}
    both, _ = measure(make_subject(), {"gradient_norm"})
    assert set(both) == {"full_train_loss", "gradient_norm"}
    assert measure(make_subject(batch_size=None), {"batch_mean"}) == nothing
    assert measure(make_subject(train=make_train(1)), {"variance"}) == nothing
    everything = {"sharpness", "batch_mean", "variance", "noise_scale", "gradient_norm"}
    found, failed = measure(make_subject(), everything)
    assert all(type(value) is float for value in found.values())
    assert len(found) == 8
    assert failed == {}


def without_a_gradient():
    class Never(torch.autograd.Function):
        @staticmethod
        def forward(context, values):
            return values.clone()

        @staticmethod
        def backward(context, gradient):
            raise NotImplementedError("backward")

    def loss(outputs, targets):
        return nn.functional.cross_entropy(
            Never.apply(outputs), targets, reduction="none"
        )

    return Workload(name="never", load=WORKLOAD.load, model=make_model, loss=loss)


def test_a_measure_that_fails_costs_its_own_columns():
    subject = replace(make_subject(), workload=without_a_gradient())
    asked = {"gradient_norm", "sharpness", "variance", "noise_scale", "batch_mean"}
    found, failed = measure(subject, asked)
    # The loss itself can be measured, though its gradient cannot.
    assert set(found) == {"full_train_loss"}
    expected, _ = measure(make_subject(), {"full_train_loss"})
    assert found == expected
    assert set(failed) == asked
    assert "(test_measures.py:" in failed["gradient_norm"]


def test_a_loss_that_cannot_be_measured_is_no_measure_that_fails():
    def loss(outputs, targets):
        raise KeyError("loss")

    broken = Workload(name="w", load=WORKLOAD.load, model=make_model, loss=loss)
    with pytest.raises(KeyError):
        measure(replace(make_subject(), workload=broken), {"full_train_loss"})


class Noisy(nn.Linear):
    def forward(self, inputs):
        return super().forward(inputs) + torch.rand(3, dtype=torch.float64)


def test_what_a_measure_draws_does_not_depend_on_the_others():
    noisy = replace(make_subject(), model=Noisy(4, 3).double())
    names = {"full_train_loss", "gradient_norm", "batch_mean"}
    together, _ = measure(noisy, names)
    for name in names:
        torch.rand(7)
        alone, _ = measure(noisy, {name})
        assert alone.items() <= together.items()


def dense_hessian(model, train):
    named = {name: p.detach() for name, p in model.named_parameters()}
    sizes = [p.numel() for p in named.values()]

    def loss(flat):
        parts = flat.split(sizes)
        pairs = zip(named.items(), parts, strict=True)
        parameters = {name: part.view(p.shape) for (name, p), part in pairs}
        outputs = functional_call(model, parameters, (train.inputs,))
        return WORKLOAD.loss(outputs, train.targets).mean()

    return hessian(loss, torch.cat([p.reshape(-1) for p in named.values()]))


@pytest.mark.parametrize("make", [make_model, make_convolutions])
@pytest.mark.parametrize(("chunk", "samples"), [(1000, 2000), (7, 2000), (7, 11)])
def test_sharpness_is_the_largest_eigenvalue(monkeypatch, make, chunk, samples):
    monkeypatch.setattr(sharpness, "CHUNK", chunk)
    monkeypatch.setattr(sharpness, "SAMPLES", samples)
    model, train = make().train(), make_train()
    used = Split(train.inputs[:samples], train.targets[:samples])
    expected = float(torch.linalg.eigvalsh(dense_hessian(model, used))[-1])
    value, residual = sharpness.sharpness(model, WORKLOAD, train)
    assert value == pytest.approx(expected, rel=1e-4)
    assert 0 <= residual <= 2e-3 * expected
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    "spectrum",
    [[3.0, 1.0, -7.0], [-1.0, -2.0, -3.0], [0.0, 0.0], [5.0], list(range(60))],
)
def test_the_largest_is_by_value_not_by_magnitude(spectrum):
    size = len(spectrum)
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(size, size)))
    matrix = torch.from_numpy(basis @ np.diag(spectrum) @ basis.T)
    value, residual = sharpness.largest_eigenvalue(matrix.mv, size, torch.device("cpu"))
    assert value == pytest.approx(max(spectrum), rel=1e-3, abs=1e-9)
    assert residual <= 2e-3 * abs(max(spectrum)) + 1e-9


def test_a_diverged_models_sharpness_is_nan():
    subject = make_subject()
    with torch.no_grad():
        subject.model[0].weight[0, 0] = math.nan
    found, _ = measure(subject, {"sharpness"})
    assert math.isnan(found["sharpness"])
    assert math.isnan(found["sharpness_residual"])


def test_a_whole_batch_has_neither_variance_nor_bias():
    variance, bias = batch_mean(make_subject(batch_size=N), N)
    assert 0 <= variance < 1e-25
    assert abs(bias) < 1e-25


@pytest.fixture(scope="module")
def digits():
    """`digits` after some updates of plain SGD, and its per-sample trace there."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # which is faster for so small a model
    workload = find_workload("digits", None)
    data = workload.load(None, 0)
    torch.manual_seed(0)
    model = workload.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for part in torch.arange(len(data.train)).split(32):
        optimizer.zero_grad()
        inputs, targets = data.train.inputs[part], data.train.targets[part]
        workload.loss(model(inputs), targets).mean().backward()
        optimizer.step()
    trace, _ = full_noise(model, workload, data.train)
    yield model, workload, data.train, trace
    torch.set_num_threads(threads)


def test_a_batchs_variance_falls_as_one_over_b_less_one_over_n(digits):
    model, workload, train, trace = digits
    sizes = np.array([8, 16, 32, 64, 128, 256, 512, 1024])
    subjects = [Subject(model, workload, train, seed, None) for seed in range(3)]
    found = [
        np.mean([batch_mean(subject, int(size))[0] for subject in subjects])
        for size in sizes
    ]
    shares = 1 / sizes - 1 / len(train)
    slope, _ = np.polyfit(np.log(shares), np.log(found), 1)
    assert slope == pytest.approx(1, abs=0.02)
    assert found / (trace * shares) == pytest.approx(np.ones(len(sizes)), abs=0.15)
    # Against 1/B alone the slope would be off, which this many draws can tell.
    off, _ = np.polyfit(np.log(1 / sizes), np.log(found), 1)
    assert off > 1.1


@pytest.mark.parametrize("size", [8, 64, 1024])
def test_a_batchs_mean_has_no_bias(digits, size):
    model, workload, train, trace = digits
    biases = [
        batch_mean(Subject(model, workload, train, seed, None), size)[1]
        for seed in range(8)
    ]
    mean, error = np.mean(biases), np.std(biases, ddof=1) / math.sqrt(8)
    assert abs(mean) < 3.5 * error  # the 99% point of Student's t with 7 degrees
    # A bias of a tenth of one batch's deviation would show.
    assert 3.5 * error < 0.1**2 * trace * (1 / size - 1 / len(train))
