"""Window plans beside the plain grid: one budget for a whole set, and the controls of a study.

What a choice of windows is worth shows only against windows chosen without thought at the same
cost (``random_plan``) and with knowledge of the truth (``oracle_plan``).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from detection.boxes import Detections, areas
from detection.lattice import fine_starts, greedy_cover, holds
from detection.windows import Window, WindowPlan, check_size, ranked_windows

Sizes = Mapping[int, tuple[int, int]]
"""Image id to width and height of the original picture."""


def guided_plan(
    detections: Mapping[int, Detections],
    sizes: Sizes,
    *,
    size: int,
    mean_budget: float,
    most: int = 16,
    small: float = 48.0,
    scores: tuple[float, float] = (0.02, 1.0),
    sure: float = 0.25,
    margin: float = 0.25,
    multiple: int = 1,
) -> WindowPlan:
    """Guided windows with one budget for all pictures together.

    An empty picture needs no window and a crowded one many, so the budget goes wherever the next
    window holds the most weight. A detection of score p weighs ``p (1 - p) + sure * p ** 2``: most
    where a second look can change most, but a sure one still counts.

    Args:
        detections: image id to what the whole-picture pass found, original pixels.
        sizes: of the pictures; all of them get an entry.
        size: side of the windows, all equal unless a picture is smaller.
        mean_budget: windows per picture, on average over the set.
        most: greatest number of windows of one picture.
        small: only boxes whose square root of area is below this many pixels count.
        scores: least and greatest score that counts.
        sure: weight of a detection that is certain, in [0, 1].
        margin: context around a box that must lie in the window too, of the box's size.
        multiple: every coordinate is a multiple of it, as in ``grid_windows``.
    """
    ranked: list[tuple[float, int, int, Window]] = []
    for image, (width, height) in sizes.items():
        found = detections[image].to("cpu")
        counts = (found.scores >= scores[0]) & (found.scores <= scores[1]) & (found.sides() < small)
        wanted = found.select(counts)
        weights = wanted.scores * (1 - wanted.scores) + sure * wanted.scores**2
        windows = ranked_windows(
            wanted.boxes, weights, width, height,
            size=size, budget=most, margin=margin, multiple=multiple,
        )  # fmt: skip
        ranked += [(-gain, image, rank, window) for rank, (window, gain) in enumerate(windows)]
    # Gains fall within a picture, so the best of all are greedy over the whole set.
    best = sorted(ranked)[: int(mean_budget * len(sizes))]
    return _plan(sizes, ((image, window) for _, image, _, window in best))


def density_windows(
    density: Tensor, width: int, height: int, *, size: int, budget: int, multiple: int = 1
) -> list[Window]:
    """Windows over the most mass of a density map: for objects that left no box to guide by.

    The window over the most mass is taken, its mass is gone, and so on until ``budget``.

    Args:
        density: ``(h, w)``, not negative, over the whole picture at any resolution (sums of
            objectness, or ``score_density``).
        width: of the original picture.
        height: of the original picture.
        size: side of the windows in original pixels.
        budget: greatest number of windows.
        multiple: every coordinate is a multiple of it, as in ``grid_windows``.
    """
    check_size(size, multiple)
    columns, rows = fine_starts(width, size, multiple), fine_starts(height, size, multiple)
    down, across = (
        _cells_inside(cells, length, spans)
        for cells, length, spans in (
            (density.shape[0], height, rows),
            (density.shape[1], width, columns),
        )
    )
    left = density.float().cpu().clone()
    chosen: list[Window] = []
    while len(chosen) < budget and rows and columns:
        mass = down.T @ left @ across  # (rows, columns)
        y, x = divmod(int(mass.argmax()), len(columns))
        if float(mass[y, x]) <= 0:
            break
        chosen.append(Window(columns[x][0], rows[y][0], columns[x][1], rows[y][1]))
        left *= 1 - torch.outer(down[:, y], across[:, x])
    return chosen


def score_density(found: Detections, width: int, height: int, *, cell: int = 16) -> Tensor:
    """Density of detections down to the faintest, ``(ceil(height / cell), ceil(width / cell))``.

    Scores summed by the cell that holds each box's middle, spread over the neighbouring cells.
    """
    rows, columns = -(-height // cell), -(-width // cell)
    middle = ((found.boxes[:, :2] + found.boxes[:, 2:]) / (2 * cell)).long().cpu()
    place = middle[:, 1].clamp(0, rows - 1) * columns + middle[:, 0].clamp(0, columns - 1)
    flat = torch.zeros(rows * columns).index_add(0, place, found.scores.cpu().float())
    return F.avg_pool2d(flat.reshape(1, 1, rows, columns), 3, stride=1, padding=1)[0, 0]


def random_plan(
    like: WindowPlan, sizes: Sizes, *, size: int, seed: int, multiple: int = 1
) -> WindowPlan:
    """As many windows in every picture as another plan has, at random places of the same lattice.

    The control of a choice of windows: equal cost, no thought. A picture's windows depend on the
    seed and its id alone.
    """
    check_size(size, multiple)
    laid: list[tuple[int, Window]] = []
    for image, (width, height) in sizes.items():
        places = [
            Window(x, y, w, h)
            for y, h in fine_starts(height, size, multiple)
            for x, w in fine_starts(width, size, multiple)
        ]
        draw = random.Random(f"{seed} {image}")
        count = min(len(places), len(like.windows.get(image, ())))
        laid += [(image, window) for window in draw.sample(places, count)]
    return _plan(sizes, laid)


def oracle_plan(
    truth: Mapping[int, Tensor],
    sizes: Sizes,
    *,
    size: int,
    small: float = 48.0,
    budget: int = 16,
    margin: float = 0.25,
    seed: int = 0,
    multiple: int = 1,
) -> WindowPlan:
    """Windows that hold the most small objects of the TRUTH: the upper bound of any choice.

    Marked as oracle, for it knows what a detector has to find. Of the places that hold the same
    objects a random one is taken, so that where an object stands in its window tells nothing.

    Args:
        truth: image id to ``(N, 4)`` corner boxes in original pixels.
        sizes: of the pictures.
        size: side of the windows in original pixels.
        small: only objects whose square root of area is below this many pixels count.
        budget: most windows of a picture.
        margin: context around a box that must lie in the window too, of the box's size.
        seed: of the places; a picture's windows depend on it and the picture's id alone.
        multiple: every coordinate is a multiple of it, as in ``grid_windows``.
    """
    check_size(size, multiple)
    laid: list[tuple[int, Window]] = []
    for image, (width, height) in sizes.items():
        boxes = truth[image][areas(truth[image]).sqrt() < small]
        columns, rows = fine_starts(width, size, multiple), fine_starts(height, size, multiple)
        draw = torch.Generator().manual_seed(seed * 1_000_003 + image)
        down, across = (
            # A thousandth decides between places, never against one object more.
            holds(ends, spans, margin=margin) * (1 - 1e-3 * torch.rand(len(spans), generator=draw))
            for ends, spans in ((boxes[:, 1::2], rows), (boxes[:, 0::2], columns))
        )
        for y, x, _ in greedy_cover(down, across, torch.ones(len(boxes)), budget=budget):
            laid.append((image, Window(columns[x][0], rows[y][0], columns[x][1], rows[y][1])))
    return _plan(sizes, laid, oracle=True)


def _cells_inside(cells: int, length: int, spans: list[tuple[int, int]]) -> Tensor:
    """``(cells, M)``: share of each cell of one side of the picture that span M holds."""
    edges = torch.linspace(0, length, cells + 1)
    table = torch.tensor(spans, dtype=edges.dtype).reshape(-1, 2)
    first, last = table[:, 0], table.sum(dim=1)
    low = torch.maximum(edges[:-1, None], first)
    high = torch.minimum(edges[1:, None], last)
    return (high - low).clamp(min=0) / (length / cells)


def _plan(sizes: Sizes, laid: Iterable[tuple[int, Window]], *, oracle: bool = False) -> WindowPlan:
    """A plan with an entry for every picture, its windows in the order they were chosen."""
    rows: dict[int, list[Window]] = {image: [] for image in sizes}
    for image, window in laid:
        rows[image].append(window)
    return WindowPlan({image: tuple(windows) for image, windows in rows.items()}, oracle)
