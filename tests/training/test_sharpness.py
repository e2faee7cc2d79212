"""The sharpness: against dense Hessians of what people train, and on hard spectra."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from batchramp.training.sharpness import largest_eigenvalue, sharpness
from batchramp.workloads import Split, Workload

WORKLOAD = Workload(name="toy", load=lambda folder, seed: None, model=lambda: None)

CPU = torch.device("cpu")


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.layer = kind(6, 3, batch_first=True)
        self.out = nn.Linear(3, 5)
        self.cudnn = set()

    def forward(self, inputs):
        self.cudnn.add(torch.backends.cudnn.enabled)
        return self.out(self.layer(inputs)[0][:, -1])


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(6, 2, 4, batch_first=True)
        self.out = nn.Linear(42, 5)

    def forward(self, inputs):
        return self.out(checkpoint(self.layer, inputs, use_reentrant=False).flatten(1))


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(42, 5, dtype=torch.complex64))

    def forward(self, inputs):
        return (inputs.flatten(1).to(self.weight.dtype) @ self.weight).abs()


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.mixed = nn.Linear(6, 18)
        self.out = nn.Linear(42, 5)

    def forward(self, inputs):
        parts = self.mixed(inputs).unflatten(2, (3, 2, 3)).permute(2, 0, 3, 1, 4)
        found = nn.functional.scaled_dot_product_attention(*parts, is_causal=True)
        return self.out(found.transpose(1, 2).flatten(1))


def encoder(**kwargs):
    layer = nn.TransformerEncoderLayer(6, 2, 4, batch_first=True, **kwargs)
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(42, 5))


def frozen():
    model = encoder()
    model[0].requires_grad_(False)
    return model


def embedded(**kwargs):
    layer = nn.Embedding(9, 3, **kwargs)
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(21, 5))


MODELS = {
    "encoder": encoder,
    "norm first": lambda: encoder(norm_first=True, activation="gelu"),
    "frozen encoder": frozen,
    "attention by hand": Attending,
    "checkpointed": Checkpointed,
    "gru": lambda: Recurrent(nn.GRU),
    "lstm": lambda: Recurrent(nn.LSTM),
    "complex": Complex,
    "embedding": embedded,
    "sparse embedding": lambda: embedded(sparse=True),
}


def dense_eigenvalues(model, inputs, targets):
    """Of the Hessian by all real numbers of the parameters, in float64, row by row."""
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.sparse = False
        for parameter in module.parameters(recurse=False):
            double = torch.promote_types(parameter.dtype, torch.float64)
            parameter.data = parameter.data.to(double)
    parameters = [p for p in model.parameters() if p.requires_grad]

    def flat(parts):
        parts = [torch.view_as_real(p) if p.is_complex() else p for p in parts]
        return torch.cat([part.reshape(-1) for part in parts])

    if inputs.is_floating_point():
        inputs = inputs.double()
    with sdpa_kernel(SDPBackend.MATH):
        loss = WORKLOAD.loss(model(inputs), targets).mean()
        slope = torch.autograd.grad(loss, parameters, create_graph=True)
        rows = [
            flat(
                torch.autograd.grad(
                    *(number, parameters),
                    retain_graph=True,
                    allow_unused=True,
                    materialize_grads=True,
                )
            )
            for number in flat(slope)
        ]
    return torch.linalg.eigvalsh(torch.stack(rows))


@pytest.mark.parametrize("name", MODELS)
def test_what_people_train_has_the_sharpness_of_its_dense_hessian(name):
    torch.manual_seed(0)
    model = MODELS[name]().train()
    inputs, targets = torch.randn(6, 7, 6), torch.randint(5, (6,))
    if "embedding" in name:
        inputs = torch.randint(9, (6, 7))
    flags = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cudnn.enabled
    value, residual = sharpness(model, WORKLOAD, Split(inputs, targets))
    expected = float(dense_eigenvalues(model, inputs, targets)[-1])
    assert value == pytest.approx(expected, rel=1e-3)
    assert residual <= 2e-3 * expected
    after = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cudnn.enabled
    assert after == flags
    if isinstance(model, Recurrent):  # whose kernel on a GPU has no second derivative
        assert model.cudnn == {False}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["encoder", "attention by hand", "lstm", "gru"])
def test_a_gpu_finds_the_same_sharpness(name):
    torch.manual_seed(0)
    model, train = MODELS[name](), Split(torch.randn(6, 7, 6), torch.randint(5, (6,)))
    expected, _ = sharpness(model, WORKLOAD, train)
    there = Split(train.inputs.cuda(), train.targets.cuda())
    value, _ = sharpness(model.cuda(), WORKLOAD, there)
    assert value == pytest.approx(expected, rel=1e-2)
    assert torch.backends.cudnn.enabled


def bulk(size, level, *others):
    diagonal = torch.full((size,), level, dtype=torch.float64)
    diagonal[: len(others)] = torch.tensor(others, dtype=torch.float64)
    return diagonal


def spread(low, high, *others):
    return torch.cat([torch.linspace(low, high, 20_000), torch.tensor(others)]).double()


SPECTRA = {
    "one beside a million alike": bulk(1_000_000, 1.0, 1.5),
    "two close ones above a bulk": bulk(100_000, 1.0, 1.5, 1.499, -3.0),
    "one above zeros": bulk(100_000, 0.0, 1e-8),
    "one far below": bulk(100_000, 1e-3, -1e4, 2e-3),
    "all below zero": bulk(100_000, -2.0, -1.0, -50.0),
    "nothing": bulk(1000, 0.0),
    "identity": bulk(1000, 7.0),
    "multiplicities": bulk(30_000, 1.0, *[2.0] * 50, *[3.0] * 50),
    "a dense bulk": spread(0.0, 1.0, 1.1),
    "a bulk on both sides": spread(-1.0, 1.0, 1.2, -40.0),
    "a tight cluster": spread(0.999, 1.001, 1.01),
    "fewer rows than steps": bulk(7, 1.0, 1.0001),
    "one row": bulk(1, -3.0),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_hard_spectra_do_not_end_the_steps_early(name):
    diagonal = SPECTRA[name]
    calls = []

    def product(vector):
        calls.append(vector.clone())
        return diagonal * vector

    size = len(diagonal)
    value, residual = largest_eigenvalue(product, size, CPU)
    assert value == pytest.approx(float(diagonal.max()), rel=1e-3, abs=1e-12)
    assert residual <= 2e-3 * abs(value) + 1e-12
    # The last product checks the answer.
    assert min(10, size) <= len(calls) - 1 <= min(80, size)
    basis = torch.stack([call[: min(size, 5000)] for call in calls[:-1]])
    if size <= 5000:
        one = torch.eye(len(basis), dtype=torch.float64)
        torch.testing.assert_close(basis @ basis.T, one, rtol=0, atol=1e-12)
    again = largest_eigenvalue(lambda vector: diagonal * vector, size, CPU)
    assert again == (value, residual)


def test_an_operator_may_return_what_it_was_given():
    assert largest_eigenvalue(lambda vector: vector, 100, CPU) == pytest.approx((1, 0))


def test_one_direction_among_many_is_found():
    torch.manual_seed(1)
    vector = torch.randn(50_000, dtype=torch.float64)
    product = lambda v: vector * (vector @ v)  # noqa: E731
    value, _ = largest_eigenvalue(product, len(vector), CPU)
    assert value == pytest.approx(float(vector @ vector), rel=1e-9)


def test_the_residual_tells_what_has_not_converged():
    diagonal = torch.linspace(0, 1, 50_000, dtype=torch.float64) ** 9
    value, residual = largest_eigenvalue(
        lambda vector: diagonal * vector, len(diagonal), CPU
    )
    nearest = (diagonal - value).abs().min()
    assert float(nearest) <= residual
    assert value <= 1
