"""The report of a study: one HTML page that needs nothing else, a table for the terminal, figures.

The page makes no request, runs no script, reads in light and dark and prints; it can be mailed or
attached to a tracked run as it is.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.files import atomic_file
from pipeline.reporting.figures import arm_styles, plots, to_svg
from pipeline.reporting.tiles import FOUND, TRUTH, data_uri, draw_tile, row_width
from pipeline.reporting.view import (
    ArmView,
    BinView,
    CurveView,
    ErrorView,
    GainView,
    GalleryRow,
    StudyView,
    TableView,
    Tile,
    TrustView,
    interval,
    milliseconds,
    percent,
    points,
)

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "ArmView",
    "BinView",
    "CurveView",
    "ErrorView",
    "GainView",
    "GalleryRow",
    "StudyView",
    "TableView",
    "Tile",
    "TrustView",
    "milliseconds",
    "percent",
    "plots",
    "points",
    "print_table",
    "write_report",
]

TEMPLATE = Path(__file__).parent / "reporting" / "page.html.j2"
GAIN_METRICS = ("AP", "AP_small")
SIGNS = {"helps": "▲", "hurts": "▼", "inconclusive": "○"}
CAPTIONS = {
    "gains": "Gain of each arm with its 95 % interval. An interval that holds 0 is inconclusive.",
    "gain_by_size": "Gain against object size with its 95 % interval, and the objects behind it. "
    "Where gains are large, the axis is even up to 5 points and logarithmic beyond.",
    "cost": "What each arm costs in time, and the AP it buys. The grey line is what no faster arm "
    "beats; originals are not to be had and not on it.",
    "precision": "Precision at each recall for boxes that overlap an object by half, mean over the "
    "categories; the area under a curve is AP50.",
    "trust": "Share of true detections at each score, before calibration (dotted) and after it, in "
    "the evaluated pictures; on the diagonal a score means what it says. Scores that fewer than "
    "10 detections have are left out.",
    "errors": "Change of what each kind of error costs; below 0 the arm loses less to it.",
}


def write_report(study: StudyView, path: Path) -> Path:
    """Write the page of a study to `path`, at once and whole; returns `path`."""
    page = _page(study)
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def print_table(study: StudyView, console: "Console") -> None:
    """Print the main table and the verdict on a terminal."""
    from rich.table import Table

    table = Table(
        title=study.title, caption=f"AP in %; gains in points over {study.reference}, 95 % interval"
    )
    table.add_column("arm")
    for column in ("AP", "AP50", "AP_small", "gain in AP", "ms/picture"):
        table.add_column(column, justify="right", no_wrap=True)
    for arm in study.arms:
        scores = (percent(arm.metrics[metric]) for metric in ("AP", "AP50", "AP_small"))
        cost = milliseconds(arm.seconds_per_picture)
        table.add_row(arm.label, *scores, _gain_cell(study, arm.name, "AP"), cost)
    console.print(table)
    console.print(study.verdict, highlight=False, markup=False)
    for warning in study.warnings:
        console.print(f"warning: {warning}", style="bold red", highlight=False, markup=False)


def _columns(study: StudyView) -> list[str]:
    gains = [f"gain in {metric}" for metric in _gain_metrics(study)]
    return ["arm", *study.metrics, *gains, "ms per picture", "megapixels"]


def _rows(study: StudyView) -> list[list[str]]:
    return [
        [
            arm.label,
            *(percent(arm.metrics.get(metric, float("nan"))) for metric in study.metrics),
            *(_gain_cell(study, arm.name, metric) for metric in _gain_metrics(study)),
            milliseconds(arm.seconds_per_picture),
            _number(arm.megapixels_per_picture),
        ]
        for arm in study.arms
    ]


def _gain_metrics(study: StudyView) -> list[str]:
    return [metric for metric in GAIN_METRICS if any(g.metric == metric for g in study.gains)]


def _gain_cell(study: StudyView, arm: str, metric: str) -> str:
    if arm == study.reference:
        return "reference"
    gain = study.gain(arm, metric)
    if gain is None or gain.difference != gain.difference:
        return "–"
    return f"{SIGNS.get(gain.verdict, '')} {points(gain.difference)} ({interval(gain)})"


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.3g}"


def _page(study: StudyView) -> str:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(points=points, interval=interval)
    figures = {name: Markup(to_svg(figure, name=name)) for name, figure in plots(study).items()}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        study=study,
        columns=_columns(study),
        rows=_rows(study),
        figures=figures,
        captions=CAPTIONS,
        gallery=[_gallery_row(row) for row in study.gallery],
        colours={name: colour for name, (colour, _) in arm_styles(study).items()},
        signs=SIGNS,
        truth=TRUTH,
        found=FOUND,
    )


def _gallery_row(row: GalleryRow) -> dict[str, object]:
    width = row_width(row)
    pictures = [(tile.caption, data_uri(draw_tile(tile, width=width))) for tile in row.tiles]
    return {"title": row.title, "width": width, "pictures": pictures}
