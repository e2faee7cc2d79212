"""What the gradients of one stream have in common: their parts' shapes and names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchramp.values import shown, whole

_WRAPPERS = frozenset(
    ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
)
"""What DistributedDataParallel, torch.compile and others put into parameters' names."""

_REASON = "keep one for each set of parameters, and give it all of them every time"


@dataclass(frozen=True)
class Layout:
    """The parts of a gradient in their order.

    The number of coordinates alone would take one branch's gradient for another's.

    Attributes:
        shapes: Of each part.
        names: Of each part's parameter, without what wrappers add; None if not known.
    """

    shapes: tuple[tuple[int, ...], ...]
    names: tuple[str, ...] | None = None

    @classmethod
    def of_module(
        cls, names: Sequence[str], shapes: Sequence[tuple[int, ...]]
    ) -> Layout:
        """Returns the layout of a module's parameters."""
        plain = (
            ".".join(piece for piece in name.split(".") if piece not in _WRAPPERS)
            for name in names
        )
        return cls(tuple(shapes), tuple(plain))

    def joined(self, other: Layout) -> Layout:
        """Returns what is known from both.

        Raises:
            ValueError: If they differ.
        """
        if len(self.shapes) != len(other.shapes):
            raise ValueError(
                f"gradient must have {len(self.shapes)} parts, as the first one, got "
                f"{len(other.shapes)}: {_REASON}"
            )
        names, theirs = self.names, other.names
        if names and theirs:
            for ours, name in zip(names, theirs, strict=True):
                if ours != name:
                    raise ValueError(
                        f"gradient must be of the parameters of the first one, of "
                        f"{ours!r}, got one of {name!r} in its place: {_REASON}"
                    )
        pairs = zip(self.shapes, other.shapes, strict=True)
        for index, (shape, given) in enumerate(pairs):
            if shape != given:
                part = (
                    f"gradient of {names[index]!r}" if names else f"gradient[{index}]"
                )
                raise ValueError(
                    f"{part} must have the shape {shape}, as the first one, got {given}: "
                    f"{_REASON}"
                )
        return Layout(self.shapes, names or theirs)

    def state(self) -> dict[str, Any]:
        """Returns it as JSON-able lists, `shapes` and `names`."""
        names = None if self.names is None else list(self.names)
        return {"shapes": [list(shape) for shape in self.shapes], "names": names}


NO_STATE: dict[str, Any] = {"shapes": None, "names": None}
"""The state of a layout that is not known."""


def joined(one: Layout | None, other: Layout | None) -> Layout | None:
    """Returns what is known from two layouts, of which either may be unknown.

    Raises:
        ValueError: If they differ.
    """
    return one.joined(other) if one and other else one or other


def loaded(state: Mapping[str, Any], size: int) -> Layout | None:
    """Returns the layout in a state of `size` coordinates.

    Raises:
        ValueError: If it is no layout, or one of another size.
    """
    shapes, names = state["shapes"], state["names"]
    if shapes is None and names is None:
        return None
    if not isinstance(shapes, Sequence) or not all(
        isinstance(shape, Sequence) for shape in shapes
    ):
        raise ValueError(f"state's shapes must be lists of sizes, got {shown(shapes)}")
    sizes = tuple(
        tuple(whole("a size in state's shapes", each, least=0) for each in shape)
        for shape in shapes
    )
    total = sum(map(math.prod, sizes))
    if total != size:
        raise ValueError(
            f"state's shapes must have the {size} coordinates of its mean, got {total}"
        )
    if names is None:
        return Layout(sizes)
    if (
        isinstance(names, str)
        or not isinstance(names, Sequence)
        or len(names) != len(sizes)
        or not all(isinstance(name, str) for name in names)
    ):
        raise ValueError(
            f"state's names must be {len(sizes)} names, one a shape, got {shown(names)}"
        )
    return Layout(sizes, tuple(names))
