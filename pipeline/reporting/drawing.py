"""What all figures share: a sheet, axes in the page's colours, a legend without a frame."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1f2329"  # becomes the page's own text colour where a figure is inlined
FAINT = "#8a8f98"  # readable on white and on black

Style = tuple[str, str]
"""Colour and marker of an arm."""


def new_figure(width: float, height: float) -> "Figure":
    """A figure of our own, outside pyplot: nothing to close, safe in any thread."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def dress(axes: "Axes", *, x: str, y: str) -> None:
    """Labels, a faint grid, and two spines; transparent, so that any page shows through."""
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.tick_params(colors=INK, which="both", length=3)
    axes.grid(visible=True, color=FAINT, alpha=0.25, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.patch.set_alpha(0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)


def legend(axes: "Axes") -> None:
    """A legend without a frame."""
    axes.legend(frameon=False, labelcolor=INK, fontsize=9)
