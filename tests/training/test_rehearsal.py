"""What would make every trial fail is told by name before one is run, and in the trial."""

import math
import sys
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn import functional

from batchramp.schedules import make
from batchramp.training.loop import run_trial
from batchramp.training.rehearsal import rehearse
from batchramp.training.torch_settings import settings_kept, torch_settings
from batchramp.training.trial import Trial
from batchramp.workloads import Data, Split, Workload, cross_entropy

CPU = torch.device("cpu")
N, TESTS = 1500, 40


def load(folder=None, seed=0):
    generator = torch.Generator().manual_seed(seed % 2**63)
    inputs = torch.randn(N + TESTS, 2, generator=generator)
    targets = (inputs.norm(dim=1) > 1.2).long()
    return Data(Split(inputs[:N], targets[:N]), Split(inputs[N:], targets[N:]))


def network():
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))


GOOD = Workload(name="w", load=load, model=network)


def make_trial(workload=GOOD, **changes):
    given = {"seed": 0, "epochs": Fraction(1), "cadence": Fraction(1, 2)}
    schedule = make("constant", batch_size=500, lr=0.1)
    return Trial(workload=workload, schedule=schedule, **(given | changes))


def told(workload=GOOD, data=None, **changes):
    """What both a rehearsal and a trial say, which must be one and the same."""
    data = data or load()
    trial = make_trial(workload, **changes)
    with pytest.raises(ValueError, match=r".") as caught:
        rehearse(trial, data, CPU)
    record = run_trial(trial, data, CPU)
    assert (record.status, record.rows) == ("failed", ())
    assert record.error == str(caught.value)
    assert "Traceback" in record.traceback
    return record.error


def test_what_can_be_trained_passes_in_silence():
    rehearse(make_trial(), load(), CPU)
    adaptive = make("noise-scale", batch_size=8, max_batch_size=64)
    rehearse(replace(make_trial(), schedule=adaptive, micro_batch=2), load(), CPU)
    record = run_trial(make_trial(), load(), CPU)
    assert record.status == "finished", record.error


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, inputs):
        return self.act(self.layer(inputs))


class Late(Net):
    def act(self, outputs):
        if not hasattr(self, "scale"):
            self.scale = nn.Parameter(torch.ones(()))
        return outputs * self.scale


class Detached(Net):
    def act(self, outputs):
        return outputs.detach()


class Dictionary(Net):
    def act(self, outputs):
        return {"logits": outputs}


class Wrong(Net):
    def act(self, outputs):
        return outputs.view(7, -1)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            lambda: nn.Linear(3, 2),
            "model of workload 'w' on train inputs of shape (1500, 2): RuntimeError: ",
        ),
        (Detached, "must depend on the model's parameters, and no gradient reaches"),
        (
            Late,
            "must have all parameters where it is made, and its first call made scale",
        ),
        (Dictionary, "loss of workload 'w': TypeError: cross_entropy"),
        (Wrong, "(test_rehearsal.py:"),
        (
            lambda: nn.Sequential(network(), nn.BatchNorm1d(2)),
            "must have no batch norm",
        ),
    ],
    ids=["width", "detached", "late", "dictionary", "own error", "batch norm"],
)
def test_a_model_that_does_not_fit(model, words):
    assert words in told(replace(GOOD, model=model))


ONE_VALUE = "of workload 'w' must give one value a sample, a tensor of shape (1000,)"


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (functional.cross_entropy, f"loss {ONE_VALUE}, got one number for all: leave"),
        (
            lambda o, t: functional.mse_loss(o, o.detach() + 1, reduction="none"),
            f"loss {ONE_VALUE}, got (1000, 2) from outputs (1000, 2) and targets (1000,)",
        ),
        (lambda o, t: None, f"loss {ONE_VALUE}, got NoneType"),
        (lambda o, t: o.argmax(1), "loss of workload 'w' must be of a floating dtype"),
        (
            lambda o, t: cross_entropy(o, t) * math.nan,
            "the loss at train sample 0 of workload 'w' is nan before the first update",
        ),
        (
            lambda o, t: cross_entropy(o, t + 1),
            "loss of workload 'w': IndexError: Target 2 is out of bounds",
        ),
    ],
    ids=["scalar", "matrix", "none", "whole", "nan", "classes"],
)
def test_a_loss_that_gives_no_value_a_sample(loss, words):
    assert words in told(replace(GOOD, loss=loss))


ONE_SCORE = (
    f"metric of workload 'w' must give one value a sample, a tensor of shape ({TESTS},)"
)


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        (lambda o, t: (o.argmax(1) == t).float().mean(), "got one number for all"),
        (
            lambda o, t: (o.argmax(1, keepdim=True) == t).float(),
            f"got ({TESTS}, {TESTS}) from outputs ({TESTS}, 2) and targets ({TESTS},)",
        ),
        (lambda o, t: (o.argmax(1) == t)[:, None], f"got ({TESTS}, 1) from outputs"),
        (lambda o, t: float((o.argmax(1) == t).float().mean()), "got float"),
        (lambda o, t: (o.argmax(1) == t).numpy(), "got ndarray"),
        (lambda o, t: (o.argmax(1) == t).tolist(), "got list"),
    ],
    ids=["mean", "broadcast", "column", "float", "array", "list"],
)
def test_a_metric_that_gives_no_value_a_sample(metric, words):
    error = told(replace(GOOD, metric=metric))
    assert error.startswith(ONE_SCORE)
    assert words in error


