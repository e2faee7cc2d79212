"""Statistics of the gradients of single examples."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from batchramp.gradient_variance.examples import Moments, Stacked
from batchramp.gradient_variance.layers import Layers, Part, random_states, run_layers
from batchramp.gradient_variance.statistics import (
    GradientStatistics,
    check_names,
    orthogonal_part,
)
from batchramp.gradient_variance.sums import squared_norm_on_device
from batchramp.values import whole

Loss = Callable[[Tensor, Tensor], Tensor]
"""`(outputs, targets) -> (batch,)`, one loss a sample."""

CPU_BYTES, DEVICE_BYTES = 2**25, 2**30
"""Memory bounds unless named: on a CPU, more than its caches hold is slower."""


def per_example_statistics(
    model: nn.Module,
    loss: Loss,
    inputs: Tensor,
    targets: Tensor,
    names: Collection[str],
    *,
    max_bytes: int | None = None,
) -> GradientStatistics:
    """Returns statistics of the gradients of single examples, K of them.

    The model is run in the mode that it is in. Where all trainable parameters belong to
    linear and plain convolution layers, one plain pass over the examples gives what is
    needed (`layers`); otherwise torch.func's vmap(grad) runs over chunks of them, twice
    for `inner_products` and `orthogonal` unless one chunk holds all.

    Args:
        model: Its gradients are by its trainable parameters; their `.grad` is left
            alone.
        loss: One value a sample: what a mean or a sum would divide by is not asked for.
        inputs: Shape (K, ...), K at least 2.
        targets: Shape (K, ...).
        names: Which of `STATISTICS`.
        max_bytes: The most bytes of per-example gradients (with a convolution's unfolded
            inputs) to hold at a time, beside the activations of a plain pass over all
            examples; at least one example's are held. `CPU_BYTES` or `DEVICE_BYTES`
            unless named.

    Raises:
        ValueError: If a name is unknown, there are fewer than 2 examples, the loss gives
            no value a sample, nothing is trainable, the model has batch norm whose
            statistics are the batch's, or vmap cannot run it.
    """
    wanted = check_names(names)
    check_per_example(model)
    if len(inputs) != len(targets) or len(inputs) < 2:
        raise ValueError(
            "inputs and targets must have the same length, at least 2, got "
            f"{len(inputs)} and {len(targets)}"
        )
    if max_bytes is None:
        max_bytes = CPU_BYTES if inputs.device.type == "cpu" else DEVICE_BYTES
    whole("max_bytes", max_bytes, least=1)
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not named:
        raise ValueError("model must have a trainable parameter, got none")
    parameters = list(named.values())
    with torch.enable_grad():
        source: Layers | _Mapped | None = run_layers(
            model, loss, inputs, targets, parameters, max_bytes
        )
    if source is None:
        source = _Mapped(model, loss, inputs, targets, named, max_bytes)
    with torch.no_grad():
        return _gather(source, wanted, parameters, len(inputs))


def check_per_example(model: nn.Module) -> None:
    """Refuses a model in which samples mix, so that none has a gradient of its own.

    Raises:
        ValueError: If a batch norm would use the statistics of its batch.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
            module.training or module.running_mean is None
        ):
            raise ValueError(
                "per-example statistics need a model in which samples do not mix, got "
                f"{type(module).__name__} with its batch's statistics at "
                f"{name or 'the top'}: use micro_batch_statistics (between "
                "micro-batches), model.eval(), or group norm"
            )


