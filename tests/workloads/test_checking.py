"""What no trial could be made of is refused when it is written, with what to write."""

import numpy as np
import pytest
import torch
from torch import nn

from batchramp.workloads import Data, Split, Workload, cross_entropy

ROWS, CLASSES = torch.ones(4, 2), torch.zeros(4, dtype=torch.int64)


def make(**changes):
    given = {"name": "w", "load": lambda folder, seed: None, "model": nn.Identity}
    return Workload(**given | changes)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (
            [[0.0, 1.0]] * 4,
            r"must be a tensor, got a list: write torch\.tensor\(inputs",
        ),
        (ROWS.numpy(), r"got NumPy's ndarray: write torch\.from_numpy\(inputs\)"),
        (np.float32(1), r"must be a tensor, got NumPy's float32"),
        (None, "must be a tensor, got a NoneType"),
        (ROWS.to_sparse(), r"must be dense, got torch\.sparse_coo: write .*to_dense"),
        (ROWS.to("meta"), "must be on a device that holds values, got the device meta"),
        (
            ROWS.clone().requires_grad_(),
            r"requires_grad=True: write inputs\.detach\(\)",
        ),
        (nn.Parameter(ROWS.clone()), r"write inputs\.detach\(\)"),
        (torch.tensor(1.0), r"of shape \(samples, \.\.\.\), got a tensor of no dim"),
    ],
)
def test_what_is_no_dense_tensor_is_no_part_of_a_split(inputs, words):
    with pytest.raises(ValueError, match=f"^inputs of a Split .*{words}"):
        Split(inputs, CLASSES)
    other = words.replace("inputs", "targets")
    with pytest.raises(ValueError, match=f"^targets of a Split .*{other}"):
        Split(ROWS, inputs)


@pytest.mark.filterwarnings("ignore")  # torch may drop both kinds
def test_nested_and_quantized_tensors_are_no_part_of_a_split():
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    with pytest.raises(ValueError, match="one dense tensor, got a nested one"):
        Split(nested, CLASSES[:2])
    quantized = torch.quantize_per_tensor(ROWS, 0.1, 0, torch.quint8)
    with pytest.raises(ValueError, match=r"write inputs\.dequantize\(\)"):
        Split(quantized, CLASSES)


def test_data_are_of_two_splits():
    split = Split(ROWS, CLASSES)
    with pytest.raises(ValueError, match=r"test of Data must be a Split, got tuple"):
        Data(train=split, test=(ROWS, CLASSES))
    with pytest.raises(ValueError, match=r"write train=Split\(inputs, targets\)"):
        Data(train=None, test=split)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": ""}, "name of a workload must be a text, got ''"),
        ({"name": " "}, "name of a workload must be a text"),
        ({"name": 3}, "name of a workload must be a text, got 3"),
        (
            {"targets": "metric >= 0.9"},
            r"got a text: write targets=\('metric >= 0.9',\)",
        ),
        ({"targets": (0.9,)}, r"must be a tuple of texts such as .*got \(0.9,\)"),
        (
            {"load": None},
            r"load of workload 'w' must be a function of \(data_dir, seed",
        ),
        ({"load": lambda seed: None}, r"\(data_dir, seed\), got <lambda>\(seed\)"),
        ({"model": nn.Linear(2, 2)}, "makes a new model at each call, got a Linear"),
        ({"model": nn.Linear}, r"model of .* must be a function of \(\), got Linear\("),
        ({"model": 7}, r"must be a function of \(\), got 7"),
        ({"loss": nn.CrossEntropyLoss}, r"loss=CrossEntropyLoss\(reduction='none'\)"),
        ({"loss": nn.CrossEntropyLoss()}, r"reduction='mean': write loss=Cross"),
        ({"loss": lambda outputs: outputs}, r"function of \(outputs, targets\), got"),
        ({"metric": nn.Linear(2, 2)}, "metric of .* must have no parameters to train"),
        ({"metric": nn.L1Loss()}, r"metric=L1Loss\(reduction='none'\)"),
        ({"metric": "accuracy"}, r"function of \(outputs, targets\), got 'accuracy'"),
    ],
)
def test_a_workload_that_no_trial_could_run(changes, words):
    with pytest.raises(ValueError, match=words):
        make(**changes)


def test_a_name_that_is_missing_is_named():
    with pytest.raises(TypeError, match=r"missing 1 required .* argument: 'name'"):
        Workload(load=lambda folder, seed: None, model=nn.Identity)


def test_classes_and_objects_may_be_the_functions():
    class Net(nn.Module):
        pass

    made = make(model=Net, loss=nn.CrossEntropyLoss(reduction="none"), metric=max)
    assert made.model is Net
    assert make().loss is cross_entropy


@pytest.mark.parametrize(
    "dtype",
    [
        torch.bfloat16,
        torch.float8_e4m3fn,
        torch.float64,
        torch.complex64,
        torch.bool,
        torch.uint16,
    ],
    ids=str,
)
def test_data_of_every_dtype_have_a_digest_of_all_bytes(dtype):
    one = torch.tensor([[0, 1], [1, 0], [1, 1]]).to(dtype)
    two = one.clone()
    two[2, 1] = 0
    classes = torch.zeros(3, dtype=torch.int64)
    digests = [
        Data(Split(inputs, classes), Split(one, classes)).digest()
        for inputs in (one, one.clone(), two, one.T.contiguous().T)
    ]
    assert digests[0] == digests[1] == digests[3] != digests[2]


def test_a_digest_of_views_is_of_their_values():
    complex_values = torch.complex(ROWS, ROWS)
    for view in (complex_values.conj(), complex_values.conj().imag):
        split = Split(view, CLASSES)
        plain = Split(view.resolve_conj().resolve_neg(), CLASSES)
        assert Data(split, split).digest() == Data(plain, plain).digest()


def test_data_changed_since_they_were_made_are_looked_at_again():
    data = Data(Split(ROWS.clone(), CLASSES), Split(ROWS, CLASSES))
    data.train.inputs.requires_grad_()
    with pytest.raises(ValueError, match=r"write inputs\.detach\(\)"):
        data.digest()


def test_digests_are_pinned_for_ever():
    inputs = torch.arange(8, dtype=torch.float32).reshape(4, 2)
    split = Split(inputs, CLASSES)
    assert Data(split, split).digest().startswith("6ee259c45ee39bab")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_data_must_be_loaded_on_the_cpu():
    split = Split(ROWS, CLASSES)
    with pytest.raises(ValueError, match=r"^test targets must be loaded on the CPU"):
        Data(split, Split(ROWS, CLASSES.cuda())).digest()
