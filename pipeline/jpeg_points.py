"""Scores over JPEG quality, as curves and tables, and pieces of the pictures behind them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLEAN = 101
"""Where low resolution without JPEG stands: a step right of the best quality."""


@dataclass(frozen=True)
class Point:
    """What a model scores on one set at one quality."""

    model: str
    data_set: str
    quality: int
    scores: dict[str, float]


@dataclass(frozen=True)
class Piece:
    """A piece of one picture at one quality: low resolution, what models made, and the truth."""

    quality: str
    lr: Tensor
    made: Mapping[str, Tensor]
    hr: Tensor


def curves(points: Sequence[Point], titles: Mapping[str, str]) -> "Figure":
    """A row of plots for each metric, one for each set, a line for each model; clean comes last."""
    from matplotlib.figure import Figure

    sets = {
        metric: list(dict.fromkeys(p.data_set for p in points if metric in p.scores))
        for metric in titles
    }
    across = max(map(len, sets.values()))
    figure = Figure(figsize=(5.2 * across, 3.6 * len(sets)), layout="constrained")
    for row, (metric, names) in enumerate(sets.items()):
        for column, data_set in enumerate(names):
            axes = figure.add_subplot(len(sets), across, row * across + column + 1)
            of = [p for p in points if p.data_set == data_set and metric in p.scores]
            for model in dict.fromkeys(point.model for point in of):
                line = sorted((p.quality, p.scores[metric]) for p in of if p.model == model)
                axes.plot(*zip(*line, strict=True), marker="o", markersize=3, label=model)
            ticks = (10, 30, 50, 70, 90)
            axes.set_xticks([*ticks, CLEAN], [*map(str, ticks), name_of(CLEAN)])
            axes.set_xlabel("JPEG quality of the low resolution")
            axes.set_title(f"{titles[metric]}, {data_set}")
            axes.grid(alpha=0.3)
            if row == column == 0:
                axes.legend()
    return figure


def strips(pieces: Sequence[Piece]) -> "Figure":
    """A row for each quality: low resolution, every model, the truth."""
    from matplotlib.figure import Figure

    names = ["low resolution", *pieces[0].made, "original"]
    figure = Figure(figsize=(2.6 * len(names), 2.75 * len(pieces)), layout="constrained")
    for row, piece in enumerate(pieces):
        for column, picture in enumerate([piece.lr, *piece.made.values(), piece.hr]):
            axes = figure.add_subplot(len(pieces), len(names), row * len(names) + column + 1)
            shown = picture.expand(3, -1, -1).permute(1, 2, 0).clamp(0, 1).float().numpy()
            axes.imshow(shown, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            if row == 0:
                axes.set_title(names[column])
            if column == 0:
                axes.set_ylabel(f"quality {piece.quality}")
    return figure


def name_of(quality: int) -> str:
    """The quality as it is shown."""
    return "clean" if quality == CLEAN else f"{quality}"


def _grid(points: Sequence[Point], metric: str) -> tuple[list[str], list[list[str]]]:
    """Rows are models on sets, columns the qualities."""
    of = [point for point in points if metric in point.scores]
    qualities = sorted({point.quality for point in of})
    values = {(p.data_set, p.model, p.quality): p.scores[metric] for p in of}
    rows = [
        [f"{data_set}, {model}", *(_text(values.get((data_set, model, q))) for q in qualities)]
        for data_set, model in dict.fromkeys((p.data_set, p.model) for p in of)
    ]
    return [name_of(quality) for quality in qualities], rows


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}"


def markdown(points: Sequence[Point], titles: Mapping[str, str]) -> str:
    """A table for each metric."""
    tables = []
    for metric, title in titles.items():
        qualities, rows = _grid(points, metric)
        lines = [[title, *qualities], ["---", *["--:"] * len(qualities)], *rows]
        tables.append("\n".join("| " + " | ".join(line) + " |" for line in lines))
    return "\n\n".join(tables) + "\n"


def show(points: Sequence[Point], titles: Mapping[str, str]) -> None:
    """Prints the same tables."""
    console = Console()
    for metric, title in titles.items():
        qualities, rows = _grid(points, metric)
        table = Table(title=f"{title} by JPEG quality")
        table.add_column("")
        for quality in qualities:
            table.add_column(quality, justify="right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
