"""COCO annotation files: what cannot be meant is an error, what can be mended is counted."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from detection.boxes import areas, clip, xywh_to_xyxy

Corners = tuple[float, float, float, float]


class _Row(NamedTuple):
    """What makes an object another one than those before it."""

    box: Corners
    label: int
    crowd: bool


@dataclass(frozen=True, slots=True)
class Picture:
    """One image of a set: its id, file name (relative to the image folder) and size in pixels."""

    id: int
    file_name: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Objects:
    """What is true of one picture.

    ``boxes`` ``(N, 4)`` float32 corners in original pixels; ``labels`` ``(N,)`` int64 category ids;
    ``areas`` ``(N,)`` float64 as annotated (of the mask where the set has masks), else the box's;
    ``crowds`` ``(N,)`` bool: regions whose detections count neither for nor against.
    """

    boxes: Tensor
    labels: Tensor
    areas: Tensor
    crowds: Tensor

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True, slots=True)
class CocoSet:
    """A detection set: pictures, categories (id to name) and the objects of every picture."""

    path: Path
    images: tuple[Picture, ...]
    categories: dict[int, str]
    objects: dict[int, Objects]
    skipped: list[str]
    """Objects left out or mended while reading, one sentence each."""

    @property
    def boxes(self) -> dict[int, Tensor]:
        """Image id to the boxes of its objects without crowd regions; every image has an entry."""
        return {image: objects.boxes[~objects.crowds] for image, objects in self.objects.items()}

    def subset(self, images: Sequence[int]) -> CocoSet:
        """The same set restricted to some image ids.

        Raises:
            ValueError: an id is not of this set.
        """
        wanted = set(images)
        if unknown := sorted(wanted - self.objects.keys()):
            raise ValueError(
                f"{self.path} has no image id {unknown[0]} ({len(unknown)} unknown ids)"
            )
        return CocoSet(
            self.path,
            tuple(picture for picture in self.images if picture.id in wanted),
            self.categories,
            {image: objects for image, objects in self.objects.items() if image in wanted},
            self.skipped,
        )


def read_coco(path: Path, *, images: Path | None = None, allow_empty: bool = False) -> CocoSet:
    """Read a COCO detection file.

    Extra keys are ignored; a missing ``area`` becomes width times height, a missing ``iscrowd`` 0.
    What is annotated twice alike counts once.
    An ``area`` that is 0, or larger than the box, becomes the box's, and is told in ``skipped``.
    Boxes that stick out of their picture are cut, boxes without extent or wholly outside are left
    out; both are told in ``skipped``.

    Args:
        path: the annotation JSON.
        images: folder of the pictures; when given, every file named in the set must be there.
        allow_empty: accept a set without a single object.

    Raises:
        FileNotFoundError: the file or one of the pictures is missing.
        ValueError: the file is not COCO; the message names the entry and the cure.
    """
    path = Path(path)
    content = _load(path)
    categories = _read_categories(path, content)
    pictures = _read_pictures(path, content)
    if images is not None:
        _check_files(path, pictures, Path(images))
    skipped: list[str] = []
    objects = _read_objects(path, content, pictures, categories, skipped)
    if not allow_empty and not any(len(found) for found in objects.values()):
        raise ValueError(
            f"{path} has no usable annotation ({len(skipped)} were left out); a detection set "
            f"needs objects to measure on"
        )
    return CocoSet(path, tuple(pictures.values()), categories, objects, skipped)


def _load(path: Path) -> dict[str, Any]:
    if path.is_dir() or path.suffix.lower() in (".txt", ".xml", ".yaml", ".yml"):
        raise ValueError(
            f"{path} is no COCO file; labels of YOLO (.txt), Pascal VOC (.xml) and VisDrone become "
            "one with `srdet convert --kind yolo --images PICTURES --labels LABELS --out set.json`"
        )
    if not path.is_file():
        raise FileNotFoundError(f"no annotation file {path}; give the COCO JSON of the set")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}); give the COCO JSON of the set") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds a {type(content).__name__}, not COCO's object with three lists"
        )
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise ValueError(
                f"{path} has no list '{key}' (it has {', '.join(sorted(content)) or 'nothing'}); "
                f"a COCO detection file needs images, annotations and categories"
            )
    return content


def _read_categories(path: Path, content: dict[str, Any]) -> dict[int, str]:
    categories: dict[int, str] = {}
    for position, entry in enumerate(content["categories"]):
        where = f"{path}: categories[{position}]"
        identity = _integer(entry, "id", where)
        if identity in categories:
            raise ValueError(f"{where}: category id {identity} is used twice; make the ids unique")
        categories[identity] = _text(entry, "name", where)
    if not categories:
        raise ValueError(f"{path} has an empty list 'categories'; name at least one category")
    return categories


def _read_pictures(path: Path, content: dict[str, Any]) -> dict[int, Picture]:
    pictures: dict[int, Picture] = {}
    for position, entry in enumerate(content["images"]):
        where = f"{path}: images[{position}]"
        identity = _integer(entry, "id", where)
        if identity in pictures:
            raise ValueError(f"{where}: image id {identity} is used twice; make the ids unique")
        sides = "; write width and height in, in pixels of the upright picture"
        width, height = (_integer(entry, key, where, sides) for key in ("width", "height"))
        if width < 1 or height < 1:
            raise ValueError(f"{where}: image id {identity} measures {width}x{height} pixels")
        pictures[identity] = Picture(identity, _text(entry, "file_name", where), width, height)
    if not pictures:
        raise ValueError(f"{path} has an empty list 'images'; a set needs at least one picture")
    return pictures


def _check_files(path: Path, pictures: dict[int, Picture], folder: Path) -> None:
    missing = [p for p in pictures.values() if not (folder / p.file_name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(pictures)} pictures of {path} are not in {folder}, the first "
            f"is {missing[0].file_name} (image id {missing[0].id}); give the folder that file_name "
            f"starts in, or take the entries of pictures that are gone out of the file"
        )


def _read_objects(
    path: Path,
    content: dict[str, Any],
    pictures: dict[int, Picture],
    categories: dict[int, str],
    skipped: list[str],
) -> dict[int, Objects]:
    areas_of: dict[int, dict[_Row, float]] = {image: {} for image in pictures}
    seen: set[int] = set()
    for position, entry in enumerate(content["annotations"]):
        where = f"{path}: annotations[{position}]"
        identity = _integer(entry, "id", where)
        where = f"{path}: annotation id {identity}"
        image = _integer(entry, "image_id", where)
        label = _integer(entry, "category_id", where)
        if image not in pictures:
            raise ValueError(f"{where}: image_id {image} is not in the list 'images'")
        if label not in categories:
            raise ValueError(f"{where}: category_id {label} is none of {_listed(categories)}")
        box = _read_box(entry, where, pictures[image], skipped)
        if box is None:
            continue
        row = _Row(box, label, _read_crowd(entry, where))
        if row in areas_of[image]:
            skipped.append(f"{where}: left out, the same box and category are there already")
            continue
        if identity in seen:
            skipped.append(f"{where} is used twice; both objects are kept")
        seen.add(identity)
        areas_of[image][row] = _read_area(entry, box, where, skipped)
    return {image: _objects(found) for image, found in areas_of.items()}


def _read_box(
    entry: dict[str, Any], where: str, picture: Picture, skipped: list[str]
) -> Corners | None:
    """Corners inside the picture, or None where nothing of the box is left."""
    bbox = entry.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(_is_finite(side) for side in bbox):
        raise ValueError(
            f"{where}: bbox must be four finite numbers x, y, width, height, got {bbox!r}"
        )
    if min(bbox[2:]) <= 0:
        skipped.append(f"{where}: left out, its box {bbox} has no extent")
        return None
    corners = xywh_to_xyxy(torch.tensor([bbox], dtype=torch.float64))
    inside = clip(corners, picture.width, picture.height)
    if float(areas(inside)) <= 0:
        skipped.append(
            f"{where}: left out, its box {bbox} lies outside the picture of "
            f"{picture.width}x{picture.height}"
        )
        return None
    # Half a pixel is rounding in the annotation tool, not worth a word.
    if float((inside - corners).abs().max()) > 0.5:
        skipped.append(f"{where}: box {bbox} cut at the {picture.width}x{picture.height} picture")
    x0, y0, x1, y1 = (float(value) for value in inside[0])
    return x0, y0, x1, y1


def _read_area(entry: dict[str, Any], box: Corners, where: str, skipped: list[str]) -> float:
    """As annotated, unless no object in such a box has that area: it decides on the size told."""
    area, of_box = entry.get("area"), (box[2] - box[0]) * (box[3] - box[1])
    if area is None:
        return of_box
    if not _is_finite(area) or area < 0:
        raise ValueError(f"{where}: area must be a number of square pixels, got {area!r}")
    width, height = entry["bbox"][2:]
    if 0 < area <= _MOST_OF_A_BOX * width * height:
        return float(area)
    skipped.append(
        f"{where}: area {area} is not that of an object in a box of {width} x {height}; the box's "
        f"area is taken"
    )
    return of_box


_MOST_OF_A_BOX = 1.5
"""An area of more times the box's is of another copy of the picture; of less it may be rounding."""


def _read_crowd(entry: dict[str, Any], where: str) -> bool:
    crowd = entry.get("iscrowd")
    if crowd not in (None, 0, 1):
        raise ValueError(f"{where}: iscrowd must be 0 or 1, got {crowd!r}")
    return bool(crowd)


def _objects(areas_of: dict[_Row, float]) -> Objects:
    return Objects(
        boxes=torch.tensor([row.box for row in areas_of], dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor([row.label for row in areas_of], dtype=torch.int64),
        areas=torch.tensor(list(areas_of.values()), dtype=torch.float64),
        crowds=torch.tensor([row.crowd for row in areas_of], dtype=torch.bool),
    )


def _integer(entry: object, key: str, where: str, cure: str = "") -> int:
    value = entry.get(key) if isinstance(entry, dict) else None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{where}: '{key}' must be a whole number, got {value!r}{cure}")
    return value


def _text(entry: dict[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{where}: '{key}' must be a text, got {value!r}")
    return value


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _listed(categories: dict[int, str]) -> str:
    shown = ", ".join(f"{key} ({name})" for key, name in list(categories.items())[:12])
    return shown + (", ..." if len(categories) > 12 else "")
