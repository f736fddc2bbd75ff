"""The figures of the report. The same figure goes inline into the page and as PNG to the tracker.

Colours are those of Okabe & Ito 2008 (Color Universal Design), which people with any common kind of
colour blindness can tell apart; every arm also has its own marker, and keeps both in every figure.
"""

import io
import math
import re
from typing import TYPE_CHECKING

from pipeline.reporting.cost import cost_figure, has_cost
from pipeline.reporting.drawing import FAINT, INK, Style, dress, legend, new_figure
from pipeline.reporting.view import (
    BinView,
    CurveView,
    GainView,
    StudyView,
    interval,
    points,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A4419", "#5D3A9B",
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "<", "h")
FOREST_METRICS = ("AP", "AP_small")
EVEN = 5
"""Points of gain up to which the axis of sizes is even."""


def plots(study: StudyView) -> dict[str, "Figure"]:
    """Every figure that the study has data for, by name, in the order of the page."""
    import matplotlib as mpl

    with mpl.rc_context({"text.parse_math": False}):  # a dollar in a name is no formula
        return _all_plots(study, arm_styles(study))


def _all_plots(study: StudyView, styles: dict[str, Style]) -> dict[str, "Figure"]:
    figures: dict[str, Figure] = {}
    if metrics := [m for m in FOREST_METRICS if _shown(study, m)]:
        figures["gains"] = _forest(study, metrics, styles)
    if curve := [b for b in study.curve if b.arm != study.reference and not math.isnan(b.gain)]:
        figures["gain_by_size"] = _gain_by_size(study, curve, styles)
    if any(has_cost(arm.seconds_per_picture, arm.metrics.get("AP")) for arm in study.arms):
        figures["cost"] = cost_figure(study, styles)
    if any(not math.isnan(curve[0]) for curve in study.precision.values()):
        figures["precision"] = _precision(study, styles)
    if any(error.difference for error in study.errors if not math.isnan(error.difference)):
        figures["errors"] = _errors(study, styles)
    if study.trust:
        figures["trust"] = _trust(study, styles)
    for curve_view in study.training:
        figures[f"training_{_slug(curve_view.name)}"] = _training(study, curve_view, styles)
    return figures


def arm_styles(study: StudyView) -> dict[str, Style]:
    """Colour and marker of every arm; the reference is grey."""
    others = [arm.name for arm in study.arms if arm.name != study.reference]
    styles = {name: _style(index) for index, name in enumerate(others)}
    return {study.reference: (FAINT, "X"), **styles}


