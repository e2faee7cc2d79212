"""What is no gradient of the same parameters: weights, and another branch's gradients."""

import io

import numpy as np
import pytest
import torch
from torch import nn

from batchramp.gradient_variance import (
    GradientNorms,
    GradientVariance,
    micro_batch_statistics,
    squared_norm,
)


def two_branches():
    model = nn.ModuleDict({"one": nn.Linear(6, 2), "other": nn.Linear(6, 2)})
    for name in model:
        model[name](torch.randn(4, 6)).square().sum().backward()
    return model


def gradients(module):
    return [parameter.grad for parameter in module.parameters()]


@pytest.fixture(params=[GradientVariance, GradientNorms])
def taker(request):
    torch.manual_seed(0)
    return request.param()


def test_weights_are_no_gradients(taker):
    model = two_branches()
    taker.update(model)
    parameters = list(model.parameters())
    leaf = torch.ones(28, requires_grad=True)
    leaf.sum().backward()
    frozen = nn.Parameter(torch.ones(28), requires_grad=False)
    for weights in (parameters, tuple(parameters), parameters[0], leaf, frozen):
        with pytest.raises(
            ValueError, match=r"got a parameter's weights: write \[p.grad"
        ):
            taker.update(weights)
    for weights in (
        model.parameters(),
        model.state_dict(),
        dict(model.named_parameters()),
    ):
        with pytest.raises(ValueError, match=r"got \w+: write \[p.grad for p in model"):
            taker.update(weights)
    assert taker.count == 1
    with pytest.raises(
        ValueError, match="each row of gradients must be a gradient, got a parameter"
    ):
        GradientVariance.from_stacked(parameters[0])
    with pytest.raises(ValueError, match="got a parameter's weights"):
        micro_batch_statistics([parameters] * 2, ["variance"], batch_size=1)


def test_the_norm_of_weights_is_their_own():
    parameters = [nn.Parameter(torch.tensor([3.0, 4.0])), nn.Parameter(torch.ones(1))]
    parameters[0].grad = torch.ones(2)
    assert squared_norm(parameters) == 26
    assert squared_norm([p.detach() for p in parameters]) == 26


def test_what_no_parameter_made_is_taken(taker):
    # Gradients that may be differentiated again, and leaves that hold no gradient.
    weight = torch.ones(3, requires_grad=True)
    (gradient,) = torch.autograd.grad((weight**3).sum(), weight, create_graph=True)
    taker.update([gradient])
    taker.update([torch.ones(3, requires_grad=True)])
    taker.update([np.ones(3, dtype=np.float32)])
    assert taker.count == 3


@pytest.mark.parametrize(
    ("first", "later", "message"),
    [
        (
            [(2, 6), (2,)],
            [(7, 2)],
            r"must have 2 parts, as the first one, got 1: keep one",
        ),
        ([(2, 6), (2,)], [(3, 4), (2,)], r"gradient\[0\] must have the shape \(2, 6\)"),
        (
            [(2, 6), (2,)],
            [(2,), (2, 6)],
            r"gradient\[0\] .* as the first one, got \(2,\)",
        ),
        ([(2, 6), (2,)], [(2, 6), (2, 1)], r"gradient\[1\] must have the shape \(2,\)"),
        ([(12,)], [(3, 4)], r"gradient\[0\] must have the shape \(12,\)"),
        ([()], [(1,)], r"gradient\[0\] must have the shape \(\), as"),
    ],
)
def test_the_first_gradient_says_the_shapes(taker, first, later, message):
    taker.update([torch.randn(shape) for shape in first])
    with pytest.raises(ValueError, match=message):
        taker.update([torch.randn(shape) for shape in later])
    assert taker.count == 1
    taker.update([torch.randn(shape) for shape in first])
    # What is flat may be all parts joined.
    taker.update(torch.randn(sum(torch.Size(shape).numel() for shape in first)))
    assert taker.count == 3
    with pytest.raises(ValueError, match="coordinates"):
        taker.update(torch.randn(99))


def test_parameters_that_thaw_one_after_another_are_told_apart(taker):
    model = two_branches()
    model["other"].requires_grad_(False)
    taker.update(model)
    taker.update(gradients(model["one"]))  # without names
    model.requires_grad_(True)
    model["one"].requires_grad_(False)
    message = "of 'one.weight', got one of 'other.weight' in its place: keep one"
    with pytest.raises(ValueError, match=message):
        taker.update(model)
    assert taker.count == 2


def test_wrappers_change_no_name(taker):
    class Wrapper(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    model = two_branches()
    taker.update(Wrapper(model))
    taker.update(model)
    taker.update(Wrapper(Wrapper(model)))
    assert taker.count == 3


def test_norms_that_forgot_take_another_branch():
    norms = GradientNorms()
    norms.update([torch.ones(2, 6)])
    norms.reset()
    assert norms.update([torch.ones(3, 4)]) == 12


def test_only_parts_of_one_kind_merge():
    one, same, other, flat = (GradientVariance() for _ in range(4))
    model = two_branches()
    one.update(model)
    same.update(gradients(model))
    other.update(gradients(model)[::-1])
    flat.update(torch.randn(28))
    one.merge(same)
    one.merge(flat)
    one.merge(GradientVariance.from_stacked(torch.randn(3, 28)))
    with pytest.raises(
        ValueError, match=r"gradient of 'one.weight' must have the shape"
    ):
        one.merge(other)
    assert one.count == 6
    empty = GradientVariance()
    empty.merge(one)
    with pytest.raises(
        ValueError, match=r"gradient of 'one.weight' must have the shape"
    ):
        empty.update(gradients(model)[::-1])


def test_the_state_keeps_shapes_and_names():
    model = two_branches()
    model["other"].requires_grad_(False)
    variance, again = GradientVariance(), GradientVariance()
    variance.update(model)
    file = io.BytesIO()
    torch.save(variance.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert state["shapes"] == [[2, 6], [2]]
    assert state["names"] == ["one.weight", "one.bias"]
    again.load_state_dict(state)
    model.requires_grad_(True)
    model["one"].requires_grad_(False)
    with pytest.raises(ValueError, match=r"got one of 'other.weight'"):
        again.update(model)
    # A state from before has neither, and takes what has as many coordinates.
    old = {key: state[key] for key in state if key not in ("shapes", "names")}
    again.load_state_dict(old)
    assert again.state_dict()["shapes"] is None
    again.update(model)
    assert again.state_dict()["names"] == ["other.weight", "other.bias"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shapes": 3}, "state's shapes must be lists of sizes, got 3"),
        ({"shapes": [14]}, "state's shapes must be lists of sizes"),
        ({"shapes": [[2, -7]]}, "a size in state's shapes must be at least 0"),
        ({"shapes": [[2, 6]]}, "must have the 14 coordinates of its mean, got 12"),
        ({"names": "ab"}, "state's names must be 2 names, one a shape, got 'ab'"),
        ({"names": ["a"]}, "state's names must be 2 names"),
        ({"names": ["a", 1]}, "state's names must be 2 names"),
        ({"shapes": None}, "state's shapes must be lists of sizes, got None"),
    ],
)
def test_what_is_no_layout_is_refused(change, message):
    variance = GradientVariance()
    variance.update([torch.ones(2, 6), torch.ones(2)])
    state = variance.state_dict()
    state["names"] = ["a", "b"]
    with pytest.raises(ValueError, match=message):
        variance.load_state_dict(state | change)
    assert variance.state_dict()["names"] is None
