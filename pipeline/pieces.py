"""Pieces of a picture, with the boxes of its objects that lie in them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Box:
    """An object: ``(x0, y0, x1, y1)`` in its picture's pixels."""

    corners: tuple[float, float, float, float]
    category_id: int
    iscrowd: bool


@dataclass(frozen=True)
class Cut:
    """A piece of a picture: its corner in the picture and its pixels."""

    x: int
    y: int
    picture: Tensor


def cuts(picture: Tensor, *, size: int, step: int) -> Iterator[Cut]:
    """Square pieces of a picture ``(..., H, W)`` that cover it; the last are shifted inside."""
    height, width = picture.shape[-2:]
    if not size or (height <= size and width <= size):
        yield Cut(0, 0, picture)
        return
    for y in _starts(height, size, step):
        for x in _starts(width, size, step):
            yield Cut(x, y, picture[..., y : y + size, x : x + size])


def _starts(length: int, size: int, step: int) -> list[int]:
    last = max(0, length - size)
    return sorted({*range(0, last, step), last})


def boxes_inside(boxes: Sequence[Box], piece: Cut) -> list[dict[str, Any]]:
    """Boxes of which at least half lies in the piece, clipped, in the piece's pixels.

    As in COCO: ``bbox`` is ``(x, y, w, h)``.
    """
    height, width = piece.picture.shape[-2:]
    inside = []
    for box in boxes:
        x0, y0, x1, y1 = box.corners
        left, right = max(x0 - piece.x, 0), min(x1 - piece.x, width)
        top, bottom = max(y0 - piece.y, 0), min(y1 - piece.y, height)
        area = max(0.0, right - left) * max(0.0, bottom - top)
        if area >= 0.5 * (x1 - x0) * (y1 - y0):
            bbox = [left, top, right - left, bottom - top]
            entry = {"bbox": bbox, "category_id": box.category_id, "iscrowd": int(box.iscrowd)}
            inside.append(entry)
    return inside
