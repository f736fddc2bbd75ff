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
from detection.files import write_atomically
from detection.lattice import fine_starts, greedy_cover, holds, off_centre, starts


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
    oracle: bool = False
    """Laid with knowledge of the truth: an upper bound, never a headline."""

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON: equal plans have equal digests.

        An oracle's differs from that of the same windows laid honestly, so the mark cannot be
        taken off a stored plan unseen.
        """
        text = json.dumps(self._table(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256((("oracle" if self.oracle else "") + text).encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write the plan as JSON; a reader never sees half a file."""
        stored = {"digest": self.digest, "oracle": self.oracle, "windows": self._table()}
        write_atomically(path, json.dumps(stored).encode())

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
                {image: tuple(Window(*row) for row in rows) for image, rows in table.items()},
                bool(stored.get("oracle", False)),
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
    ceiling: float = math.nan
    """Small objects inside a window or found without one: the greatest recall an arm can have."""


def grid_windows(
    width: int, height: int, *, size: int, overlap: float = 0.2, multiple: int = 1
) -> list[Window]:
    """Windows of ``size`` pixels that cover a picture, row by row, the last one shifted inside.

    The geometry of slicing aided inference (Akyon et al. 2022): neighbours share the whole number
    of pixels below ``overlap * size``.

    Args:
        width: of the original picture.
        height: of the original picture.
        size: side of a window; a side of the picture that is shorter is taken whole.
        overlap: least shared part of neighbours, of ``size``, in [0, 1).
        multiple: every coordinate is a multiple of it: the study's reduction factor, so that a
            window is a whole number of low-resolution pixels. The rest of a side is not covered.
    """
    check_size(size, multiple)
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap must be at least 0 and below 1, got {overlap}")
    step = max(multiple, (size - int(overlap * size)) // multiple * multiple)
    columns, rows = starts(width, size, step, multiple), starts(height, size, step, multiple)
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
    low, high = scores
    unsure = (detections.scores >= low) & (detections.scores <= high)
    wanted = detections.select(unsure & (detections.sides() < small)).to("cpu")
    weights = wanted.scores * (1 - wanted.scores)
    chosen = ranked_windows(
        wanted.boxes, weights, width, height,
        size=size, budget=budget, margin=margin, multiple=multiple,
    )  # fmt: skip
    return [window for window, _ in chosen]


def ranked_windows(
    boxes: Tensor,
    weights: Tensor,
    width: int,
    height: int,
    *,
    size: int,
    budget: int,
    margin: float = 0.25,
    multiple: int = 1,
) -> list[tuple[Window, float]]:
    """Windows that hold the most weight of ``(N, 4)`` boxes, each with what it adds, best first.

    Arguments as of ``guided_windows``; ``weights`` is ``(N,)``.
    """
    check_size(size, multiple)
    columns, rows = fine_starts(width, size, multiple), fine_starts(height, size, multiple)
    across, down = (
        # A thousandth decides between windows that hold the same boxes, never against one box more.
        holds(ends, spans, margin=margin) * (1 - 1e-3 * off_centre(ends, spans))
        for ends, spans in ((boxes[:, 0::2], columns), (boxes[:, 1::2], rows))
    )
    return [
        (Window(columns[x][0], rows[y][0], columns[x][1], rows[y][1]), gain)
        for y, x, gain in greedy_cover(down, across, weights, budget=budget)
    ]


def coverage(
    truth: Mapping[int, Tensor],
    plan: WindowPlan,
    *,
    small: float,
    found: Mapping[int, Tensor] | None = None,
) -> Coverage:
    """How much of the truth a plan reaches.

    Args:
        truth: image id to ``(N, 4)`` corner boxes in original pixels; images without objects too.
        plan: the windows.
        small: objects whose square root of area is below this many pixels count.
        found: which of the boxes the whole-picture pass finds, ``(N,)`` bool, where its detections
            are joined to every arm; None for arms that have their windows alone.
    """
    chosen = {image: areas(boxes).sqrt() < small for image, boxes in truth.items()}
    inside = reached(truth, plan)
    either = inside if found is None else {i: inside[i] | found[i] for i in inside}
    total = sum(int(mask.sum()) for mask in chosen.values())
    windows = [window for rows in plan.windows.values() for window in rows]
    return Coverage(
        share=_share(inside, chosen, total),
        small_objects=total,
        windows_per_image=len(windows) / max(1, len(truth)),
        megapixels=sum(window.width * window.height for window in windows) / 1e6,
        ceiling=_share(either, chosen, total),
    )


def _share(hit: Mapping[int, Tensor], chosen: Mapping[int, Tensor], total: int) -> float:
    return sum(int((hit[i] & chosen[i]).sum()) for i in hit) / total if total else math.nan


def reached(truth: Mapping[int, Tensor], plan: WindowPlan) -> dict[int, Tensor]:
    """Image id to which of its ``(N, 4)`` boxes lie wholly inside a window, ``(N,)`` bool."""
    return {
        image: _inside(boxes, plan.windows.get(image, ())).any(dim=1)
        for image, boxes in truth.items()
    }


def check_size(size: int, multiple: int) -> None:
    """Refuse windows that are no whole number of low-resolution pixels."""
    if size < 1 or multiple < 1 or size % multiple:
        raise ValueError(
            f"a window's size must be a positive multiple of the reduction factor, "
            f"got size {size} and factor {multiple}"
        )


def _inside(boxes: Tensor, windows: Iterable[Window]) -> Tensor:
    """Which of ``(N, 4)`` boxes lie wholly in which of M windows, ``(N, M)`` bool."""
    rows = [[w.x, w.y, w.x + w.width, w.y + w.height] for w in windows]
    frames = torch.tensor(rows, dtype=boxes.dtype).reshape(-1, 4)
    begins = boxes[:, None, :2] >= frames[None, :, :2]
    ends = boxes[:, None, 2:] <= frames[None, :, 2:]
    return (begins & ends).all(dim=2)
