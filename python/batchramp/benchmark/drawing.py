"""What every chart is drawn with: the figure, its colours, and the page's SVG.

Drawn on matplotlib's `Figure` and never through `pyplot`, so that nothing global is set
and no display is needed; and under matplotlib's own settings, whatever a user's files
or environment say.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from batchramp.benchmark.escaping import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

# Mid tones that hold on white and on black; after them line styles change too.
COLORS = (
    "#3b82d6", "#e0772f", "#2f9e6e", "#c2559d",
    "#b58a00", "#7c6fe0", "#cf4d4d", "#2a9db0",
)  # fmt: skip
DASHES = ("-", "--", ":", "-.")
INK = "#717273"
"""Every line and letter that is no data; in SVG it becomes the page's own colour."""


LONGEST = 48
"""Characters of a name in a chart; the middle of a longer one is left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """One drawing for a page."""

    title: str
    svg: str
    """An inline `<svg>` element, its ids unique under the key it was drawn with."""
    description: str
    """What it shows, in words and numbers, for those who do not see it."""


@contextmanager
def own_style() -> Iterator[None]:
    """Draw within this: matplotlib's defaults hold, and the user's come back after."""
    mpl = _matplotlib()
    with mpl.rc_context(mpl.rcParamsDefault), warnings.catch_warnings():
        # The page's own fonts draw the letters that matplotlib has none for.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        warnings.filterwarnings(
            "ignore", message="Matplotlib currently does not support"
        )
        yield


def name_in_chart(text: str) -> str:
    """A user's text as a chart can show it: one line, and not too long."""
    text = printable(text)
    if len(text) > LONGEST:
        text = f"{text[: LONGEST - 18]}...{text[-15:]}"
    # matplotlib leaves a name with an underscore in front out of its legends.
    return f" {text}" if text.startswith("_") else text


def literal(texts: Iterable[Text]) -> None:
    """Let a dollar sign in texts be one, and begin no formula."""
    for text in texts:
        text.set_parse_math(False)


def make_figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def legend(figure: Figure, axis: Axes) -> None:
    """Name one axis' lines above all axes."""
    handles, labels = axis.get_legend_handles_labels()
    points = 72 * figure.get_figwidth()
    longest = max(map(len, labels), default=0)
    drawn = figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=max(1, min(4, int(points / (5 * longest + 40)))),
        frameon=False,
        labelcolor=INK,
        fontsize=9,
    )
    literal(drawn.get_texts())


def plain(axis: Axes) -> None:
    """Leave an axis a quiet grid and two sides, in the page's ink."""
    axis.set_facecolor("none")
    axis.grid(True, color=INK, alpha=0.18, linewidth=0.7)
    axis.tick_params(which="both", colors=INK, labelsize=9)
    for side, spine in axis.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
    for text in (axis.xaxis.label, axis.yaxis.label, *axis.texts):
        text.set_color(INK)
        text.set_fontsize(9)
        literal([text])


def entry_style(index: int) -> tuple[str, str]:
    """The colour and the dashes of a panel's entry, by its place."""
    rounds, color = divmod(index, len(COLORS))
    return COLORS[color], DASHES[rounds % len(DASHES)]


def to_svg(figure: Figure, key: str) -> str:
    """The figure as an inline element in the page's colours, ids prefixed by `key`."""
    import matplotlib as mpl

    buffer = StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": key}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # In tags only: between them stands what users call their schedules.
    text = re.sub(r"<[^<>]+>", lambda tag: _page_tag(tag.group(), key), text)
    # The figure around it carries the description; its letters would be read twice.
    return text.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


def _page_tag(tag: str, key: str) -> str:
    """An SVG tag in the page's ink, its id and its references under `key`."""
    tag = tag.replace(INK, "currentColor")
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{key}-", tag)


def _matplotlib() -> ModuleType:
    """Import it, though a `matplotlibrc` or MPLBACKEND of the user's be broken."""
    try:
        import matplotlib as mpl
    except (ValueError, OSError):
        for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
            del sys.modules[name]  # parts of the module that could not be
        # Its own file of settings comes first where that is in the current folder.
        found = find_spec("matplotlib")
        assert found is not None
        assert found.origin is not None
        backend = os.environ.pop("MPLBACKEND", None)
        try:
            with contextlib.chdir(Path(found.origin).parent / "mpl-data"):
                import matplotlib as mpl
        finally:
            if backend is not None:
                os.environ["MPLBACKEND"] = backend
    return mpl
