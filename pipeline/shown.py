"""A place of a picture as every arm of a study shows it, for the gallery."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from detection.boxes import Detections
from detection.windows import Window
from pipeline.arms import NONE, ORIGINAL
from pipeline.findings import SHOWN_SCORE, Findings
from pipeline.pictures import to_uint8
from pipeline.report import GalleryRow, Tile
from pipeline.study import ArmResult
from pipeline.upscalers import bicubic


def shown(
    study: Findings, image: int, window: Window, title: str, arms: Sequence[str]
) -> GalleryRow:
    """Given | what some arms make of it, with their boxes | original, equally large.

    Args:
        study: the study.
        image: id of the picture.
        window: the place, on whole given pixels.
        title: of the row.
        arms: names, in the order shown; the one without windows has no picture of its own.
    """
    pictures = study.pictures
    r = pictures.reduction
    rows = slice(window.y // r, (window.y + window.height) // r)
    columns = slice(window.x // r, (window.x + window.width) // r)
    given = pictures.given(image)[:, rows, columns]
    zoom = max(
        1, study.settings["scale"] // r
    )  # of a native study, whose arms have more pixels than the original
    size = (window.height * zoom, window.width * zoom)
    truth = _local(pictures.truth.boxes[image], window) * zoom

    def as_large(picture: Tensor) -> Tensor:
        return to_uint8(F.interpolate(picture[None], size=size)[0])

    tiles = [Tile("given", as_large(given), truth)]
    by_name = {arm.name: arm for arm in study.arms}
    for arm in map(by_name.__getitem__, arms):
        if arm.spec != NONE:
            seen = as_large(_seen(study, arm, given, image, window))
            tiles.append(Tile(arm.name, seen, truth, _confident(arm.found[image], window) * zoom))
    if r > 1 and all(arm.spec != ORIGINAL for arm in study.arms):
        tiles.append(Tile("original", as_large(_original(study, image, window)), truth))
    return GalleryRow(title, tiles)


def _seen(study: Findings, arm: ArmResult, given: Tensor, image: int, window: Window) -> Tensor:
    """What the arm's detector saw."""
    if arm.spec == ORIGINAL:
        return _original(study, image, window)
    if zoom := study.larger.get(arm.name):
        return bicubic(given, zoom.factor)
    upscaler = study.upscalers[arm.name]
    return given if upscaler is None else upscaler(given[None])[0].cpu()


def _original(study: Findings, image: int, window: Window) -> Tensor:
    rows = slice(window.y, window.y + window.height)
    return study.pictures.original(image)[:, rows, window.x : window.x + window.width]


def middles_inside(boxes: Tensor, window: Window) -> Tensor:
    """Which of ``(N, 4)`` boxes have their middle in a window, ``(N,)`` bool."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    low = torch.tensor([window.x, window.y])
    high = torch.tensor([window.x + window.width, window.y + window.height])
    return ((middle >= low) & (middle < high)).all(dim=1)


def _local(boxes: Tensor, window: Window) -> Tensor:
    kept = boxes[middles_inside(boxes, window)]
    return kept - kept.new_tensor([window.x, window.y, window.x, window.y])


def _confident(found: Detections, window: Window) -> Tensor:
    return _local(found.boxes[found.scores >= SHOWN_SCORE], window)