@pytest.mark.parametrize(
    "metric",
    [
        lambda o, t: o.argmax(1) == t,
        lambda o, t: (o.argmax(1) == t).int(),
        lambda o, t: (o.argmax(1) == t).half(),
    ],
    ids=["bool", "int", "half"],
)
def test_a_metric_of_any_real_dtype_is_the_same(metric):
    record = run_trial(make_trial(replace(GOOD, metric=metric)), load(), CPU)
    plain = run_trial(make_trial(), load(), CPU)
    assert [row.metric for row in record.rows] == [row.metric for row in plain.rows]


def test_a_metric_of_nan():
    nan = replace(GOOD, metric=lambda o, t: (o.argmax(1) == t) * math.nan)
    words = "the metric at test sample 0 of workload 'w' is nan before the first update"
    assert told(nan) == words


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("sample", [7, N - 1])
def test_data_that_are_not_finite_are_named_wherever_they_are(value, sample):
    data = load()
    data.train.inputs[sample, 1] = value
    words = f"train inputs hold {value} at sample {sample}"
    assert told(data=data) == words


def test_test_data_of_nan_are_named_though_accuracy_is_a_number():
    data = load()
    data.test.inputs[7, 1] = math.nan
    assert told(data=data) == "test inputs hold nan at sample 7"


def test_data_that_are_not_finite_are_fine_where_the_model_knows():
    class Filling(nn.Sequential):
        def forward(self, inputs):
            return super().forward(inputs.nan_to_num())

    data = load()
    data.train.inputs[7, 1] = math.nan
    data.test.inputs[7, 1] = math.nan
    filling = replace(GOOD, model=lambda: Filling(nn.Linear(2, 2)))
    rehearse(make_trial(filling), data, CPU)


def relabelled(outputs, targets):
    targets[targets == 255] = 0
    return cross_entropy(outputs, targets)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(2, 2))},
        {"loss": relabelled},
        {"metric": lambda o, t: o.argmax(1) == t.neg_()},
    ],
    ids=["model", "loss", "metric"],
)
def test_data_that_are_changed_in_place(changes):
    data = load()
    before = data.digest()
    assert "data in place, which later looks" in told(replace(GOOD, **changes), data)
    assert data.digest() == before


def test_a_full_loss_that_is_not_finite_to_begin_with():
    # Beyond the first chunk only, and of data that are finite.
    data = load()
    data.train.inputs[N - 1] = 1e30

    def loss(outputs, targets):
        return cross_entropy(outputs, targets) + outputs.square().sum(1) * 0

    trial = make_trial(replace(GOOD, loss=loss), measures={"full_train_loss": 1})
    record = run_trial(trial, data, CPU)
    words = "the full training loss of workload 'w' is nan before the first update"
    assert (record.status, record.error) == ("failed", words)


def test_a_loss_that_is_nan_in_training_only():
    class Training(nn.Linear):
        def forward(self, inputs):
            outputs = super().forward(inputs)
            return outputs * math.nan if self.training else outputs

    words = "the loss in training mode of workload 'w' is nan before the first update"
    assert told(replace(GOOD, model=lambda: Training(2, 2))) == words


def test_an_exit_in_the_loss():
    def loss(outputs, targets):
        sys.exit(3)

    words = "loss of workload 'w': it calls exit: SystemExit: 3 (test_rehearsal.py:"
    assert told(replace(GOOD, loss=loss)).startswith(words)


def test_threads_that_the_workload_changes():
    threads = torch.get_num_threads()

    def model():
        torch.set_num_threads(threads + 1)
        return network()

    error = told_late(replace(GOOD, model=model))
    assert f"write threads = {threads + 1} in the suite instead" in error
    assert torch.get_num_threads() == threads


def told_late(workload):
    """As `told`, of what is known at a trial's end only."""
    with pytest.raises(ValueError, match=r".") as caught:
        rehearse(make_trial(workload), load(), CPU)
    record = run_trial(make_trial(workload), load(), CPU)
    assert (record.status, record.error) == ("failed", str(caught.value))
    return record.error


def test_settings_under_which_nothing_trains():
    with settings_kept():
        torch.set_grad_enabled(False)
        assert "gradients must be on" in told()
    with settings_kept():
        torch.set_default_device("meta")
        assert "default device must be the CPU" in told(data=load_on_cpu())


def load_on_cpu():
    with torch.device("cpu"):
        return load()


def test_a_rehearsal_leaves_data_settings_and_threads_as_they_were():
    data = load()
    before = data.digest(), torch_settings(), torch.get_num_threads()
    rehearse(make_trial(), data, CPU)
    told(replace(GOOD, loss=functional.cross_entropy))
    assert (data.digest(), torch_settings(), torch.get_num_threads()) == before


def test_a_rehearsal_trains_nothing_that_is_the_users():
    kept = []

    def model():
        kept.append(network())
        return kept[-1]

    rehearse(make_trial(replace(GOOD, model=model)), load(), CPU)
    first = run_trial(make_trial(replace(GOOD, model=model)), load(), CPU)
    again = run_trial(make_trial(), load(), CPU)
    assert [row.metric for row in first.rows] == [row.metric for row in again.rows]


class Fatal(BaseException):
    pass


def test_whatever_user_code_raises_is_told_alike():
    def loss(outputs, targets):
        raise Fatal("gone")

    assert "Fatal: gone (test_rehearsal.py:" in told(replace(GOOD, loss=loss))


@pytest.mark.filterwarnings("ignore:.*jit.script. is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_a_model_that_no_copy_can_be_trained_of_is_named():
    scripted = replace(GOOD, model=lambda: torch.jit.script(network()))
    assert "that the loss reaches, also in a copy of the model" in told(scripted)
