"""One update: equal to torch's own SGD, exact however the batch is split."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from batchramp.schedules.interface import Settings
from batchramp.training.step import Step, check_settings
from batchramp.workloads import Split, Workload

N, FEATURES, CLASSES = 60, 5, 3


def make_data(dtype=torch.float64):
    generator = torch.Generator().manual_seed(7)
    inputs = torch.randn(N, FEATURES, generator=generator, dtype=dtype)
    targets = torch.randint(CLASSES, (N,), generator=generator)
    return Split(inputs, targets)


def make_model(dtype=torch.float64):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, CLASSES))
    return model.to(dtype)


WORKLOAD = Workload(name="toy", load=lambda folder, seed: None, model=make_model)


def make_step(model, *, weight_decay=0.0, nesterov=False, micro_batch=None):
    return Step(
        model,
        WORKLOAD,
        make_data(),
        weight_decay=weight_decay,
        nesterov=nesterov,
        micro_batch=micro_batch,
    )


def flat(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach()


@pytest.mark.parametrize("nesterov", [False, True])
def test_updates_equal_torchs_own_sgd(nesterov):
    model, reference, data = make_model(), make_model(), make_data()
    step = make_step(model, weight_decay=0.01, nesterov=nesterov)
    optimizer = torch.optim.SGD(
        reference.parameters(),
        lr=1.0,
        momentum=0.9,
        weight_decay=0.01,
        nesterov=nesterov,
        foreach=False,
    )
    for t, lr in enumerate((0.3, 0.2, 0.1, 0.05)):
        indices = torch.arange(10 * t, 10 * t + 10)
        step.update(indices, Settings(10, lr, 0.9))
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        outputs = reference(data.inputs[indices])
        functional.cross_entropy(outputs, data.targets[indices]).backward()
        optimizer.step()
        torch.testing.assert_close(flat(model), flat(reference), rtol=1e-12, atol=0)


@settings(deadline=None, max_examples=30)
@given(size=st.integers(1, N), micro_batch=st.integers(1, N))
def test_splitting_a_batch_changes_nothing_but_rounding(size, micro_batch):
    whole, split = make_model(), make_model()
    first, second = make_step(whole), make_step(split, micro_batch=micro_batch)
    for start in (0, 1):
        indices = torch.arange(start, size)
        if len(indices):
            first.update(indices, Settings(size, 0.5, 0.9))
            second.update(indices, Settings(size, 0.5, 0.9))
    torch.testing.assert_close(flat(whole), flat(split), rtol=1e-10, atol=1e-12)
    total = size + max(0, size - 1)
    assert first.take_loss(total) == pytest.approx(second.take_loss(total), rel=1e-12)


def test_no_pass_exceeds_the_micro_batch():
    seen = []
    model = make_model()
    model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    step = make_step(model, micro_batch=7)
    step.update(torch.arange(23), Settings(23, 0.1, 0.0))
    assert sum(seen) == 23
    assert max(seen) <= 7
    assert max(seen) - min(seen) <= 1


def test_the_loss_is_the_mean_over_samples_not_over_batches():
    model, data = make_model(), make_data()
    step = make_step(model)
    batches = (torch.arange(10), torch.arange(10, 13))
    with torch.no_grad():
        losses = functional.cross_entropy(
            model(data.inputs[:13]), data.targets[:13], reduction="none"
        )
    for indices in batches:  # a rate of zero leaves the model as it is
        step.update(indices, Settings(len(indices), 0.0, 0.0))
    assert step.take_loss(13) == pytest.approx(float(losses.mean()), rel=1e-12)
    step.update(batches[1], Settings(3, 0.0, 0.0))
    assert step.take_loss(3) == pytest.approx(float(losses[10:].mean()), rel=1e-12)


@pytest.mark.parametrize(("size", "micro_batch", "count"), [(12, None, 2), (12, 3, 4)])
def test_evidence_is_of_the_micro_batches_gradients(size, micro_batch, count):
    model, data = make_model(), make_data()
    gradients = []
    for part in torch.arange(size).tensor_split(count):
        model.zero_grad()
        functional.cross_entropy(
            model(data.inputs[part]), data.targets[part]
        ).backward()
        grads = [p.grad for p in model.parameters()]
        gradients.append(nn.utils.parameters_to_vector(grads).clone())
    stacked = torch.stack(gradients)
    plain = make_model()
    make_step(plain).update(torch.arange(size), Settings(size, 0.5, 0.0))
    found = make_step(model, micro_batch=micro_batch).update(
        torch.arange(size), Settings(size, 0.5, 0.0), evidence={"micro_batches"}
    )
    assert (found.count, found.batch_size) == (count, size // count)
    assert found.sum_squared_norms == pytest.approx(float(stacked.square().sum()))
    mean = stacked.mean(0)
    assert found.squared_norm_of_mean == pytest.approx(float(mean.square().sum()))
    torch.testing.assert_close(flat(model), flat(plain), rtol=1e-10, atol=1e-12)


def test_evidence_holds_what_is_asked_for_by_name():
    step = make_step(make_model(), micro_batch=5)
    chosen = Settings(20, 0.0, 0.0)  # a rate of zero leaves the model as it is
    norms = step.update(torch.arange(20), chosen, evidence={"micro_batches"})
    assert norms.inner_products is None
    assert norms.orthogonal is None
    names = {"inner_products", "orthogonal"}
    both = step.update(torch.arange(20), chosen, evidence=names)
    for name in ("sum_squared_norms", "squared_norm_of_mean", "count", "batch_size"):
        assert getattr(both, name) == getattr(norms, name)
    # The products of the g_i with their mean average to its squared norm, and a g_i is
    # what lies along the mean and what is orthogonal to it.
    assert sum(both.inner_products) / 4 == pytest.approx(both.squared_norm_of_mean)
    along = sum(p**2 for p in both.inner_products) / both.squared_norm_of_mean
    assert along + sum(both.orthogonal) == pytest.approx(both.sum_squared_norms)


@pytest.mark.parametrize(("size", "micro_batch"), [(1, None), (7, None), (10, 4)])
def test_unequal_micro_batches_give_no_evidence_but_the_same_update(size, micro_batch):
    model, plain = make_model(), make_model()
    indices, chosen = torch.arange(size), Settings(size, 0.5, 0.0)
    step = make_step(model, micro_batch=micro_batch)
    assert step.update(indices, chosen, evidence={"micro_batches"}) is None
    make_step(plain).update(indices, chosen)
    torch.testing.assert_close(flat(model), flat(plain), rtol=1e-10, atol=1e-12)


def test_warming_up_leaves_model_and_generators_as_they_were():
    model = nn.Sequential(nn.Linear(FEATURES, 8), nn.Dropout(), nn.Linear(8, CLASSES))
    model = model.double().train()
    before, state = flat(model).clone(), torch.random.get_rng_state()
    step = make_step(model)
    python_state = random.getstate()
    loss = step.warm_up({4, 9}, evidence={"micro_batches"})
    assert 0 < loss < 3
    assert random.getstate() == python_state
    assert torch.equal(flat(model), before)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert float(step.loss_sum) == 0


def test_a_parameter_without_gradient_is_left_alone():
    class Partly(nn.Module):
        def __init__(self):
            super().__init__()
            self.used = nn.Linear(FEATURES, CLASSES).double()
            self.unused = nn.Parameter(torch.ones(2, dtype=torch.float64))

        def forward(self, inputs):
            return self.used(inputs)

    model = Partly()
    step = make_step(model, weight_decay=0.1)
    step.update(torch.arange(8), Settings(8, 0.5, 0.9))
    assert torch.equal(model.unused.detach(), torch.ones(2, dtype=torch.float64))


def test_a_loss_that_is_no_value_a_sample_is_refused():
    broken = Workload(
        name="broken",
        load=WORKLOAD.load,
        model=make_model,
        loss=functional.cross_entropy,
    )
    step = Step(
        make_model(),
        broken,
        make_data(),
        weight_decay=0.0,
        nesterov=False,
        micro_batch=None,
    )
    with pytest.raises(ValueError, match=r"loss of workload 'broken' .* shape \(4,\)"):
        step.update(torch.arange(4), Settings(4, 0.1, 0.0))


@pytest.mark.parametrize(
    "wrong",
    [Settings(8, float("nan"), 0.0), Settings(8, -0.1, 0.0), Settings(8, 0.1, 1.0)],
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=r"(lr|momentum) of a schedule must be"):
        check_settings(wrong)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_makes_the_updates_that_the_cpu_makes():
    device = torch.device("cuda")
    on_cpu, on_gpu = make_model(), make_model().to(device)
    first = make_step(on_cpu, micro_batch=5)
    second = Step(
        on_gpu,
        WORKLOAD,
        make_data().to(device),
        weight_decay=0.0,
        nesterov=False,
        micro_batch=5,
    )
    for step, target in ((first, "cpu"), (second, "cuda")):
        for start in (0, 20):
            indices = torch.arange(start, start + 20, device=target)
            step.update(indices, Settings(20, 0.5, 0.9), evidence={"micro_batches"})
    torch.testing.assert_close(flat(on_cpu), flat(on_gpu).cpu(), rtol=1e-9, atol=1e-12)