def to_svg(figure: "Figure", *, name: str) -> str:
    """A figure as SVG to put inside an HTML page: its text takes the page's colour and font."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        text = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s+xmlns(:xlink)?="[^"]*"', "", svg)  # HTML needs none, and none is an address
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", svg)  # several figures share one page
    return svg.replace(INK, "currentColor")


def _style(index: int) -> Style:
    return COLOURS[index % len(COLOURS)], MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]


def _shown(study: StudyView, metric: str) -> list[GainView]:
    return [g for g in study.gains if g.metric == metric and not math.isnan(g.difference)]


def _slug(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_").lower()


def _forest(study: StudyView, metrics: list[str], styles: dict[str, Style]) -> "Figure":
    """Gains with their intervals, one panel for each metric, and the line of no gain."""
    arms = [arm.name for arm in study.arms if any(study.gain(arm.name, m) for m in metrics)]
    figure = new_figure(9.2, 1.1 + 0.5 * len(arms))
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        dress(axes, x=f"gain in {metric} over {study.label(study.reference)} (points)", y="")
        axes.axvline(0, color=INK, linewidth=1)
        for gain in _shown(study, metric):
            _forest_row(axes, gain, arms.index(gain.arm), styles[gain.arm])
    panels[0].set_yticks(range(len(arms)), [study.label(arm) for arm in arms])
    panels[0].set_ylim(len(arms) - 0.4, -0.7)
    return figure


def _forest_row(axes: "Axes", gain: GainView, row: int, style: Style) -> None:
    colour, marker = style
    axes.plot([100 * gain.low, 100 * gain.high], [row, row], color=colour, linewidth=2.2)
    axes.plot(100 * gain.difference, row, marker=marker, color=colour, markersize=8)
    axes.text(
        1.02,
        row,
        f"{points(gain.difference)}\n{interval(gain)}",
        transform=axes.get_yaxis_transform(),
        va="center",
        fontsize=8.5,
        color=INK,
    )


def _gain_by_size(study: StudyView, curve: list[BinView], styles: dict[str, Style]) -> "Figure":
    """Gain with its band over object size, and below it how many objects each size has."""
    figure = new_figure(9.2, 4.8)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    dress(upper, x="", y=f"AP gain over {study.label(study.reference)} (points)")
    dress(lower, x="object size: square root of the box area (px of the original)", y="objects")
    upper.axhline(0, color=INK, linewidth=1)
    arms = list(dict.fromkeys(b.arm for b in curve))
    faint = min(0.15, 0.6 / len(arms))  # bands of many arms would hide their lines
    for index, arm in enumerate(arms):
        bins = sorted((b for b in curve if b.arm == arm), key=lambda b: b.low_px)
        aside = 2 ** (0.06 * (index - (len(arms) - 1) / 2))  # so that bars do not hide each other
        _gain_band(upper, bins, aside=aside, label=study.label(arm), style=styles[arm], faint=faint)
    _bend(upper, curve)
    _counts(lower, curve)
    legend(upper)
    return figure


def _bend(axes: "Axes", curve: list[BinView]) -> None:
    """Logarithmic beyond a few points, where some arm or rare size would flatten all others."""
    from matplotlib.ticker import FixedLocator, NullLocator

    ends = [abs(end) for b in curve for end in (b.gain, b.gain_low, b.gain_high)]
    most = max((100 * end for end in ends if math.isfinite(end)), default=0.0)
    if most <= 3 * EVEN:
        return
    axes.set_yscale("symlog", linthresh=EVEN)
    steps = [step for step in (2, EVEN, 10, 20, 50, 100) if step <= 2 * most]
    axes.yaxis.set_major_locator(FixedLocator([-step for step in reversed(steps)] + [0, *steps]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")


def _gain_band(
    axes: "Axes", bins: list[BinView], *, aside: float, label: str, style: Style, faint: float
) -> None:
    colour, marker = style
    middle = [aside * math.sqrt(max(b.low_px, 1) * _upper_end(b)) for b in bins]
    low, high = [100 * b.gain_low for b in bins], [100 * b.gain_high for b in bins]
    axes.fill_between(middle, low, high, color=colour, alpha=faint, linewidth=0)
    # Lines as well as the band: they still tell arms apart where bands overlap. A percentile
    # interval of a handful of pictures may leave its own estimate out, so it is no error bar.
    axes.vlines(middle, low, high, color=colour, linewidth=1)
    gains = [100 * b.gain for b in bins]
    axes.plot(middle, gains, color=colour, marker=marker, linewidth=1.8, label=label)


def _counts(axes: "Axes", curve: list[BinView]) -> None:
    sizes = sorted({(b.low_px, _upper_end(b), b.objects, math.isinf(b.high_px)) for b in curve})
    for low, high, objects, open_ended in sizes:
        low = max(low, 1)
        middle = math.sqrt(low * high)
        axes.bar(low, objects, width=high - low, align="edge", color=FAINT, alpha=0.45)
        said = f"{objects:,}" + (" (and larger)" if open_ended else "")
        axes.text(middle, objects, said, ha="center", va="bottom", fontsize=8.5, color=INK)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(0, 1.35 * max(objects for _, _, objects, _ in sizes))
    axes.grid(visible=False)


def _upper_end(view: BinView) -> float:
    return 2 * max(view.low_px, 1) if math.isinf(view.high_px) else view.high_px


def _precision(study: StudyView, styles: dict[str, Style]) -> "Figure":
    """Precision against recall at an overlap of one half."""
    figure = new_figure(9.2, 3.8)
    axes = figure.subplots()
    dress(axes, x="recall (%)", y="precision (%)")
    for arm, curve in study.precision.items():
        heights = [100 * value or math.nan for value in curve]  # no line where nothing is found
        recalls = [100 * place / (len(curve) - 1) for place in range(len(curve))]
        colour, marker = styles[arm]
        axes.plot(
            recalls, heights, color=colour, linewidth=1.8, marker=marker,
            markevery=(list(styles).index(arm) % 10, 10), markersize=5, label=study.label(arm),
        )  # fmt: skip
    axes.set_ylim(0, 102)
    legend(axes)
    return figure


def _errors(study: StudyView, styles: dict[str, Style]) -> "Figure":
    """One group of bars for each kind of error, one bar for each arm."""
    figure = new_figure(9.2, 3.4)
    axes = figure.subplots()
    dress(axes, x="kind of error", y="change of AP50 lost to it (points)")
    axes.axhline(0, color=INK, linewidth=1)
    kinds = list(dict.fromkeys(error.kind for error in study.errors))
    arms = list(dict.fromkeys(error.arm for error in study.errors))
    width = 0.8 / len(arms)
    for index, arm in enumerate(arms):
        heights = {e.kind: 100 * e.difference for e in study.errors if e.arm == arm}
        aside = (index - (len(arms) - 1) / 2) * width
        axes.bar(
            [place + aside for place in range(len(kinds))],
            [heights[kind] for kind in kinds],
            width=0.9 * width,
            color=styles[arm][0],
            label=study.label(arm),
        )
    axes.set_xticks(range(len(kinds)), kinds)
    axes.grid(visible=False, axis="x")
    legend(axes)
    return figure


def _trust(study: StudyView, styles: dict[str, Style]) -> "Figure":
    """Reliability diagrams, one panel for each source (Guo et al. 2017)."""
    sources = list(dict.fromkeys(view.source for view in study.trust))
    figure = new_figure(4.6 * len(sources), 4.0)
    panels = figure.subplots(1, len(sources), sharey=True, squeeze=False)[0]
    for axes, source in zip(panels, sources, strict=True):
        dress(axes, x="score", y="share of true detections" if source == sources[0] else "")
        axes.set_title(source, color=INK, fontsize=10.5)
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
        for view in (view for view in study.trust if view.source == source):
            colour, marker = styles[view.arm]
            axes.plot(
                [x for x, _ in view.points],
                [y for _, y in view.points],
                color=colour,
                marker=marker if view.calibrated else None,
                markersize=5,
                linestyle="-" if view.calibrated else ":",
                label=study.label(view.arm) if view.calibrated else None,
            )
        legend(axes)
    return figure


def _training(study: StudyView, curve: CurveView, styles: dict[str, Style]) -> "Figure":
    figure = new_figure(9.2, 3.2)
    axes = figure.subplots()
    dress(axes, x="training step", y=f"{curve.name} ({curve.unit})" if curve.unit else curve.name)
    by_label = {arm.label: styles[arm.name] for arm in study.arms}
    for index, (name, values) in enumerate(curve.series.items()):
        colour, marker = styles.get(name) or by_label.get(name) or _style(index)
        steps, heights = [step for step, _ in values], [value for _, value in values]
        every = max(1, len(steps) // 12)
        label = study.label(name) if name in styles else name
        axes.plot(
            steps, heights, color=colour, marker=marker, markevery=every, markersize=5, label=label
        )
    if curve.series:
        legend(axes)
    return figure
