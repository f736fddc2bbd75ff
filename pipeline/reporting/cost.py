"""What a point of AP costs in time: every arm at its place, and the line no faster arm beats."""

import math
from typing import TYPE_CHECKING

from pipeline.reporting.drawing import FAINT, INK, Style, dress, new_figure
from pipeline.reporting.view import ArmView, StudyView

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABEL = 9.5
"""Size of a label in points; a letter is some 0.6 of it wide."""
COST_AXES = (460, 160)
"""Points from the first arm to the last in the figure of costs, and from the worst to the best."""

Box = tuple[float, float, float, float]


def has_cost(seconds: float, ap: float | None) -> bool:
    """Whether an arm's time and AP were measured."""
    return ap is not None and math.isfinite(ap) and math.isfinite(seconds) and seconds > 0


def cost_figure(study: StudyView, styles: dict[str, Style]) -> "Figure":
    """What a point of AP costs in time."""
    from matplotlib.ticker import LogLocator, NullLocator

    figure = new_figure(9.2, 3.8)
    axes = figure.subplots()
    dress(axes, x="time per picture (ms, logarithmic)", y="AP (%)")
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))  # even within a decade
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.15, y=0.2)
    places = [
        (arm, (1000 * arm.seconds_per_picture, 100 * arm.metrics["AP"]))
        for arm in study.arms
        if has_cost(arm.seconds_per_picture, arm.metrics.get("AP"))
    ]
    to_be_had = [where for arm, where in places if not arm.ceiling]
    axes.step(*_frontier(to_be_had), where="post", color=FAINT, linewidth=1.2)
    spots = [(math.log(x), y) for _, (x, y) in places]
    for (arm, where), (aside, align) in zip(places, _beside(spots, places), strict=True):
        colour, marker = styles[arm.name]
        axes.plot(*where, marker=marker, color=colour, markersize=10, linestyle="none")
        axes.annotate(
            arm.label, where, xytext=aside, textcoords="offset points", ha=align, va="center",
            color=INK, fontsize=LABEL,
        )  # fmt: skip
    return figure


def _beside(
    spots: list[tuple[float, float]], places: list[tuple[ArmView, tuple[float, float]]]
) -> list[tuple[tuple[float, float], str]]:
    """For each arm where its label goes, in points from it, and how it is aligned there.

    The nearest place of fourteen where it hides no marker and no other label.
    """
    scaled = [
        [size * (v - min(axis)) / ((max(axis) - min(axis)) or 1) for v in axis]
        for axis, size in zip(zip(*spots, strict=True), COST_AXES, strict=True)
    ]
    points = list(zip(*scaled, strict=True))
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    chosen: list[tuple[tuple[float, float], str]] = []
    for (x, y), (arm, _) in zip(points, places, strict=True):
        wide = 0.6 * LABEL * len(arm.label)
        options = [
            ((side * (10 if up == 0 else 6), up), "left" if side > 0 else "right")
            for up in (9, -9, 0, 20, -20, 31, -31)
            for side in (1, -1)
        ]
        boxes = [_label_box(x, y, wide, offset, align) for offset, align in options]
        free = (n for n, box in enumerate(boxes) if not any(_meet(box, other) for other in taken))
        best = next(free, 0)
        taken.append(boxes[best])
        chosen.append(options[best])
    return chosen


def _label_box(x: float, y: float, wide: float, offset: tuple[float, float], align: str) -> Box:
    left = x + offset[0] - (0 if align == "left" else wide)
    middle = y + offset[1]
    return left, middle - LABEL / 2, left + wide, middle + LABEL / 2


def _meet(one: Box, other: Box) -> bool:
    return (
        one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
    )  # fmt: skip


def _frontier(places: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Corners of Pareto's frontier: what nothing that is as fast beats."""
    if not places:
        return [], []
    best: list[tuple[float, float]] = []
    for place in sorted(places, key=lambda p: (p[0], -p[1])):
        if not best or place[1] > best[-1][1]:
            best.append(place)
    # a line to the slowest arm shows which arms lie below it
    best.append((max(seconds for seconds, _ in places), best[-1][1]))
    return [seconds for seconds, _ in best], [ap for _, ap in best]
