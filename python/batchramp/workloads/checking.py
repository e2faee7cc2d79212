"""What a workload and its data must be, each said with the line to write instead."""

from __future__ import annotations

import inspect

import torch
from torch import nn

from batchramp.values import shown


def check_tensor(name: str, value: object) -> None:
    """Refuse what is no dense tensor of samples.

    Args:
        name: What messages call it, such as `inputs`.
        value: What a user gave.

    Raises:
        ValueError: It is no tensor, has no samples to count, is sparse, quantized,
            nested or without values, or requires a gradient.
    """
    if not isinstance(value, torch.Tensor):
        kind = type(value).__name__
        got, made = _article(kind), "torch.tensor"
        if type(value).__module__ == "numpy":
            got, made = f"NumPy's {kind}", "torch.from_numpy"
        raise ValueError(
            f"{name} of a Split must be a tensor, got {got}: write {made}({name})"
        )
    wrong = None
    if value.is_nested:
        wrong = "one dense tensor, got a nested one: pad its samples to one shape"
    elif value.layout != torch.strided:
        wrong = f"dense, got {value.layout}: write {name}.to_dense()"
    elif value.is_quantized:
        wrong = f"of a plain dtype, got {value.dtype}: write {name}.dequantize()"
    elif value.is_meta:
        wrong = "on a device that holds values, got the device meta"
    elif value.dim() == 0:
        wrong = "of shape (samples, ...), got a tensor of no dimension"
    elif value.requires_grad:
        wrong = f"without a gradient, got requires_grad=True: write {name}.detach()"
    if wrong:
        raise ValueError(f"{name} of a Split must be {wrong}")


def check_function(name: str, value: object, arguments: tuple[str, ...]) -> None:
    """Refuse what cannot be called with so many arguments.

    Raises:
        ValueError: It is not callable, or takes other arguments.
    """
    form = f"a function of ({', '.join(arguments)})"
    if not callable(value):
        raise ValueError(f"{name} must be {form}, got {shown(value)}")
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # some of those written in C show none
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        called = getattr(value, "__name__", type(value).__name__)
        raise ValueError(f"{name} must be {form}, got {called}{signature}") from error


def check_per_sample(name: str, value: object) -> None:
    """Refuse what is known to give no one value a sample, before it is ever called.

    Args:
        name: What messages call it, such as `loss of workload 'w'`.
        value: A loss or a metric.

    Raises:
        ValueError: It is a class, one of torch's losses that reduces to a scalar, or a
            module with parameters that no trial would train.
    """
    field = name.partition(" ")[0]
    if isinstance(value, type):
        made = f"{value.__name__}()"
        if issubclass(value, nn.modules.loss._Loss):
            made = f"{value.__name__}(reduction='none')"
        raise ValueError(
            f"{name} must be a function, got the class {value.__name__}: write "
            f"{field}={made}"
        )
    kind = type(value).__name__
    if isinstance(value, nn.modules.loss._Loss) and value.reduction != "none":
        raise ValueError(
            f"{name} must give one value a sample, got {kind} with "
            f"reduction={value.reduction!r}: write {field}={kind}(reduction='none')"
        )
    if isinstance(value, nn.Module) and any(
        p.requires_grad for p in value.parameters()
    ):
        raise ValueError(
            f"{name} must have no parameters to train, got {kind}: those of the model "
            "are trained, and no others"
        )


def check_factory(name: str, value: object) -> None:
    """Refuse a model where a function is due that makes a new one at each call.

    Raises:
        ValueError: It is a `torch.nn.Module`, not a function that makes one.
    """
    if isinstance(value, nn.Module):
        raise ValueError(
            f"{name} must be a function that makes a new model at each call, got "
            f"{_article(type(value).__name__)} that is made already: write "
            "def make(): return ... and model=make"
        )


def check_texts(name: str, value: object) -> None:
    """Refuse what is no tuple of texts.

    Raises:
        ValueError: It is one text, no tuple or list, or holds something else.
    """
    if isinstance(value, str):
        raise ValueError(
            f"{name} must be a tuple, got a text: write targets=({value!r},)"
        )
    texts = isinstance(value, tuple | list) and all(isinstance(v, str) for v in value)
    if not texts:
        raise ValueError(
            f"{name} must be a tuple of texts such as 'metric >= 0.9', got {shown(value)}"
        )


def _article(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"
