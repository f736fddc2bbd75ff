"""The gallery of a study: the places where arms differ, each seen by every arm."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from detection.boxes import Detections
from detection.errors import found_objects
from detection.windows import Window
from pipeline.arms import NONE, ORIGINAL
from pipeline.findings import SHOWN_SCORE, Findings
from pipeline.pictures import to_uint8
from pipeline.report import GalleryRow, Tile
from pipeline.study import ArmResult

SHOWN_SIDE = 64
"""Original pixels a side that a gallery picture shows at least."""


def gallery(study: Findings, *, each: int = 3) -> list[GalleryRow]:
    """Objects that the last network found and the reference missed, and the other way round.

    At most one row a picture and kind; where nothing changed, the smallest objects.
    """
    if not study.networks:
        return []
    name = study.networks[-1]
    by_name = {arm.name: arm for arm in study.arms}
    truth = study.pictures.truth
    was, now = (
        found_objects(truth, by_name[n].found, score=SHOWN_SCORE) for n in (study.reference, name)
    )
    kinds = {
        f"found by {name}, missed by {study.reference}": {i: now[i] & ~was[i] for i in now},
        f"missed by {name}, found by {study.reference}": {i: was[i] & ~now[i] for i in now},
        "the smallest": {i: torch.ones_like(now[i]) for i in now},
    }
    rows: list[GalleryRow] = []
    for title, chosen in kinds.items():
        if title == "the smallest" and rows:
            break
        rows += [
            _gallery_row(study, image, box, title) for image, box in _smallest(study, chosen)[:each]
        ]
    return rows


def _smallest(study: Findings, chosen: Mapping[int, Tensor]) -> list[tuple[int, Tensor]]:
    """The smallest chosen object of each picture, smallest first, as image id and box ``(4,)``."""
    picked = []
    for image, mask in chosen.items():
        objects = study.pictures.truth.objects[image]
        boxes, sizes = objects.boxes[mask], objects.areas[mask]
        if len(boxes):
            picked.append((float(sizes.min()), image, boxes[sizes.argmin()]))
    return [(image, box) for _, image, box in sorted(picked, key=lambda row: row[:2])]


def _region(study: Findings, image: int, box: Tensor) -> Window:
    """A square around a box, wide enough to see what it is, on whole given pixels."""
    r = study.pictures.reduction
    height, width = study.pictures.original(image).shape[-2:]
    side = int(max(SHOWN_SIDE, 2 * float((box[2:] - box[:2]).max())))
    wide, high = (min(side, length) // r * r for length in (width, height))
    x, y = (
        int(min(max(0.0, float(middle) - length / 2), limit - length)) // r * r
        for middle, length, limit in zip(
            (box[:2] + box[2:]) / 2, (wide, high), (width, height), strict=True
        )
    )
    return Window(x, y, wide, high)


def _inside(boxes: Tensor, window: Window) -> Tensor:
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    low = torch.tensor([window.x, window.y])
    high = torch.tensor([window.x + window.width, window.y + window.height])
    return ((middle >= low) & (middle < high)).all(dim=1)


def _gallery_row(study: Findings, image: int, box: Tensor, title: str) -> GalleryRow:
    """Given | each arm's picture with its boxes | original, all at the original's size."""
    pictures, window = study.pictures, _region(study, image, box)
    r = pictures.reduction
    rows = slice(window.y // r, (window.y + window.height) // r)
    columns = slice(window.x // r, (window.x + window.width) // r)
    given = pictures.given(image)[:, rows, columns]
    truth = _local(pictures.truth.boxes[image], window)
    size = (window.height, window.width)
    tiles = [Tile("given", to_uint8(F.interpolate(given[None], size=size)[0]), truth)]
    for arm in study.arms:
        if arm.spec != NONE:
            found = _confident(arm.found[image], window)
            tiles.append(
                Tile(arm.name, to_uint8(_shown(study, arm, given, image, window)), truth, found)
            )
    if r > 1 and all(arm.spec != ORIGINAL for arm in study.arms):
        tiles.append(Tile("original", to_uint8(_original(study, image, window)), truth))
    names = pictures.truth.categories
    objects = pictures.truth.objects[image]
    label = names[int(objects.labels[(objects.boxes == box).all(dim=1)][0])]
    side = float((box[2:] - box[:2]).prod().sqrt())
    name = Path(pictures.paths[image]).name
    return GalleryRow(f"{label} of {side:.0f} px in {name}: {title}", tiles)


def _shown(study: Findings, arm: ArmResult, given: Tensor, image: int, window: Window) -> Tensor:
    """What the arm's detector saw, at the size of the window's original pixels."""
    if arm.spec == ORIGINAL:
        return _original(study, image, window)
    upscaler = study.upscalers[arm.name]
    if upscaler is None:
        return F.interpolate(given[None], size=(window.height, window.width))[0]
    enlarged = upscaler(given[None])
    return F.interpolate(enlarged, size=(window.height, window.width), mode="area")[0]


def _original(study: Findings, image: int, window: Window) -> Tensor:
    rows = slice(window.y, window.y + window.height)
    return study.pictures.original(image)[:, rows, window.x : window.x + window.width]


def _local(boxes: Tensor, window: Window) -> Tensor:
    kept = boxes[_inside(boxes, window)]
    return kept - kept.new_tensor([window.x, window.y, window.x, window.y])


def _confident(found: Detections, window: Window) -> Tensor:
    return _local(found.boxes[found.scores >= SHOWN_SCORE], window)
