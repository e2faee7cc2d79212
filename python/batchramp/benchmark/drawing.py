"""What every chart is drawn with: the figure, its colours, and the page's SVG.

Drawn on matplotlib's `Figure` and never through `pyplot`, so that nothing global is set
and no display is needed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Mid tones that hold on white and on black; after them line styles change too.
COLORS = (
    "#3b82d6", "#e0772f", "#2f9e6e", "#c2559d",
    "#b58a00", "#7c6fe0", "#cf4d4d", "#2a9db0",
)  # fmt: skip
DASHES = ("-", "--", ":", "-.")
INK = "#717273"
"""Every line and letter that is no data; in SVG it becomes the page's own colour."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """One drawing for a page."""

    title: str
    svg: str
    """An inline `<svg>` element, its ids unique under the key it was drawn with."""
    description: str
    """What it shows, in words and numbers, for those who do not see it."""


def make_figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def legend(figure: Figure, axis: Axes) -> None:
    """Name one axis' lines above all axes."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=4,
        frameon=False,
        labelcolor=INK,
        fontsize=9,
    )


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
    text = text.replace(INK, "currentColor")
    text = re.sub(r'\bid="', f'id="{key}-', text)
    text = re.sub(r"url\(#", f"url(#{key}-", text)
    text = re.sub(r'href="#', f'href="#{key}-', text)
    # The figure around it carries the description; its letters would be read twice.
    return text.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)
