"""The way from a PSNR network to a GAN network, drawn: the curve of its numbers, and one detail."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pipeline.pictures import to_uint8
from pipeline.reporting.drawing import INK, dress, legend, new_figure
from pipeline.reporting.figures import COLOURS, MARKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TILE = 192  # pixels that a detail is enlarged to, or as near to it as a whole factor comes
ACROSS = 7  # details in a row at most: LR, bicubic, eleven mixtures and HR make two full rows
GAP = 6
TEXT = 15


@dataclass(frozen=True)
class Point:
    """One mixture's two numbers."""

    alpha: float
    distortion: float
    perception: float


@dataclass(frozen=True)
class Panel:
    """The curves of one test set, by what was mixed."""

    title: str
    lines: dict[str, list[Point]]


@dataclass(frozen=True)
class Axis:
    """What is measured along an axis, and which end of it is the good one."""

    title: str
    lower_is_better: bool

    def said(self) -> str:
        """The axis with its direction."""
        return f"{self.title} ({'less' if self.lower_is_better else 'more'} is better)"


def draw_curve(panels: Sequence[Panel], *, distortion: Axis, perception: Axis) -> "Figure":
    """Distortion across, perception upwards, every point with its share of the GAN network."""
    figure = new_figure(max(6.4, 4.8 * len(panels)), 4.2)
    every = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(every, panels, strict=True):
        dress(axes, x=distortion.said(), y=perception.said())
        axes.set_title(panel.title, color=INK, fontsize=10.5)
        axes.margins(0.12)
        for index, (name, points) in enumerate(panel.lines.items()):
            colour, marker = COLOURS[index], MARKERS[index]
            _draw_line(axes, name, points, colour=colour, marker=marker, below=index > 0)
        if len(panel.lines) > 1:
            legend(axes)
    return figure


def _draw_line(
    axes: "Axes", name: str, points: Sequence[Point], *, colour: str, marker: str, below: bool
) -> None:
    x, y = [p.distortion for p in points], [p.perception for p in points]
    axes.plot(x, y, color=colour, marker=marker, linewidth=1.8, markersize=5.5, label=name)
    for point in points:
        axes.annotate(
            f"{point.alpha:g}",
            (point.distortion, point.perception),
            # Better pictures cost PSNR, so curves rise to the right: labels lie beside them.
            xytext=(5, -5) if below else (-5, 5),
            ha="left" if below else "right",
            va="top" if below else "bottom",
            textcoords="offset points",
            fontsize=8.5,
            color=colour,
        )


def draw_strip(details: Sequence[tuple[str, Tensor]]) -> Image.Image:
    """Details side by side under their names, enlarged by repeating pixels.

    Args:
        details: name and ``(3, H, W)`` in [0, 1] or uint8, all of equal size but the first, which
            may be a whole factor smaller: it is shown at the size of the others.
    """
    side = int(details[-1][1].shape[-1])
    width = side * max(1, round(TILE / side))
    height = round(width * details[-1][1].shape[-2] / side)
    rows = -(-len(details) // ACROSS)
    across = -(-len(details) // rows)
    cell = width + GAP, height + GAP + TEXT + 4
    sheet = Image.new("RGB", (across * cell[0] + GAP, rows * cell[1] + GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT)
    for index, (name, picture) in enumerate(details):
        left, top = GAP + index % across * cell[0], GAP + index // across * cell[1]
        pen.text((left, top), name, fill=INK, font=font)
        sheet.paste(_enlarged(picture, (width, height)), (left, top + TEXT + 4))
    return sheet


def _enlarged(picture: Tensor, size: tuple[int, int]) -> Image.Image:
    pixels = to_uint8(picture).permute(1, 2, 0).contiguous().cpu().numpy()
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)
