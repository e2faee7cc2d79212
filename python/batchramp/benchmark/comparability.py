"""In what two trials of one schedule and seed differ, and what that means for a gate.

Another question makes them incomparable. Another clock leaves their learning, but not
their seconds, to be compared. Other code, and all else, is said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["question", "clock", "code"]

_QUESTION = {
    "workload",
    "workload_asked",
    "schedule",
    "schedule_asked",
    "set",
    "parameters",
    "data",
    "epochs",
    "boundary",
    "cadence",
    "weight_decay",
    "nesterov",
    "micro_batch",
}
_CLOCK = {"threads", "jobs", "cpu", "cores", "device"}
_SAID = {
    "build_profile",
    "python",
    "torch",
    "cuda",
    "numpy",
    "platform",
    "cpu_capability",
    "commit",
}
"""What of an environment is said; its date, load and memory are not."""

_ABSENT = object()
_LONGEST = 40


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which two trials differ."""

    kind: Kind
    key: str
    """Its name in the identity or environment; `parameters.lr` for one of several."""
    base: str
    """The value there, as text; a digest is cut to its first digits."""
    new: str


def differences(
    base: Mapping[str, Any], new: Mapping[str, Any]
) -> dict[str, Difference]:
    """Name what differs between two trials of one seed.

    Args:
        base: A trial's metadata, with its `identity` and `environment`.
        new: The other trial's.

    Returns:
        The differences by key. What an identity holds beyond the keys known here counts
        as code, so that nothing that a curve follows from is passed over.
    """
    found: dict[str, Difference] = {}
    identities = [dict(_flat(metadata.get("identity", {}))) for metadata in (base, new)]
    surroundings = [
        {
            key: value
            for key, value in metadata.get("environment", {}).items()
            if key in _CLOCK | _SAID
        }
        for metadata in (base, new)
    ]
    for first, second in (identities, surroundings):
        for key in dict.fromkeys((*first, *second)):
            values = first.get(key, _ABSENT), second.get(key, _ABSENT)
            if key != "seed" and values[0] != values[1]:
                found.setdefault(key, Difference(_kind(key), key, *map(_text, values)))
    return found


def _kind(key: str) -> Kind:
    name = key.partition(".")[0]
    if name in _QUESTION:
        return "question"
    return "clock" if name in _CLOCK else "code"


def _flat(identity: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in identity.items():
        if isinstance(value, Mapping):
            for name, inner in value.items():
                yield f"{key}.{name}" if name else f"{key}.the file itself", inner
        else:
            yield key, value


def _text(value: object) -> str:
    if value is _ABSENT:
        return "absent"
    text = value if isinstance(value, str) else json.dumps(value)
    if len(text) == 64 and set(text) <= set("0123456789abcdef"):
        return text[:12]
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
