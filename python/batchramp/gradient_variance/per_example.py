"""Statistics of the gradients of single examples."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from batchramp.gradient_variance.draws import random_states, set_random_states
from batchramp.gradient_variance.examples import Moments, real, wide
from batchramp.gradient_variance.objective import (
    Objective,
    attributes_kept,
    full_precision,
)
from batchramp.gradient_variance.samples import (
    Inputs,
    Loss,
    Samples,
    Targets,
    unwrapped,
)
from batchramp.gradient_variance.single import NotMappable
from batchramp.gradient_variance.statistics import (
    GradientStatistics,
    check_names,
    orthogonal_part,
)
from batchramp.gradient_variance.sums import squared_norm_on_device
from batchramp.gradient_variance.ways import Source, choose, go_one_by_one
from batchramp.values import whole

CPU_BYTES, DEVICE_BYTES = 2**25, 2**30
"""Memory bounds unless named: on a CPU, more than its caches hold is slower."""


def per_example_statistics(
    model: nn.Module,
    loss: Loss,
    inputs: Inputs,
    targets: Targets,
    names: Collection[str],
    *,
    max_bytes: int | None = None,
) -> GradientStatistics:
    """Returns statistics of the gradients of single examples, K of them.

    The model is run in the mode that it is in. Where all trainable parameters belong to
    linear and plain convolution layers, one plain pass over the examples gives what is
    needed (`layers`); otherwise torch.func's vmap(grad) runs over chunks of them, or a
    loop over single ones where vmap cannot (with one `OneByOneWarning` a model), twice
    for `inner_products` and `orthogonal` unless one chunk holds all.

    The first time for a model, a loss, and shapes and dtypes of samples, all losses and
    the mean of the examples' gradients are compared with those of the plain batch
    (`mixing`); later calls are not, unless a flag in the model's modules changed.

    Args:
        model: Its gradients are by its trainable parameters; their `.grad`, its
            buffers and its attributes are left alone. What `DistributedDataParallel`,
            `DataParallel` or `torch.compile` wrapped is run without that: statistics
            are of this process's examples.
        loss: One value a sample: what a mean or a sum would divide by is not asked for.
        inputs: A tensor, shape (K, ...), K at least 2: `model(inputs)`. Or a sequence
            of them: `model(*inputs)`. Or a mapping, as a tokenizer's batch:
            `model(**inputs)`. What in these is no tensor is handed on as it is; what
            is a list, a tuple or a mapping may hold further tensors of the samples.
        targets: As inputs, for `loss(outputs, targets)`. None where they lie within the
            inputs: `loss(outputs, inputs)`.
        names: Which of `STATISTICS`.
        max_bytes: The most bytes of per-example gradients (with a convolution's unfolded
            inputs) to hold at a time, beside the activations of a plain pass over all
            examples; at least one example's are held. `CPU_BYTES` or `DEVICE_BYTES`
            unless named.

    Raises:
        ValueError: If a name is unknown, there are fewer than 2 examples, the loss gives
            no value a sample, nothing is trainable, no loss reaches a trainable
            parameter, samples mix, or the model cannot run a single one.
    """
    wanted = check_names(names)
    if torch.is_inference_mode_enabled():
        with torch.inference_mode(mode=False):
            return per_example_statistics(
                model, loss, inputs, targets, names, max_bytes=max_bytes
            )
    model = unwrapped(model)
    check_per_example(model)
    samples = Samples.of(inputs, targets)
    objective = Objective(model, loss)
    device = objective.device
    if max_bytes is None:
        max_bytes = CPU_BYTES if device.type == "cpu" else DEVICE_BYTES
    whole("max_bytes", max_bytes, least=1)
    states = random_states(device)
    with attributes_kept(model):
        source = choose(objective, samples, max_bytes)
        try:
            return _gather(source, wanted, objective.parameters, len(samples))
        except NotMappable as error:  # for these values, if not for those checked
            set_random_states(states, device)
            source = go_one_by_one(objective, samples, max_bytes, str(error))
            return _gather(source, wanted, objective.parameters, len(samples))


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


def _gather(
    source: Source,
    wanted: frozenset[str],
    parameters: list[nn.Parameter],
    count: int,
) -> GradientStatistics:
    """One pass over the gradients; a second one for products with their mean."""
    device = parameters[0].device
    norms = torch.zeros(count, dtype=torch.float64, device=device)
    spread = "variance" in wanted
    totals: dict[int, Tensor] = {}
    moments: dict[int, Moments] = {}
    for where, part in source.parts():
        with torch.no_grad(), full_precision(device):
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
            wide(parameter.dtype)
        )
        for index, parameter in enumerate(parameters)
    ]
    found: dict[str, Tensor] = {"sum_squared_norms": norms.sum()}
    if wanted & {"squared_norm_of_mean", "orthogonal"}:
        found["squared_norm_of_mean"] = squared_norm_on_device(
            [real(part) for part in mean]
        )
    if wanted & {"inner_products", "orthogonal"}:
        products = torch.zeros_like(norms)
        for where, part in source.parts():
            with torch.no_grad(), full_precision(device):
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
