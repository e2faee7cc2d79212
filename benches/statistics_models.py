"""Per-example statistics of many models, beside a float64 loop over single examples.

    python benches/statistics_models.py

Writes `benches/results/statistics-models.md`: by which way each model's statistics come,
and how far the furthest is from the loop's, or that they are refused. Hugging Face's models
are made from configurations; nothing is downloaded.
"""

import copy
import platform
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from statistics_cases import COUNT, mixing, right

from batchramp import __version__
from batchramp.gradient_variance import (
    STATISTICS,
    OneByOneWarning,
    per_example,
    per_example_statistics,
)
from batchramp.gradient_variance.layers import Layers
from batchramp.gradient_variance.samples import unwrapped

RESULTS = Path(__file__).parent / "results" / "statistics-models.md"


def widened(values):
    """The same in double precision; whole numbers stay."""
    if isinstance(values, Mapping):
        return {name: widened(part) for name, part in values.items()}
    if isinstance(values, tuple | list):
        return tuple(widened(part) for part in values)
    if values is None or not (values.is_floating_point() or values.is_complex()):
        return values
    return values.to(torch.complex128 if values.is_complex() else torch.float64)


def cut(values, where):
    if isinstance(values, Mapping):
        return {name: cut(part, where) for name, part in values.items()}
    if isinstance(values, tuple):
        return tuple(cut(part, where) for part in values)
    return None if values is None else values[where]


def call(model, inputs):
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def expected(case, model):
    """The statistics from a loop over single examples, in double precision."""
    model = copy.deepcopy(unwrapped(model))
    model._apply(widened)
    inputs, targets = widened(case.inputs), widened(case.targets)
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for example in range(COUNT):
        where = slice(example, example + 1)
        one, target = cut(inputs, where), cut(targets, where)
        losses = case.loss(call(model, one), one if target is None else target)
        for parameter in parameters:
            parameter.grad = None
        losses.sum().backward()
        gradients = [
            torch.zeros_like(p) if p.grad is None else p.grad for p in parameters
        ]
        rows.append(torch.cat([flat(part) for part in gradients]))
    rows = torch.stack(rows)
    mean = rows.mean(0)
    norms, products = rows.square().sum(1), rows @ mean
    variance, offset = [], 0
    for parameter in parameters:
        size = parameter.numel() * (2 if parameter.is_complex() else 1)
        part = rows[:, offset : offset + size].var(0)
        variance.append(part.view(-1, 2).sum(1) if parameter.is_complex() else part)
        offset += size
    return {
        "sum_squared_norms": norms.sum(),
        "squared_norm_of_mean": mean @ mean,
        "inner_products": products,
        "orthogonal": norms - products.square() / (mean @ mean),
        "variance": torch.cat(variance),
        "mean": mean,
    }


def flat(tensor):
    tensor = tensor.detach()
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).reshape(-1)


def worst_error(found, truth):
    """The largest difference, of the largest value, over all statistics."""
    errors = []
    for name, value in truth.items():
        given = getattr(found, name)
        if isinstance(given, tuple):
            given = torch.cat([flat(part) for part in given])
        scale = value.abs().max().clamp(min=1e-300)
        errors.append(float((given.double() - value).abs().max() / scale))
    return max(errors)


def look(case):
    """One line of the table: the way, and the error or the refusal."""
    torch.manual_seed(1)
    model = case.model()
    call(unwrapped(model), case.inputs)  # lazy layers take their shape
    taken, choose = [], per_example.choose

    def watched(*arguments):
        source = choose(*arguments)
        taken.append("layers" if isinstance(source, Layers) else "vmap")
        return source

    per_example.choose = watched
    try:
        with case.around(), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = per_example_statistics(
                model, case.loss, case.inputs, case.targets, STATISTICS
            )
    except ValueError as error:
        return "refused", str(error)
    finally:
        per_example.choose = choose
    if any(issubclass(one.category, OneByOneWarning) for one in caught):
        taken.append("one by one")
    if case.mixes:
        return taken[-1], "answered, though its samples mix"
    return taken[-1], worst_error(found, expected(case, model))


def told(error):
    """Why it was refused, without what to do instead."""
    return error.split(": use ")[0].replace(
        "per-example statistics need a model and a loss in which samples do not mix, and ",
        "",
    )


def main():
    torch.set_num_threads(1)
    rows = [
        "# Per-example statistics of many models",
        "",
        "`python benches/statistics_models.py`: all statistics of "
        f"{COUNT} examples, beside a loop over single ones in float64. The error is the "
        "largest difference over the largest value, of any of the statistics; those of "
        "half precision and autocast hold its rounding, and of a converged model that of "
        "losses near 0.",
        "",
        f"batchramp {__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}, on a CPU.",
        "",
        "| model | way | worst error |",
        "|---|---|---|",
    ]
    found = [(case, *look(case)) for case in right()]
    for case, way, result in found:
        shown = told(result) if isinstance(result, str) else f"{result:.0e}"
        rows.append(f"| {case.name} | {way} | {shown} |")
    ways = [way for _, way, _ in found]
    counts = ", ".join(f"{ways.count(way)} by {way}" for way in ("layers", "vmap"))
    rows += [
        "",
        f"{len(found)} models: {counts}, {ways.count('one by one')} one by one, "
        f"{ways.count('refused')} refused.",
        "",
        "## Samples that mix",
        "",
        "| model or loss | outcome | why |",
        "|---|---|---|",
    ]
    mixed = [(case, *look(case)) for case in mixing()]
    rows += [f"| {case.name} | {way} | {told(result)} |" for case, way, result in mixed]
    refused = sum(way == "refused" for _, way, _ in mixed)
    rows += ["", f"{refused} of {len(mixed)} refused."]
    RESULTS.write_text("\n".join(rows) + "\n")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
