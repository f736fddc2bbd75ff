"""Where to look closer: fixed-size windows over a picture, computed once and used by every arm.

A study compares upscalers, so nothing but the upscaler may differ between its arms: the windows are
planned once, stored with their digest, and read back by each arm.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
from torch import Tensor

from detection.boxes import Detections, areas


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A rectangle in ORIGINAL pixels: left, top, width, height."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """Image id to its windows (an image may have none), the same for every arm of a study."""

    windows: dict[int, tuple[Window, ...]]

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON of the windows: equal plans have equal digests."""
        text = json.dumps(self._table(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write the plan as JSON; a reader never sees half a file."""
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps({"digest": self.digest, "windows": self._table()}))
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> WindowPlan:
        """Read a plan that ``save`` wrote.

        Raises:
            ValueError: the file is no plan, or its windows are not those its digest was made from.
        """
        try:
            stored = json.loads(path.read_text())
            table = {int(image): rows for image, rows in stored["windows"].items()}
            plan = cls(
                {image: tuple(Window(*row) for row in rows) for image, rows in table.items()}
            )
            digest = stored["digest"]
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is not a window plan ({error}); plan the windows again"
            ) from error
        if digest != plan.digest:
            raise ValueError(f"{path} was changed after it was written: {plan.digest=}, {digest=}")
        return plan

    def _table(self) -> dict[str, list[tuple[int, ...]]]:
        return {
            str(image): [astuple(window) for window in self.windows[image]]
            for image in sorted(self.windows)
        }


@dataclass(frozen=True, slots=True)
class Coverage:
    """What a plan can reach and what it costs. Misses outside the windows no upscaler can mend."""

    share: float
    """Small objects wholly inside a window, of all small objects; nan where there are none."""
    small_objects: int
    windows_per_image: float
    megapixels: float
    """ORIGINAL pixels inside windows, overlaps counted each time, in millions over all images."""


def grid_windows(
    width: int, height: int, *, size: int, overlap: float = 0.2, multiple: int = 1
) -> list[Window]:
    """Windows of ``size`` pixels that cover a picture, row by row, the last one shifted inside.

    Args:
        width: of the original picture.
        height: of the original picture.
        size: side of a window; a side of the picture that is shorter is taken whole.
        overlap: least shared part of neighbours, of ``size``, in [0, 1).
        multiple: every coordinate is a multiple of it: the study's reduction factor, so that a
            window is a whole number of low-resolution pixels. The rest of a side is not covered.
    """
    _check_size(size, multiple)
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap must be at least 0 and below 1, got {overlap}")
    step = max(multiple, int(size * (1 - overlap)) // multiple * multiple)
    columns, rows = _starts(width, size, step, multiple), _starts(height, size, step, multiple)
    return [Window(x, y, w, h) for y, h in rows for x, w in columns]


def guided_windows(
    detections: Detections,
    width: int,
    height: int,
    *,
    size: int,
    small: float = 48.0,
    scores: tuple[float, float] = (0.02, 0.8),
    budget: int = 8,
    margin: float = 0.25,
    multiple: int = 1,
) -> list[Window]:
    """Windows where the full-picture detector saw small objects and was unsure of them.

    Greedy maximum coverage: each detection weighs ``p (1 - p)``, the most where a second look can
    change the most; the window that holds the most weight still uncovered is taken until ``budget``
    windows are chosen or nothing is left. Windows stand on a lattice of an eighth of their side,
    so a window's place does not give away the object's.

    Args:
        detections: of the full picture, in original pixels.
        width: of the original picture.
        height: of the original picture.
        size: side of the windows, all equal unless the picture is smaller.
        small: only boxes whose square root of area is below this many pixels count.
        scores: least and greatest score that counts.
        budget: greatest number of windows.
        margin: context around a box that must lie in the window too, of the box's size.
        multiple: every coordinate is a multiple of it, as in ``grid_windows``.
    """
    _check_size(size, multiple)
    low, high = scores
    unsure = (detections.scores >= low) & (detections.scores <= high)
    wanted = detections.select(unsure & (detections.sides() < small)).to("cpu")
    step = max(multiple, size // 8 // multiple * multiple)
    columns, rows = _starts(width, size, step, multiple), _starts(height, size, step, multiple)
    across = _line_values(wanted.boxes[:, 0::2], columns, margin=margin)
    down = _line_values(wanted.boxes[:, 1::2], rows, margin=margin)
    weights = wanted.scores * (1 - wanted.scores)
    return [
        Window(columns[x][0], rows[y][0], columns[x][1], rows[y][1])
        for y, x in _greedy_cover(down, across, weights, budget=budget)
    ]


def coverage(truth: Mapping[int, Tensor], plan: WindowPlan, *, small: float) -> Coverage:
    """How much of the truth a plan reaches.

    Args:
        truth: image id to ``(N, 4)`` corner boxes in original pixels; images without objects too.
        plan: the windows.
        small: objects whose square root of area is below this many pixels count.
    """
    reached = total = 0
    for image, boxes in truth.items():
        chosen = boxes[areas(boxes).sqrt() < small]
        total += len(chosen)
        reached += int(_inside(chosen, plan.windows.get(image, ())).any(dim=1).sum())
    windows = [window for rows in plan.windows.values() for window in rows]
    return Coverage(
        share=reached / total if total else math.nan,
        small_objects=total,
        windows_per_image=len(windows) / max(1, len(truth)),
        megapixels=sum(window.width * window.height for window in windows) / 1e6,
    )


def _check_size(size: int, multiple: int) -> None:
    if size < 1 or multiple < 1 or size % multiple:
        raise ValueError(
            f"a window's size must be a positive multiple of the reduction factor, "
            f"got size {size} and factor {multiple}"
        )


def _starts(length: int, size: int, step: int, multiple: int) -> list[tuple[int, int]]:
    """Start and extent of the windows along one side of the picture."""
    length = length // multiple * multiple
    if length <= size:
        return [(0, length)] if length else []
    last = length - size
    return [(start, size) for start in [*range(0, last, step), last]]


def _inside(boxes: Tensor, windows: Iterable[Window]) -> Tensor:
    """Which of ``(N, 4)`` boxes lie wholly in which of M windows, ``(N, M)`` bool."""
    rows = [[w.x, w.y, w.x + w.width, w.y + w.height] for w in windows]
    frames = torch.tensor(rows, dtype=boxes.dtype).reshape(-1, 4)
    begins = boxes[:, None, :2] >= frames[None, :, :2]
    ends = boxes[:, None, 2:] <= frames[None, :, 2:]
    return (begins & ends).all(dim=2)


def _line_values(ends: Tensor, spans: list[tuple[int, int]], *, margin: float) -> Tensor:
    """``(N, M)``: 0 where span M lacks interval N with its context, else near 1.

    A window's value is the product of the values of its two lines.
    """
    starts = torch.tensor([start for start, _ in spans], dtype=ends.dtype)
    stops = torch.tensor([start + extent for start, extent in spans], dtype=ends.dtype)
    context = margin * (ends[:, 1:] - ends[:, :1])  # (N, 1)
    # Context beyond the picture cannot be had.
    limit = float(stops.max()) if spans else 0.0
    low, high = (ends[:, :1] - context).clamp(min=0), (ends[:, 1:] + context).clamp(max=limit)
    inside = (low >= starts) & (high <= stops)  # (N, M)
    offset = (ends.mean(dim=1, keepdim=True) - (starts + stops) / 2).abs() / (stops - starts)
    # A thousandth decides between windows that hold the same boxes, never against one box more.
    return inside * (1 - 1e-3 * offset.clamp(max=1))


def _greedy_cover(
    down: Tensor, across: Tensor, weights: Tensor, *, budget: int
) -> list[tuple[int, int]]:
    """Rows and columns ``(y, x)`` of the lattice, the most weight first."""
    chosen: list[tuple[int, int]] = []
    left = weights.clone()
    while len(chosen) < budget and across.shape[1] and down.shape[1]:
        gains = (down * left[:, None]).T @ across  # (rows, columns)
        y, x = divmod(int(gains.argmax()), across.shape[1])
        if float(gains[y, x]) <= 0:
            break
        chosen.append((y, x))
        left[(down[:, y] > 0) & (across[:, x] > 0)] = 0
    return chosen
