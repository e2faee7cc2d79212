"""Per-example gradients from what linear and convolution layers take and give.

One plain forward and backward pass, as for a mean loss, gives each layer's inputs and the
gradients by its outputs; an example's gradient is their product. That is faster than
torch.func's vmap(grad), but holds only for models made of such layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn.functional import pad

from batchramp.gradient_variance.draws import moved, random_states
from batchramp.gradient_variance.examples import (
    ExampleGradients,
    Outer,
    Stacked,
    wide,
)
from batchramp.gradient_variance.objective import (
    Objective,
    full_precision,
    parameter_uses,
)
from batchramp.gradient_variance.samples import Samples
from batchramp.gradient_variance.single import Part


@dataclass
class _Call:
    """One call of a layer: its inputs, and where the gradients by its outputs arrive."""

    inputs: Tensor
    version: int
    edge: GradientEdge
    deltas: Tensor | None = None


class Layers:
    """What the layers of a model took and gave for some examples.

    Args:
        calls: The call of each layer.
        parameters: The model's trainable parameters, in order.
        max_bytes: The most bytes of gradients and unfolded inputs at a time.
    """

    def __init__(
        self,
        calls: dict[nn.Module, _Call],
        parameters: Sequence[Tensor],
        max_bytes: int,
    ) -> None:
        self._calls = calls
        self._parameters = parameters
        self._index = {id(parameter): i for i, parameter in enumerate(parameters)}
        self._max_bytes = max_bytes

    def parts(self) -> Iterator[Part]:
        """Yields all gradients, layer by layer, some examples at a time."""
        for layer, call in self._calls.items():
            assert call.deltas is not None
            size = max(1, self._max_bytes // _bytes_per_example(layer, call))
            for start in range(0, len(call.inputs), size):
                where = slice(start, start + size)
                inputs, deltas = call.inputs[where], call.deltas[where]
                with full_precision(inputs.device):
                    found = self._gradients(layer, inputs, deltas)
                yield where, found

    def squared_norms(self) -> Tensor:
        """Returns the squared norm of each example's gradient, shape (K,), float64."""
        first = next(iter(self._calls.values())).inputs
        norms = torch.zeros(len(first), dtype=torch.float64, device=first.device)
        for where, part in self.parts():
            with full_precision(first.device):
                for gradients in part.values():
                    norms[where] += gradients.squared_norms()
        return norms

    def _gradients(
        self, layer: nn.Module, inputs: Tensor, deltas: Tensor
    ) -> dict[int, ExampleGradients]:
        weight: ExampleGradients
        # Under autocast, deltas are of half precision beside inputs of single.
        dtype = wide(torch.promote_types(inputs.dtype, deltas.dtype))
        inputs, deltas = inputs.to(dtype), deltas.to(dtype)
        if isinstance(layer, nn.Conv2d):
            inputs = _patches(layer, inputs, deltas)
            deltas = deltas.flatten(2)
            products = torch.bmm(deltas, inputs.transpose(1, 2))
            weight = Stacked(products.view(len(products), *layer.weight.shape))
            deltas = deltas.sum(2)
        elif inputs.ndim == 2:
            weight = Outer(deltas, inputs)
        else:  # positions between the examples and the features
            deltas, inputs = deltas.flatten(1, -2), inputs.flatten(1, -2)
            weight = Stacked(torch.bmm(deltas.transpose(1, 2), inputs))
            deltas = deltas.sum(1)
        assert isinstance(layer.weight, Tensor)
        found = {id(layer.weight): weight}
        if isinstance(layer.bias, Tensor):
            found[id(layer.bias)] = Stacked(deltas)
        return {
            self._index[key]: gradients
            for key, gradients in found.items()
            if key in self._index
        }


