"""Per-example statistics of wrapped models, of inputs in parts, and one by one."""

import warnings

import pytest
import torch
from torch import multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from batchramp.gradient_variance import (
    STATISTICS,
    OneByOneWarning,
    per_example_statistics,
    ways,
)

NORMS = ("sum_squared_norms", "squared_norm_of_mean")
losses = nn.CrossEntropyLoss(reduction="none")


def make_mlp(*between):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), *between, nn.Tanh(), nn.Linear(5, 3))


def make_data(count=8):
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(count, 6, generator=generator),
        torch.randint(3, (count,), generator=generator),
    )


def assert_equal(found, expected):
    for name in STATISTICS[:-1]:
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))
    for ours, theirs in zip(found.variance, expected.variance, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("between", [(), (nn.LayerNorm(5),)])
@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_wrapped_models_are_run_without_their_wrapper(wrap, between):
    model, data = make_mlp(*between), make_data()
    expected = per_example_statistics(model, losses, *data, STATISTICS)
    assert_equal(
        per_example_statistics(wrap(model), losses, *data, STATISTICS), expected
    )


KINDS = {
    "layers": lambda: (),
    "vmap": lambda: (nn.LayerNorm(5),),
    "loop": lambda: (nn.GRUCell(5, 5),),
}


def make(kind):
    torch.manual_seed(0)
    return make_mlp(*KINDS[kind]())


def in_a_group(rank, count, folder):
    """Statistics of this process's samples, and whether its gradients were left alone."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/group", rank=rank, world_size=count
    )
    try:
        inputs, targets = (part[rank::count] for part in make_data())
        for kind in KINDS if count == 1 else ("layers",):  # vmap loads for seconds
            model = DistributedDataParallel(make(kind))
            model(inputs).sum().backward()
            before = [parameter.grad.clone() for parameter in model.parameters()]
            found = per_example_statistics(model, losses, inputs, targets, STATISTICS)
            after = [parameter.grad for parameter in model.parameters()]
            torch.save(
                (found, all(map(torch.equal, before, after))),
                f"{folder}/{kind}-{rank}.pt",
            )
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.filterwarnings("ignore::batchramp.gradient_variance.OneByOneWarning")
def test_each_process_of_a_group_has_the_statistics_of_its_samples(count, tmp_path):
    if count == 1:
        in_a_group(0, 1, tmp_path)
    else:
        multiprocessing.spawn(in_a_group, (count, str(tmp_path)), nprocs=count)
    files = list(tmp_path.glob("*.pt"))
    assert len(files) == (3 if count == 1 else 2)
    for file in files:
        kind, rank = file.stem.split("-")
        inputs, targets = (part[int(rank) :: count] for part in make_data())
        found, left_alone = torch.load(file, weights_only=False)
        assert left_alone
        assert_equal(
            found,
            per_example_statistics(make(kind), losses, inputs, targets, STATISTICS),
        )


@pytest.fixture
def group(tmp_path):
    """A group of one process."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def test_data_parallelism_inside_a_model_is_refused(group):
    model = nn.Sequential(DistributedDataParallel(make_mlp()))  # as Fabric's wrapper
    with pytest.raises(
        ValueError, match=r"DistributedDataParallel inside, got it at 0"
    ):
        per_example_statistics(model, losses, *make_data(), NORMS)


def test_shards_of_parameters_are_refused(group):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = fully_shard(make_mlp(), mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(ValueError, match="whole parameters, got shards"):
        per_example_statistics(model, losses, *make_data(), NORMS)


class Added(nn.Module):
    """Two inputs, by place or by name, and a flag."""

    def __init__(self, between):
        super().__init__()
        self.left, self.right, self.between = nn.Linear(3, 5), nn.Linear(3, 5), between
        self.head = nn.Linear(5, 3)

    def forward(self, first, second, labels=None, doubled=False):
        hidden = self.between(self.left(first) + self.right(second))
        return {"logits": self.head(hidden) * (2 if doubled else 1)}


def of_logits(outputs, targets):
    return losses(outputs["logits"], targets)


def of_labels(outputs, inputs):
    return losses(outputs["logits"], inputs["labels"])


@pytest.mark.parametrize(
    "between",
    [nn.Tanh(), nn.LayerNorm(5), nn.GRUCell(5, 5)],
    ids=["layers", "vmap", "loop"],
)
@pytest.mark.filterwarnings("ignore::batchramp.gradient_variance.OneByOneWarning")
def test_inputs_in_parts_are_handed_over_by_place_or_name(between):
    torch.manual_seed(0)
    model, (inputs, targets) = Added(between), make_data()
    first, second = inputs.split(3, 1)
    by_place = per_example_statistics(
        model, of_logits, [first, second], targets, STATISTICS
    )
    named = {"second": second, "first": first, "labels": targets, "doubled": False}
    by_name = per_example_statistics(model, of_labels, named, None, STATISTICS)
    assert_equal(by_name, by_place)
    pair = per_example_statistics(
        model, lambda o, t: of_logits(o, t[0]), (first, second), (targets,), STATISTICS
    )
    assert_equal(pair, by_place)
    doubled = per_example_statistics(
        model, of_labels, named | {"doubled": True}, None, NORMS
    )
    assert float(doubled.sum_squared_norms) > 1.1 * float(by_place.sum_squared_norms)


def test_inputs_that_hold_no_samples_are_refused():
    model, (inputs, targets) = make_mlp(), make_data()
    for bad, why in (
        ([], "inputs must hold a tensor, got none"),
        (
            "text",
            "inputs must be a tensor, a sequence or a mapping of tensors, got str",
        ),
        (inputs.numpy(), "got ndarray"),
        ((inputs, inputs[:3]), "same length, at least 2, got 8 and 3 and 8"),
        ((inputs, torch.tensor(1.0)), "got 8 and 0 and 8"),
    ):
        with pytest.raises(ValueError, match=why):
            per_example_statistics(model, losses, bad, targets, NORMS)
    with pytest.raises(ValueError, match="targets must hold a tensor"):
        per_example_statistics(model, losses, inputs, targets.tolist(), NORMS)


def test_what_runs_one_by_one_is_said_once_a_model():
    model, data = make_mlp(nn.GRUCell(5, 5)), make_data()
    with pytest.warns(OneByOneWarning, match=r"Sequential run one by one, .* vmap"):
        first = per_example_statistics(model, losses, *data, STATISTICS)
    small = per_example_statistics(model, losses, *data, STATISTICS, max_bytes=1)
    assert_equal(small, first)
    half = data[0][:4], data[1][:4]
    per_example_statistics(model, losses, *half, NORMS)  # warnings are errors here


def test_a_pass_that_fails_for_other_values_goes_on_one_by_one():
    class Sometimes(nn.Module):
        def forward(self, x):
            # vmap allows a look at values only where nothing is differentiated.
            return x * 2 if self.careful and x.sum().item() > 0 else x

    model, (inputs, targets) = make_mlp(nn.LayerNorm(5), Sometimes()), make_data()
    type(model[2]).careful = False
    per_example_statistics(model, losses, inputs, targets, NORMS)
    type(model[2]).careful = True
    with pytest.warns(OneByOneWarning, match="item"):
        found = per_example_statistics(model, losses, inputs, targets, NORMS)
    expected = 0.0
    for i in range(8):
        one = losses(model(inputs[i : i + 1]), targets[i : i + 1]).sum()
        parts = torch.autograd.grad(one, list(model.parameters()))
        expected += sum(float(part.double().square().sum()) for part in parts)
    assert float(found.sum_squared_norms) == pytest.approx(expected, rel=1e-5)


def test_what_cannot_run_a_single_sample_is_refused_with_the_users_error():
    class Pairs(nn.Linear):
        def forward(self, x):
            if len(x) == 1:
                raise KeyError("no pair")
            return super().forward(x)

    with pytest.raises(
        ValueError, match=r"single example, and do not \(KeyError: 'no p"
    ):
        per_example_statistics(Pairs(6, 3), losses, *make_data(), NORMS)

    def squeezed(outputs, targets):
        return losses(outputs, targets).squeeze()

    with pytest.raises(ValueError, match=r"shape \(1,\) for one, got \(\)"):
        per_example_statistics(make_mlp(), squeezed, *make_data(), NORMS)


def test_complex_gradients_have_real_products_and_variances():
    torch.manual_seed(0)
    weight = torch.randn(6, 3, dtype=torch.complex128)

    class Complex(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(weight)

        def forward(self, x):
            return (x.to(self.weight.dtype) @ self.weight).abs()

    model, (inputs, targets) = Complex(), make_data()
    inputs = inputs.double()
    rows = torch.stack(
        [
            torch.autograd.grad(
                losses(model(inputs[i : i + 1]), targets[i : i + 1]).sum(), model.weight
            )[0]
            for i in range(8)
        ]
    ).flatten(1)
    for max_bytes in (1, 2**20):
        found = per_example_statistics(
            model, losses, inputs, targets, STATISTICS, max_bytes=max_bytes
        )
        mean = rows.mean(0)
        products = (rows @ mean.conj()).real
        torch.testing.assert_close(found.inner_products, products)
        torch.testing.assert_close(found.mean[0], mean.view(6, 3))
        spread = rows.real.var(0) + rows.imag.var(0)
        torch.testing.assert_close(found.variance[0], spread.view(6, 3))
        total = rows.abs().square().sum()
        torch.testing.assert_close(found.sum_squared_norms, total)
        rest = rows - (products / mean.abs().square().sum())[:, None] * mean
        torch.testing.assert_close(found.orthogonal, rest.abs().square().sum(1))


@pytest.mark.parametrize("between", [(), (nn.LayerNorm(5),)])
def test_our_own_sums_are_not_under_autocast(between):
    model, (inputs, targets) = make_mlp(*between), make_data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OneByOneWarning)
        with torch.autocast("cpu", torch.bfloat16):
            found = per_example_statistics(model, losses, inputs, targets, STATISTICS)
        expected = per_example_statistics(model, losses, inputs, targets, STATISTICS)
    # Sums in bfloat16 would miss what K |mean|^2 is by three digits.
    total = 8 * found.squared_norm_of_mean
    torch.testing.assert_close(found.inner_products.sum(), total, rtol=1e-5, atol=0)
    for name in STATISTICS[:-1]:
        scale = float(getattr(expected, name).abs().max())
        off = (getattr(found, name) - getattr(expected, name)).abs().max()
        assert float(off) < 0.03 * scale


def test_what_is_remembered_of_a_model_is_bounded(monkeypatch):
    monkeypatch.setattr(ways, "REMEMBERED", 2)
    model, (inputs, targets) = make_mlp(), make_data()
    for count in (2, 3, 4, 5):
        per_example_statistics(model, losses, inputs[:count], targets[:count], NORMS)
    assert len(ways._MEMORIES[model]._ways) == 2
