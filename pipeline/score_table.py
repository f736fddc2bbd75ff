"""Tables of scores, on the terminal and in Markdown; the best of each column is bold."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.columns import Column
from pipeline.scoring import Evaluated, ModelScores, PictureScores

NONE = "-"
_UNLIMITED = 10_000  # characters
SECONDS = "s per megapixel"


@dataclass(frozen=True)
class Cell:
    """A text, and whether it is the best of its column."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Grid:
    """A table to show; the first ``labels`` columns are texts, the others numbers."""

    title: str
    labels: int
    head: list[str]
    sections: list[list[list[Cell]]]
    """Sections of rows of cells."""


def summary(result: Evaluated, columns: Sequence[Column], places: Sequence[int]) -> Grid:
    """Rows are models, columns the means on the sets at ``places`` of the result's order."""
    head = ["model", "parameters"]
    upright = [
        [Cell(row.model) for row in result.models],
        [Cell(NONE if row.parameters is None else f"{row.parameters:,}") for row in result.models],
    ]
    for place in places:
        scored = [row.sets[place] for row in result.models]
        name = scored[0].data_set
        head += [f"{name}\n{title}" for title in (*(column.title for column in columns), SECONDS)]
        for column in columns:
            cells = _cells(column, [scores.mean[column.key] for scores in scored])
            notes = [scores.notes.get(column.key) for scores in scored]
            upright.append(
                [
                    Cell(f"{cell.text}, {note}", cell.best) if note else cell
                    for cell, note in zip(cells, notes, strict=True)
                ]
            )
        upright.append([Cell(_seconds(scores.seconds_per_megapixel)) for scores in scored])
    return Grid(f"means, x{result.scale}", 1, head, [_rows(upright)])


def by_picture(result: Evaluated, columns: Sequence[Column], place: int) -> Grid:
    """Every picture of the set at ``place``: a section each, in which rows are models."""
    pictures = zip(*(row.sets[place].pictures for row in result.models), strict=True)
    return Grid(
        f"{result.models[0].sets[place].data_set} x{result.scale}",
        2,
        ["picture", "model", *(column.title for column in columns), SECONDS],
        [_section(result.models, scored, columns) for scored in pictures],
    )


def _section(
    models: Sequence[ModelScores], scored: Sequence[PictureScores], columns: Sequence[Column]
) -> list[list[Cell]]:
    names = [Cell(scored[0].picture), *(Cell("") for _ in scored[1:])]
    upright = [names, [Cell(row.model) for row in models]]
    upright += [_cells(column, [s.scores[column.key] for s in scored]) for column in columns]
    return _rows([*upright, [Cell(_seconds(s.seconds_per_megapixel)) for s in scored]])


def _rows(upright: list[list[Cell]]) -> list[list[Cell]]:
    return [list(row) for row in zip(*upright, strict=True)]


def _cells(column: Column, values: Sequence[float]) -> list[Cell]:
    """Values that print alike are equally best; alone, none is."""
    texts = [f"{value:.{column.digits}f}" for value in values]
    known = [value for value in values if not math.isnan(value)]
    if len(values) < 2 or not known:
        return [Cell(text) for text in texts]
    best = min(known) if column.lower_is_better else max(known)
    return [Cell(text, text == f"{best:.{column.digits}f}") for text in texts]


def _seconds(seconds: float | None) -> str:
    return NONE if seconds is None else f"{seconds:.3f}"


def captions(columns: Sequence[Column], remarks: Sequence[str]) -> list[str]:
    """How the columns were measured, a line for each protocol."""
    titles: dict[str, list[str]] = {}
    for column in columns:
        titles.setdefault(column.protocol, []).append(column.title)
    return [f"{', '.join(named)}: {protocol}" for protocol, named in titles.items()] + [*remarks]


def print_tables(
    result: Evaluated, columns: Sequence[Column], *, per_picture: bool = False
) -> None:
    """All sets side by side where the terminal is wide enough, one after the other elsewhere."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_UNLIMITED)  # a file or a pipe has no width to cut tables to
    places = range(len(result.models[0].sets))
    grids = [by_picture(result, columns, place) for place in places] if per_picture else []
    side_by_side = summary(result, columns, places)
    fits = _width(_rich(side_by_side), console) <= console.width
    grids += [side_by_side] if fits else [summary(result, columns, [place]) for place in places]
    for table in map(_rich, grids):
        console.print(table)
    for line in captions(columns, result.remarks):
        console.print(line, style="dim", highlight=False)


def _width(table: Table, console: Console) -> int:
    return console.measure(table, options=console.options.update(max_width=_UNLIMITED)).maximum


def _rich(grid: Grid) -> Table:
    table = Table(title=grid.title)
    for index, column in enumerate(grid.head):
        table.add_column(
            column, justify="left" if index < grid.labels else "right", overflow="fold"
        )
    for section in grid.sections:
        for row in section:
            table.add_row(*(Text(cell.text, style="bold" if cell.best else "") for cell in row))
        table.add_section()
    return table


def markdown(result: Evaluated, columns: Sequence[Column], *, per_picture: bool = False) -> str:
    """The tables with their protocols, as GitHub's Markdown."""
    places = range(len(result.models[0].sets))
    grids = [summary(result, columns, places)]
    grids += [by_picture(result, columns, place) for place in places] if per_picture else []
    tables = [_markdown(grid) for grid in grids]
    notes = [f"- {line}" for line in captions(columns, result.remarks)]
    return "\n\n".join([*tables, "\n".join(notes)]) + "\n"


def _markdown(grid: Grid) -> str:
    head = [column.replace("\n", " ") for column in grid.head]
    rule = ["---" if index < grid.labels else "--:" for index in range(len(head))]
    rows = [
        [f"**{cell.text}**" if cell.best else cell.text for cell in row]
        for section in grid.sections
        for row in section
    ]
    lines = [" | ".join(text.replace("|", "\\|") for text in row) for row in [head, rule, *rows]]
    return "\n".join([f"{grid.title}", "", *(f"| {line} |" for line in lines)])
