"""Large pictures cut into slices with their objects: training sets that show small objects large.

Slices have the geometry of slicing aided inference (Akyon et al. 2022). Pictures are read piece by
piece, so one that would not fit memory is cut like any other.
"""

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from detection.windows import Window, grid_windows
from pipeline.annotated import check_annotated_size
from pipeline.depth import check_raster
from pipeline.files import atomic_folder
from pipeline.pictures import to_uint8, write_picture
from pipeline.progress import bar
from pipeline.raster import open_raster

LARGEST = 100_000**2
Row = dict[str, Any]


@dataclass(frozen=True)
class Slicing:
    """How pictures are cut.

    Attributes:
        size: side of a slice in pixels.
        overlap: share that neighbours share.
        visible: objects of which less lies in a slice are crowd regions there.
        empty: share of the slices without an object that are kept.

    Raises:
        ValueError: a share outside [0, 1].
    """

    size: int
    overlap: float = 0.2
    visible: float = 0.5
    empty: float = 1.0

    def __post_init__(self) -> None:
        for name in ("visible", "empty"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {value}")
        grid_windows(1, 1, size=self.size, overlap=self.overlap)  # refuses what cannot be


def slice_set(
    content: Mapping[str, Any],
    path: Path,
    images: Path,
    out: Path,
    how: Slicing,
    *,
    overwrite: bool = False,
) -> tuple[int, int]:
    """Cuts a COCO set into ``out/images`` and ``out/annotations.json``.

    A slice is a lossless PNG named after its picture and corner. Every annotation carries its
    ``source``: the id that it has in the whole set.

    Args:
        content: of the COCO file.
        path: of the COCO file, for messages.
        images: folder of its pictures.
        out: folder to make.
        how: to cut.
        overwrite: replace what is there.

    Returns:
        Number of slices and of objects.
    """
    objects: defaultdict[int, list[Row]] = defaultdict(list)
    for row in content["annotations"]:
        objects[row["image_id"]].append(row)
    rows: list[Row] = []
    marks: list[Row] = []
    with (
        atomic_folder(out, overwrite=overwrite) as folder,
        bar("slicing", len(content["images"])) as advance,
    ):
        for picture in content["images"]:
            file = images / picture["file_name"]
            if not file.is_file():
                raise FileNotFoundError(f"no picture {file}, which {path} names; check --images")
            raster = open_raster(file, max_pixels=LARGEST, fill=False)
            check_raster(raster)
            check_annotated_size(file, raster.size[::-1], (picture["width"], picture["height"]))
            for window, inside in _slices(picture, objects[picture["id"]], how, raster.size):
                name = _name(picture["file_name"], window)
                columns = slice(window.x, window.x + window.width)
                piece = raster.read(slice(window.y, window.y + window.height), columns)[0]
                colours = piece[: raster.colours].expand(3, -1, -1)
                write_picture(to_uint8(colours), folder / "images" / name)
                size = {"width": window.width, "height": window.height}
                rows.append({"id": len(rows) + 1, "file_name": name, **size})
                marks += [
                    {"id": len(marks) + n, "image_id": len(rows), **mark}
                    for n, mark in enumerate(inside, 1)
                ]
            advance(1)
        coco = {"images": rows, "categories": content["categories"], "annotations": marks}
        (folder / "annotations.json").write_text(json.dumps(coco))
    return len(rows), len(marks)


def _slices(
    picture: Row, objects: Sequence[Row], how: Slicing, size: tuple[int, int]
) -> Iterator[tuple[Window, list[Row]]]:
    """Windows of a picture that are kept, each with its objects."""
    height, width = size
    draw = random.Random(f"{picture['file_name']}")
    for window in grid_windows(width, height, size=how.size, overlap=how.overlap):
        inside = [mark for row in objects if (mark := _inside(row, window, how.visible))]
        if any(not mark["iscrowd"] for mark in inside) or draw.random() < how.empty:
            yield window, inside


def _inside(row: Row, window: Window, visible: float) -> Row | None:
    """The part of an object that lies in a window, in the window's pixels."""
    x, y, width, height = row["bbox"]
    left, top = max(x, window.x), max(y, window.y)
    right = min(x + width, window.x + window.width)
    bottom = min(y + height, window.y + window.height)
    if right <= left or bottom <= top:
        return None
    share = (right - left) * (bottom - top) / (width * height)
    crowd = bool(row.get("iscrowd", 0)) or share < visible
    return {
        "category_id": row["category_id"], "source": row["id"], "iscrowd": int(crowd),
        "bbox": [left - window.x, top - window.y, right - left, bottom - top],
        "area": row.get("area", width * height) * share,
    }  # fmt: skip


def _name(file: str, window: Window) -> str:
    path = PurePosixPath(file)
    return str(path.with_name(f"{path.stem}_{window.x}_{window.y}.png"))
