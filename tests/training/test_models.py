"""A trial's model is new, follows from its seed, and can be trained; else it is named."""

import itertools

import pytest
import torch
from torch import nn

from batchramp.training.models import make_model
from batchramp.workloads import Workload

CPU = torch.device("cpu")


def make(model, seed=0):
    workload = Workload(name="w", load=lambda folder, seed: None, model=model)
    return make_model(workload, seed, CPU)


def flat(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def test_initial_parameters_follow_from_the_seed_alone():
    def net():
        return nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.Linear(4, 2))

    first = make(net)
    torch.rand(5)
    assert torch.equal(flat(make(net)), flat(first))
    assert not torch.equal(flat(make(net, seed=1)), flat(first))
    assert first.training


def test_what_is_made_draws_from_torch_and_leaves_it():
    state = torch.get_rng_state()
    make(lambda: nn.Linear(3, 2))
    assert torch.equal(torch.get_rng_state(), state)


def test_one_object_for_all_trials_is_found_at_the_first():
    net = nn.Linear(3, 2)
    before = flat(net).clone()
    with pytest.raises(
        ValueError, match=r"'w' must make a new model .* parameter weight"
    ):
        make(lambda: net)
    assert torch.equal(flat(net), before)


def test_new_modules_around_old_parameters_are_found_too():
    weight = torch.zeros(2, 3)

    def net():
        made = nn.Linear(3, 2)
        made.weight = nn.Parameter(weight)
        return made

    with pytest.raises(ValueError, match="its parameter weight is that of an earlier"):
        make(net)


def test_a_model_that_comes_back_later_is_found_then():
    nets = [nn.Linear(3, 2) for _ in range(3)]
    with torch.no_grad():
        for net in nets:
            net.weight.fill_(1)
            net.bias.fill_(0)
    turns = itertools.cycle(nets)
    workload = Workload(
        name="w", load=lambda folder, seed: None, model=lambda: next(turns)
    )
    # The first trial makes two of the three, the second the last.
    made = [make_model(workload, seed, CPU) for seed in range(2)]
    assert made[0] is not made[1]
    with pytest.raises(ValueError, match="must make a new model at each call"):
        make_model(workload, 2, CPU)


def test_what_is_not_trained_may_be_shared_and_is_copied():
    table = torch.ones(3)
    backbone = nn.Linear(3, 3).requires_grad_(False)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = backbone
            self.head = nn.Linear(3, 2)
            self.register_buffer("table", table)

    for seed in range(3):
        made = make(Net, seed)
        assert made.backbone.weight is not backbone.weight
        assert torch.equal(made.backbone.weight, backbone.weight)
        made.table += 1
    assert torch.equal(table, torch.ones(3))


def test_memory_that_is_used_again_is_no_earlier_model():
    def net():
        return nn.Linear(300, 200)

    for seed in range(20):
        make(net, seed)


COUNTED = itertools.count(1)


@pytest.mark.parametrize(
    "net",
    [
        lambda: nn.Linear(3, next(COUNTED)),
        lambda: nn.ParameterDict({f"w{next(COUNTED)}": nn.Parameter(torch.zeros(1))}),
        lambda: nn.ParameterList([torch.full((2,), float(next(COUNTED)))]),
    ],
    ids=["shape", "name", "value"],
)
def test_a_factory_that_gives_another_model_each_time(net):
    with pytest.raises(
        ValueError, match="must give equal models for one seed, and two"
    ):
        make(net)


class Hidden(nn.Module):
    def __init__(self, hide):
        super().__init__()
        self.seen = nn.Linear(2, 2)
        self.inner = nn.Module()
        self.inner.held = hide(self)


@pytest.mark.parametrize(
    ("hide", "words"),
    [
        (
            lambda net: [nn.Linear(2, 2)],
            r"holds Linear in inner\.held, a list, .* use nn\.ModuleList",
        ),
        (lambda net: (nn.ReLU(), nn.Linear(2, 2)), r"a tuple, .* nn\.ModuleList"),
        (lambda net: {"a": [nn.Linear(2, 2)]}, r"a dict, .* use nn\.ModuleDict"),
        (lambda net: [nn.Parameter(torch.ones(2))], r"use nn\.ParameterList"),
        (lambda net: {"a": nn.Parameter(torch.ones(2))}, r"use nn\.ParameterDict"),
        (lambda net: torch.ones(2, requires_grad=True), r"wrap it in nn\.Parameter"),
    ],
)
def test_what_torch_does_not_see_is_named(hide, words):
    with pytest.raises(ValueError, match=words):
        make(lambda: Hidden(hide))


@pytest.mark.parametrize(
    "hide",
    [
        lambda net: [net, net.seen, net.seen.weight],
        lambda net: [nn.Linear(2, 2).requires_grad_(False), torch.ones(2), "text", 3],
        lambda net: {"names": ["a", "b"], "relu": nn.ReLU()},
        lambda net: net.seen.weight * 2,
    ],
    ids=["registered", "frozen", "values", "computed"],
)
def test_what_torch_sees_or_nobody_trains_may_be_held_anywhere(hide):
    assert make(lambda: Hidden(hide)).seen.weight.requires_grad


def test_a_container_that_holds_itself_is_looked_through_once():
    def hide(_):
        around = []
        around.append(around)
        return around

    make(lambda: Hidden(hide))


def test_torchs_own_modules_pass():
    make(lambda: nn.LSTM(3, 2))
    make(lambda: nn.TransformerEncoderLayer(4, 2))


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (lambda: None, r"must return a torch\.nn\.Module, got NoneType"),
        (lambda: lambda inputs: inputs, r"must return a .*Module, got function"),
        (nn.Identity, "must have a parameter to train, got none"),
        (
            lambda: nn.Linear(2, 2).requires_grad_(False),
            "got 2, all with requires_grad=False",
        ),
        (
            lambda: nn.Sequential(nn.LazyLinear(3)),
            r"must know its shapes, and 0\.weight has none yet",
        ),
        (
            lambda: nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)),
            "must have no batch norm, .* BatchNorm1d at 1: use group norm",
        ),
    ],
)
def test_what_cannot_be_trained_is_named(net, words):
    with pytest.raises(ValueError, match=words):
        make(net)
