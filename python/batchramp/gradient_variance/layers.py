"""Per-example gradients from what linear and convolution layers take and give.

One plain forward and backward pass, as for a mean loss, gives each layer's inputs and the
gradients by its outputs; an example's gradient is their product. That is faster than
torch.func's vmap(grad), but holds only for models made of such layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn.functional import pad

from batchramp.gradient_variance.examples import ExampleGradients, Outer, Stacked

Part = tuple[slice, dict[int, ExampleGradients]]
"""Some examples, and their gradients by some parameters, by the parameters' indices."""


_CHECKED: WeakKeyDictionary[nn.Module, set[tuple[torch.Size, bool]]] = (
    WeakKeyDictionary()
)
"""Models, and shapes of inputs, of which the first example was compared: a comparison
waits for the device."""


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
                yield (
                    where,
                    self._gradients(layer, call.inputs[where], call.deltas[where]),
                )

    def tells(self, alone: Tensor, losses: Tensor) -> bool:
        """Whether the first example's gradient is the one that it has alone.

        It is not where another dimension is taken for that of the examples.

        Args:
            alone: Its loss without the others, shape (1,).
            losses: All losses.

        Raises:
            ValueError: If even its loss is another one: then the samples mix.
        """
        if losses.is_meta:  # no values to compare
            return True
        first = losses[:1].detach()
        if not torch.allclose(alone.detach(), first, 1e-2, 1e-4, equal_nan=True):
            raise ValueError(
                "per-example statistics need a model in which samples do not mix, got "
                f"a loss of {float(first):g} for the first sample beside the others and "
                f"of {float(alone.detach()):g} alone: use micro_batch_statistics "
                "(between micro-batches)"
            )
        expected = torch.autograd.grad(
            alone.sum(), self._parameters, allow_unused=True, materialize_grads=True
        )
        off = torch.zeros_like(first, dtype=torch.float64)
        whole = torch.zeros_like(off)
        for layer, call in self._calls.items():
            assert call.deltas is not None
            found = self._gradients(layer, call.inputs[:1], call.deltas[:1])
            for index, gradients in found.items():
                difference = gradients.total() - expected[index]
                off += difference.double().square().sum()
                whole += expected[index].double().square().sum()
        return not bool(off > 1e-4 * whole + 1e-20)

    def _gradients(
        self, layer: nn.Module, inputs: Tensor, deltas: Tensor
    ) -> dict[int, ExampleGradients]:
        weight: ExampleGradients
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


def run_layers(
    model: nn.Module,
    loss: Any,
    inputs: Tensor,
    targets: Tensor,
    parameters: Sequence[Tensor],
    max_bytes: int,
) -> Layers | None:
    """Runs the model forward and backward once; None if its layers do not tell all.

    That is so where a trainable parameter belongs to no `nn.Linear` or plain
    `nn.Conv2d`, is used more than once, or where a layer does not keep the examples in
    the first dimension.
    """
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

    before = random_states(inputs.device)
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        losses = loss(model(inputs), targets)
    finally:
        for handle in handles:
            handle.remove()
    if losses.shape != (len(inputs),):
        raise ValueError(
            f"loss must give one value a sample, shape ({len(inputs)},), got "
            f"{tuple(losses.shape)}"
        )
    uses = _uses(losses)
    if any(len(noted) != 1 for noted in calls.values()) or any(
        uses[id(parameter)] != 1 for parameter in parameters
    ):
        return None
    pairs = zip(random_states(inputs.device), before, strict=True)
    if not all(torch.equal(now, then) for now, then in pairs):
        return None  # a dropout's numbers: an example alone would draw others
    first = {layer: noted[0] for layer, noted in calls.items()}
    edges = [call.edge for call in first.values()]
    deltas = torch.autograd.grad(losses.sum(), edges)
    for (layer, call), delta in zip(first.items(), deltas, strict=True):
        call.deltas = delta
        changed = call.inputs._version != call.version
        if changed or not len(call.inputs) == len(delta) == len(inputs):
            return None
        if isinstance(layer, nn.Conv2d) and delta.ndim != 4:
            return None
    found = Layers(first, parameters, max_bytes)
    checked = _CHECKED.setdefault(model, set())
    if (inputs.shape, model.training) not in checked:
        try:
            alone = loss(model(inputs[:1]), targets[:1])
        except (RuntimeError, ValueError):  # vmap says what is wrong
            return None
        if not found.tells(alone, losses):
            return None
        checked.add((inputs.shape, model.training))
    return found


def random_states(device: torch.device) -> list[Tensor]:
    """Returns the state of the CPU's generator, and of the device's if that is a GPU."""
    states = [torch.random.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def _own(layer: nn.Module) -> list[Tensor]:
    """The weight and the bias: all that a plain layer has."""
    return [own for own in (layer.weight, layer.bias) if isinstance(own, nn.Parameter)]


def _is_plain(module: nn.Module) -> bool:
    if module._forward_hooks or module._backward_hooks or module._backward_pre_hooks:
        return False  # they may change what the layer gives
    if type(module) is nn.Linear:
        return True
    return (
        type(module) is nn.Conv2d
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def _uses(losses: Tensor) -> Counter[int]:
    """How often the graph behind the losses uses each parameter.

    A parameter that something else than its layer uses too has more gradient than
    the layer tells.
    """
    uses: Counter[int] = Counter()
    seen, left = set(), [losses.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for following, _ in node.next_functions:
            parameter = getattr(following, "variable", None)
            if parameter is not None:
                uses[id(parameter)] += 1
            left.append(following)
    return uses


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
    return numbers * call.inputs.element_size()
