"""The named schedules, and a user's own."""

import copy
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from batchramp.names import find_entry_point, suggest
from batchramp.schedules import adaptive, baselines, smith, umeda
from batchramp.schedules.checks import check_schedule
from batchramp.schedules.interface import Schedule
from batchramp.user_code.loading import UserCode
from batchramp.values import plain_text, shown


@dataclass(frozen=True, kw_only=True)
class Named:
    """A schedule with a name.

    Attributes:
        factory: Makes it from keyword parameters; its docstring documents them.
        num_samples: Samples of a pass in the paper, or for lack of one a default.
        epochs: Passes of the paper's runs, likewise.
    """

    factory: Callable[..., Schedule]
    num_samples: int
    epochs: int


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """What can be set of a schedule.

    Attributes:
        name: Its name.
        default: Its default, a JSON value.
        meaning: What it is.
    """

    name: str
    default: Any
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Description:
    """What is to be known of a named schedule.

    Attributes:
        name: Its name.
        summary: One line.
        source: Where it and its numbers come from; may be empty.
        num_samples: Default number of samples of a pass.
        epochs: Default number of passes.
        parameters: What can be set.
    """

    name: str
    summary: str
    source: str
    num_samples: int
    epochs: int
    parameters: tuple[Parameter, ...]


ENTRY_POINTS = "batchramp.schedules"
"""The group under which an installed package registers schedules of its own."""


def _umeda(factory: Callable[..., Schedule]) -> Named:
    return Named(factory=factory, num_samples=umeda.NUM_SAMPLES, epochs=umeda.EPOCHS)


def _smith(factory: Callable[..., Schedule]) -> Named:
    return Named(factory=factory, num_samples=smith.NUM_SAMPLES, epochs=smith.EPOCHS)


_NAMED = {
    "constant": _umeda(baselines.constant),
    "constant-cosine": _umeda(baselines.constant_cosine),
    "constant-warmup": Named(
        factory=baselines.constant_warmup,
        num_samples=baselines.GOYAL_NUM_SAMPLES,
        epochs=baselines.GOYAL_EPOCHS,
    ),
    "umeda-constant": _umeda(umeda.umeda_constant),
    "umeda-increasing-batch": _umeda(umeda.umeda_increasing_batch),
    "umeda-increasing-both": _umeda(umeda.umeda_increasing_both),
    "umeda-warmup": _umeda(umeda.umeda_warmup),
    "smith-decay": _smith(smith.smith_decay),
    "smith-increase": _smith(smith.smith_increase),
    "smith-hybrid": _smith(smith.smith_hybrid),
    "smith-initial-lr": _smith(smith.smith_initial_lr),
    "smith-momentum": _smith(smith.smith_momentum),
    "noise-scale": Named(
        factory=adaptive.noise_scale,
        num_samples=adaptive.NUM_SAMPLES,
        epochs=adaptive.EPOCHS,
    ),
}


def names() -> tuple[str, ...]:
    """Returns the names of all schedules, baselines first."""
    return tuple(_NAMED)


def named(name: str) -> Named:
    """Returns the factory and defaults of a name.

    Raises:
        ValueError: If there is no such schedule.
    """
    if plain_text("schedule", name) not in _NAMED:
        raise ValueError(suggest("schedule", name, _NAMED))
    return _NAMED[name]


def make(name: str, /, **parameters: Any) -> Schedule:
    """Returns a named schedule.

    Args:
        name: One of `names()`, or an entry point of the group `batchramp.schedules`.
        **parameters: Its parameters; the paper's defaults stand for the others.

    Raises:
        ValueError: If the name or a parameter is unknown, or a value is not valid.
    """
    if plain_text("schedule", name) not in _NAMED and (
        point := find_entry_point(ENTRY_POINTS, name)
    ):
        return _own(name, point.load(), parameters)
    return _call(name, named(name).factory, parameters)


def load(spec: str, code: UserCode | None = None, /, **parameters: Any) -> Schedule:
    """Returns a schedule of a user's own, a new one at each call.

    Args:
        spec: `file.py:name`, where the name is a class or a factory, called with the
            parameters, or a `Schedule` itself, which takes none.
        code: The files of a run; None reads them now, from the current folder.
        **parameters: Keyword arguments of the class or factory.

    Raises:
        ValueError: If the file, the name or a parameter is unknown, the call fails, or
            it returns no `Schedule`.
    """
    code = code or UserCode()
    with code.importable():
        return _own(spec, code.load(spec), parameters)


def _own(spec: str, found: object, parameters: dict[str, Any]) -> Schedule:
    """Makes a schedule from what a user's name stands for."""
    if isinstance(found, Schedule):
        schedule = copy.deepcopy(found)  # what one trial counts, no other may find
        if parameters:
            raise ValueError(
                f"{spec} must be a class or factory to take parameters, got the "
                f"schedule itself and {', '.join(sorted(parameters))}"
            )
    elif callable(found):
        schedule = _call(spec, found, parameters)
    else:
        raise ValueError(
            f"{spec} must be a Schedule, a class or a factory, got {shown(found)}"
        )
    if not isinstance(schedule, Schedule):
        raise ValueError(
            f"{spec} must return a batchramp.schedules.Schedule, got {shown(schedule)}"
        )
    return check_schedule(schedule)


def summaries() -> dict[str, str]:
    """Returns one line on each schedule, by name."""
    return {name: _doc_lines(entry)[0] for name, entry in _NAMED.items()}


def describe(name: str) -> Description:
    """Returns what is to be known of a schedule, parameters included.

    Raises:
        ValueError: If there is no such schedule.
    """
    entry = named(name)
    meanings = _parameter_meanings(entry)
    text = "\n".join(_doc_lines(entry))
    source = re.search(r"^Source: (.*?)\n\n", text, re.DOTALL | re.MULTILINE)
    signature = inspect.signature(entry.factory)
    return Description(
        name=name,
        summary=_doc_lines(entry)[0],
        source=" ".join(source.group(1).split()) if source else "",
        num_samples=entry.num_samples,
        epochs=entry.epochs,
        parameters=tuple(
            Parameter(
                name=parameter.name,
                default=_json(parameter.default),
                meaning=meanings[parameter.name],
            )
            for parameter in signature.parameters.values()
        ),
    )


def _call(
    label: str, factory: Callable[..., Any], parameters: dict[str, Any]
) -> Schedule:
    """Calls a factory, with errors that name the parameter and not the function."""
    known = inspect.signature(factory).parameters
    takes_any = any(
        parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in known.values()
    )
    for parameter in parameters:
        if parameter not in known and not takes_any:
            raise ValueError(suggest(f"parameter of {label}", parameter, known))
    try:
        schedule: Schedule = factory(**parameters)
    except TypeError as error:
        raise ValueError(f"{label} cannot be made: {error}") from error
    return schedule


def _doc_lines(entry: Named) -> list[str]:
    return (inspect.getdoc(entry.factory) or "").splitlines()


def _parameter_meanings(entry: Named) -> dict[str, str]:
    """Reads the section `Args:`; a line indented once begins a parameter."""
    lines = _doc_lines(entry)
    meanings: dict[str, str] = {}
    name = ""
    for line in lines[lines.index("Args:") + 1 :]:
        begins = re.fullmatch(r"    (\w+): (.*)", line)
        if begins:
            name = begins.group(1)
            meanings[name] = begins.group(2)
        elif name and line.strip():
            meanings[name] += " " + line.strip()
    return meanings


def _json(default: Any) -> Any:
    return list(default) if isinstance(default, tuple) else default
