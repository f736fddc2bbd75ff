"""Which objects were won and lost, one by one: an arm against the reference.

An average precision says how much changed; this says what: objects newly found, objects lost, and
what the arm invented (false positives per megapixel).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detection.boxes import Detections, areas, iou_matrix
from detection.coco import BINS, bin_name
from detection.truth import CocoSet, Objects


@dataclass(frozen=True, slots=True)
class Transitions:
    """What became of the objects of one size between the reference and an arm."""

    bin: str
    objects: int
    both: int
    found: int
    """Missed by the reference, found by the arm."""
    lost: int
    """Found by the reference, missed by the arm."""
    neither: int


def transitions(
    truth: CocoSet,
    reference: Mapping[int, Detections],
    arm: Mapping[int, Detections],
    *,
    bins: Sequence[tuple[float, float]] = BINS,
    score: float = 0.3,
    iou: float = 0.5,
) -> list[Transitions]:
    """What became of every object, one row per size bin.

    Args:
        truth: the set; crowd regions do not count as objects.
        reference: image id to detections in original pixels.
        arm: likewise.
        bins: ranges of the square root of area in pixels, from, up to but without.
        score: detections below it do not count as found.
        iou: overlap from which a detection of the same category finds an object.
    """
    real = {image: ~objects.crowds for image, objects in truth.objects.items()}
    side = torch.cat([truth.objects[image].areas[kept].sqrt() for image, kept in real.items()])
    was, now = (
        torch.cat([hit[real[image]] for image, hit in found.items()])
        for found in (found_objects(truth, d, score=score, iou=iou) for d in (reference, arm))
    )
    return [_row(low, high, (side >= low) & (side < high), was, now) for low, high in bins]


def found_objects(
    truth: CocoSet, detections: Mapping[int, Detections], *, score: float = 0.3, iou: float = 0.5
) -> dict[int, Tensor]:
    """Image id to which of its objects are found, ``(N,)`` bool in the set's order."""
    return {
        image: _match(objects, _confident(detections, image, score), iou)[0]
        for image, objects in truth.objects.items()
    }


def false_positives_per_megapixel(
    truth: CocoSet, detections: Mapping[int, Detections], *, score: float = 0.3, iou: float = 0.5
) -> float:
    """Detections that match no object, per million original pixels of the whole set.

    Detections inside a crowd region of their category count neither way.
    """
    wrong = 0
    for image, objects in truth.objects.items():
        _, false = _match(objects, _confident(detections, image, score), iou)
        wrong += int(false.sum())
    return wrong / sum(picture.width * picture.height / 1e6 for picture in truth.images)


def _row(low: float, high: float, chosen: Tensor, was: Tensor, now: Tensor) -> Transitions:
    was, now = was[chosen], now[chosen]
    return Transitions(
        bin=bin_name(low, high),
        objects=len(was),
        both=int((was & now).sum()),
        found=int((~was & now).sum()),
        lost=int((was & ~now).sum()),
        neither=int((~was & ~now).sum()),
    )


def _confident(detections: Mapping[int, Detections], image: int, score: float) -> Detections:
    """Detections of one image of at least ``score``, best first."""
    found = detections.get(image, Detections.empty()).to("cpu")
    found = found.select(found.scores >= score)
    return found.select(found.scores.argsort(descending=True, stable=True))


def _match(objects: Objects, found: Detections, iou: float) -> tuple[Tensor, Tensor]:
    """Which objects are found ``(N,)`` and which detections, best first, are false ``(M,)``."""
    hit = torch.zeros(len(objects), dtype=torch.bool)
    overlap = iou_matrix(found.boxes, objects.boxes)
    overlap[found.labels[:, None] != objects.labels[None, :]] = 0
    overlap[:, objects.crowds] = 0
    false = torch.ones(len(found), dtype=torch.bool)
    for row, candidates in enumerate(overlap):
        free = candidates.masked_fill(hit, 0)
        if len(free) and float(free.max()) >= iou:
            hit[free.argmax()] = True
            false[row] = False
    return hit, false & ~_in_crowd(objects, found, iou)


def _in_crowd(objects: Objects, found: Detections, iou: float) -> Tensor:
    """Detections of which at least ``iou`` of the area lies in a crowd region of their category."""
    boxes, crowds = found.boxes, objects.boxes[objects.crowds]
    low = torch.maximum(boxes[:, None, :2], crowds[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], crowds[None, :, 2:])
    share = (high - low).clamp(min=0).prod(dim=2) / areas(boxes).clamp(min=1e-9)[:, None]
    same = found.labels[:, None] == objects.labels[objects.crowds][None, :]
    return ((share >= iou) & same).any(dim=1)