def run_layers(objective: Objective, samples: Samples, max_bytes: int) -> Layers | None:
    """Runs the model forward and backward once; None if its layers do not tell all.

    That is so where a trainable parameter belongs to no `nn.Linear` or plain
    `nn.Conv2d`, is used more than once, or where a layer does not keep the examples in
    the first dimension; and where random numbers were drawn. That the first dimension
    is the examples', and no other one as long, is not known here.
    """
    model, parameters = objective.model, objective.parameters
    layers = [module for module in model.modules() if _is_plain(module)]
    owned = Counter(id(own) for layer in layers for own in _own(layer))
    if any(owned[id(parameter)] != 1 for parameter in parameters):
        return None
    trained = {id(parameter) for parameter in parameters}
    layers = [
        layer for layer in layers if any(id(own) in trained for own in _own(layer))
    ]
    calls: dict[nn.Module, list[_Call]] = {layer: [] for layer in layers}

    def note(layer: nn.Module, taken: tuple[Tensor, ...], given: Tensor) -> None:
        if taken and given.requires_grad:
            edge = get_gradient_edge(given)  # before anything changes it in place
            calls[layer].append(_Call(taken[0].detach(), taken[0]._version, edge))

    before = random_states(objective.device)
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        with torch.enable_grad():
            losses = objective.losses({}, samples)
    finally:
        for handle in handles:
            handle.remove()
    # What something else than its layer uses too has more gradient than that tells.
    uses = parameter_uses(losses)
    if any(len(noted) != 1 for noted in calls.values()) or any(
        uses[id(parameter)] != 1 for parameter in parameters
    ):
        return None
    if moved(before, objective.device):
        return None  # a dropout's numbers: an example alone would draw others
    first = {layer: noted[0] for layer, noted in calls.items()}
    edges = [call.edge for call in first.values()]
    with torch.enable_grad():
        total = losses.sum()
    deltas = torch.autograd.grad(total, edges)
    count = len(samples)
    for (layer, call), delta in zip(first.items(), deltas, strict=True):
        call.deltas = delta
        changed = call.inputs._version != call.version
        if changed or not len(call.inputs) == len(delta) == count:
            return None
        if isinstance(layer, nn.Conv2d) and delta.ndim != 4:
            return None
    return Layers(first, parameters, max_bytes)


def _own(layer: nn.Module) -> list[Tensor]:
    """The weight and the bias: all that a plain layer has."""
    return [own for own in (layer.weight, layer.bias) if isinstance(own, nn.Parameter)]


def _is_plain(module: nn.Module) -> bool:
    if module._forward_hooks or module._backward_hooks or module._backward_pre_hooks:
        return False  # they may change what the layer gives
    if type(module) is nn.Linear:
        return not module.weight.is_complex()
    return (  # by the type first: a weight that is computed would be computed here
        type(module) is nn.Conv2d
        and not module.weight.is_complex()
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def _patches(layer: nn.Conv2d, inputs: Tensor, deltas: Tensor) -> Tensor:
    """What each place of the outputs looked at: shape (n, weights of a filter, places).

    torch's `unfold`, but as one strided copy, which takes a third of its time on a CPU.
    """
    padding = layer.padding
    assert not isinstance(padding, str)
    rows, columns = padding
    padded = pad(inputs, (columns, columns, rows, rows))
    example, channel, down, right = padded.stride()
    steps = (
        *(down * layer.dilation[0], right * layer.dilation[1]),
        *(down * layer.stride[0], right * layer.stride[1]),
    )
    count, channels = padded.shape[:2]
    shape = (count, channels, *layer.kernel_size, *deltas.shape[2:])
    windows = padded.as_strided(shape, (example, channel, *steps))
    return windows.reshape(count, layer.weight[0].numel(), -1)


def _bytes_per_example(layer: nn.Module, call: _Call) -> int:
    assert call.deltas is not None
    if isinstance(layer, nn.Linear) and call.inputs.ndim == 2:
        numbers = layer.in_features + layer.out_features
    else:
        assert isinstance(layer.weight, Tensor)
        numbers = layer.weight.numel()
        if isinstance(layer, nn.Conv2d):
            numbers += layer.weight[0].numel() * call.deltas[0, 0].numel()
    return numbers * max(call.inputs.element_size(), 4)  # as summed
