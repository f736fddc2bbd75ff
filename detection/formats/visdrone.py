"""VisDrone's annotations: one text file a picture, eight numbers an object.

Zhu et al. 2021, arXiv:2001.06303: left, top, width, height, score, category, truncation, occlusion.
Category 0 marks regions in which nothing was annotated, score 0 what is not evaluated; both become
the category "ignored regions". Category 11, "others", is outside the challenge and left out.
"""

from __future__ import annotations

from pathlib import Path

from detection.formats.mark import Mark, numbers, wrong

IGNORED = "ignored regions"
NAMES = (
    IGNORED, "pedestrian", "people", "bicycle", "car", "van", "truck", "tricycle",
    "awning-tricycle", "bus", "motor",
)  # fmt: skip
"""By number; 0 is the ignored regions."""
OTHERS = 11


def read_visdrone(path: Path) -> list[Mark]:
    """The objects and ignored regions of one annotation file.

    Raises:
        ValueError: a line that cannot be meant; the message names file and line.
    """
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    marks = (
        _mark(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()
    )
    return [mark for mark in marks if mark is not None]


def _mark(path: Path, line: int, text: str) -> Mark | None:
    words = text.strip().rstrip(",").split(",")  # some files of the set end their lines so
    values = numbers(path, line, words)
    if len(values) != 8:
        raise wrong(
            path, line, f"{len(values)} numbers", "a line has eight: left, top, width, height, "
            "score, category, truncation, occlusion",
        )  # fmt: skip
    left, top, width, height, score, category = values[:6]
    if category not in range(OTHERS + 1):
        raise wrong(path, line, f"category {category:g}", "categories are 0 to 11")
    if category == OTHERS:
        return None
    name = NAMES[int(category)] if score else IGNORED
    return Mark((left, top, width, height), name)
