"""Measurements at a look, against float64 references."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from batchramp.training import evaluation
from batchramp.workloads import Split, Workload

N = 2500  # more than two chunks, the last one short


@pytest.fixture
def split():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(N, 6, generator=generator)
    return Split(inputs, torch.randint(4, (N,), generator=generator))


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return nn.Sequential(
            nn.Linear(6, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 4)
        )


WORKLOAD = Workload(name="toy", load=lambda folder, seed: None, model=lambda: None)


def reference(model, split):
    """Loss, gradient norm and accuracy in float64, in one piece, without dropout."""
    precise = nn.Sequential(model[0], model[1], model[3]).double()
    outputs = precise(split.inputs.double())
    loss = functional.cross_entropy(outputs, split.targets)
    gradients = torch.autograd.grad(loss, list(precise.parameters()))
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    accuracy = (outputs.argmax(1) == split.targets).double().mean()
    model.float()
    return loss.item(), norm.item(), accuracy.item()


def test_measurements_equal_a_float64_reference(model, split):
    loss, norm, accuracy = reference(model, split)
    measured = evaluation.full_gradient(model, WORKLOAD, split)
    assert measured == pytest.approx((loss, norm), rel=1e-5)
    full_loss = evaluation.full_train_loss(model, WORKLOAD, split)
    assert full_loss == pytest.approx(loss, rel=1e-5)
    assert evaluation.mean_metric(model, WORKLOAD, split) == pytest.approx(accuracy)


def test_measuring_leaves_the_model_as_it_was(model, split):
    model.train()
    model[3].eval()
    before = [p.detach().clone() for p in model.parameters()]
    state = torch.random.get_rng_state()
    evaluation.full_gradient(model, WORKLOAD, split)
    evaluation.mean_metric(model, WORKLOAD, split)
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_gradient_norm_vanishes_at_a_minimum():
    # Least squares, solved exactly: the mean loss has a known minimum.
    generator = torch.Generator().manual_seed(4)
    inputs = torch.randn(1200, 3, generator=generator, dtype=torch.float64)
    wanted = torch.randn(1200, 1, generator=generator, dtype=torch.float64)
    least = Workload(
        name="least squares",
        load=WORKLOAD.load,
        model=WORKLOAD.model,
        loss=lambda outputs, targets: (outputs - targets).square().sum(1),
        metric=lambda outputs, targets: -(outputs - targets).square().sum(1),
    )
    line = nn.Linear(3, 1, bias=False).double()
    with torch.no_grad():
        line.weight.copy_(torch.linalg.lstsq(inputs, wanted).solution.T)
    loss, norm = evaluation.full_gradient(line, least, Split(inputs, wanted))
    assert norm < 1e-12
    with torch.no_grad():
        line.weight += 0.1
    worse, above = evaluation.full_gradient(line, least, Split(inputs, wanted))
    assert worse > loss
    assert above > 0.01