class _Mapped:
    """Per-example gradients by vmap(grad), in chunks."""

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        inputs: Tensor,
        targets: Tensor,
        named: dict[str, nn.Parameter],
        max_bytes: int,
    ) -> None:
        self._parameters = {name: p.detach() for name, p in named.items()}
        self._inputs, self._targets = inputs, targets
        each = sum(p.numel() * p.element_size() for p in named.values())
        self._size = max(1, max_bytes // max(1, each))
        self._kept: list[Part] | None = None
        self._generators: list[Tensor] | None = None

        def loss_of_one(
            parameters: dict[str, Tensor], one: Tensor, target: Tensor
        ) -> Tensor:
            losses = loss(
                functional_call(model, parameters, (one[None],)), target[None]
            )
            if losses.shape != (1,):
                raise ValueError(
                    "loss must give one value a sample, shape (1,) for one, got "
                    f"{tuple(losses.shape)}"
                )
            return losses[0]

        self._gradients = vmap(grad(loss_of_one), (None, 0, 0), randomness="different")

    def parts(self) -> Iterator[Part]:
        """Yields all gradients, some examples at a time; the same ones each time."""
        if self._kept is not None:
            yield from self._kept
            return
        if self._size >= len(self._inputs):
            self._kept = list(self._compute())
            yield from self._kept
            return
        self._repeat_random_numbers()
        yield from self._compute()

    def _compute(self) -> Iterator[Part]:
        for start in range(0, len(self._inputs), self._size):
            where = slice(start, start + self._size)
            try:
                found = self._gradients(
                    self._parameters, self._inputs[where], self._targets[where]
                )
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError) as error:
                raise ValueError(
                    "model must run under torch.func's vmap(grad), and does not "
                    f"({str(error).splitlines()[0]}): use micro_batch_statistics "
                    "(between micro-batches)"
                ) from error
            yield where, {i: Stacked(part) for i, part in enumerate(found.values())}

    def _repeat_random_numbers(self) -> None:
        """A second pass draws the dropouts of the first, and ends where that ended."""
        device = self._inputs.device
        if self._generators is None:
            self._generators = random_states(device)
        else:
            torch.random.set_rng_state(self._generators[0])
            for state in self._generators[1:]:
                torch.cuda.set_rng_state(state, device)


def _gather(
    source: Layers | _Mapped,
    wanted: frozenset[str],
    parameters: list[nn.Parameter],
    count: int,
) -> GradientStatistics:
    """One pass over the gradients; a second one for products with their mean."""
    like = parameters[0]
    norms = torch.zeros(count, dtype=torch.float64, device=like.device)
    spread = "variance" in wanted
    totals: dict[int, Tensor] = {}
    moments: dict[int, Moments] = {}
    for where, part in source.parts():
        for index, gradients in part.items():
            if spread:
                fresh = gradients.moments()
                before = moments.get(index)
                moments[index] = before.merged(fresh) if before else fresh
            else:
                fresh_total = gradients.total()
                if index in totals:
                    totals[index] += fresh_total
                else:
                    totals[index] = fresh_total
            if wanted & {"sum_squared_norms", "orthogonal"}:
                norms[where] += gradients.squared_norms()
    mean = [
        # Half precision would lose what the squared norm is taken of.
        (moments[index].mean if spread else totals[index] / count).to(
            torch.promote_types(parameter.dtype, torch.float32)
        )
        for index, parameter in enumerate(parameters)
    ]
    found: dict[str, Tensor] = {"sum_squared_norms": norms.sum()}
    if wanted & {"squared_norm_of_mean", "orthogonal"}:
        found["squared_norm_of_mean"] = squared_norm_on_device(mean)
    if wanted & {"inner_products", "orthogonal"}:
        products = torch.zeros_like(norms)
        for where, part in source.parts():
            for index, gradients in part.items():
                products[where] += gradients.inner_products(mean[index])
        found["inner_products"] = products
    if "orthogonal" in wanted:
        found["orthogonal"] = orthogonal_part(
            norms, found["inner_products"], found["squared_norm_of_mean"]
        )
    variance = None
    if spread:
        variance = tuple(
            moments[index].squares / (count - 1) for index in range(len(parameters))
        )
    return GradientStatistics(
        count=count,
        batch_size=1,
        mean=tuple(mean),
        variance=variance,
        **{name: found[name] for name in found if name in wanted},
    )
