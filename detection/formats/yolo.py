"""YOLO's labels: one text file a picture, one line an object, all in shares of the picture's sides.

A line is ``class x y width height`` with the middle of the box, or ``class x1 y1 x2 y2 ...`` with
the outline of an object (three corners or more), of which the hull is taken. Classes count from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detection.formats.mark import Mark, numbers, wrong

SLACK = 1e-3
"""Shares this much outside [0, 1] are rounding in the tool that wrote them."""


def read_yolo(path: Path, size: tuple[int, int], names: Sequence[str]) -> list[Mark]:
    """The objects of one label file.

    Args:
        path: of the label file.
        size: width and height of its picture, in pixels.
        names: of the classes, by number.

    Raises:
        ValueError: a line that cannot be meant; the message names file and line.
    """
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return [
        _mark(path, number, words, size, names)
        for number, line in enumerate(lines, start=1)
        if (words := line.split())
    ]


def _mark(
    path: Path, line: int, words: list[str], size: tuple[int, int], names: Sequence[str]
) -> Mark:
    values = numbers(path, line, words)
    if len(values) != 5 and (len(values) < 7 or not len(values) % 2):
        raise wrong(
            path, line, f"{len(values)} numbers",
            "a line is 'class x y width height', or a class and three corners or more (a score "
            "behind a box means that this is a file of predictions)",
        )  # fmt: skip
    left, top, right, bottom = _hull(values[1:])
    if min(left, top) < -SLACK or max(right, bottom) > 1 + SLACK:
        raise wrong(
            path, line, f"the box {left:g} {top:g} {right:g} {bottom:g} leaves the picture",
            "all values are shares of the picture's sides, from 0 to 1; are these pixels?",
        )  # fmt: skip
    width, height = size
    box = (left * width, top * height, (right - left) * width, (bottom - top) * height)
    return Mark(box, _name(path, line, values[0], names))


def _hull(values: list[float]) -> tuple[float, float, float, float]:
    if len(values) == 4:
        x, y, width, height = values
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    across, down = values[0::2], values[1::2]
    return min(across), min(down), max(across), max(down)


def _name(path: Path, line: int, value: float, names: Sequence[str]) -> str:
    if not value.is_integer() or not 0 <= value < len(names):
        known = f"0 to {len(names) - 1}, as there are {len(names)} names"
        raise wrong(path, line, f"class {value:g}", f"classes are whole numbers from {known}")
    return names[int(value)]
