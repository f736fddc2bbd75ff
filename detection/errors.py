"""Which objects were won and lost, one by one: an arm against the reference.

An average precision says how much changed; this says what: objects newly found, objects lost, those
whose name or place changed, and what the arm invented (per megapixel).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from detection.boxes import Detections, iou_matrix, share_inside
from detection.sizes import BINS, bin_name
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
    named: int
    """Of the newly found: those that the reference saw under a wrong category."""
    misnamed: int
    """Of the lost: those that the arm sees under a wrong category."""
    overlap_change: float
    """Mean change of the overlap of objects that both found; nan without any."""


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
    side = torch.cat([o.areas[~o.crowds].sqrt() for o in truth.objects.values()])
    was, now = (_sight(truth, found, score, iou) for found in (reference, arm))
    return [_row(low, high, (side >= low) & (side < high), was, now) for low, high in bins]


def found_objects(
    truth: CocoSet, detections: Mapping[int, Detections], *, score: float = 0.3, iou: float = 0.5
) -> dict[int, Tensor]:
    """Image id to which of its objects are found, ``(N,)`` bool in the set's order."""
    return {
        image: _match(objects, _confident(detections, image, score), iou)[0]
        for image, objects in truth.objects.items()
    }


def false_boxes(
    truth: CocoSet, detections: Mapping[int, Detections], *, score: float = 0.3, iou: float = 0.5
) -> dict[int, Tensor]:
    """Image id to the boxes ``(M, 4)`` of detections that match no object, best first.

    Detections inside a crowd region of their category are not among them.
    """
    wrong = {}
    for image, objects in truth.objects.items():
        found = _confident(detections, image, score)
        wrong[image] = found.boxes[_match(objects, found, iou)[1]]
    return wrong


def false_positives_per_megapixel(
    truth: CocoSet, detections: Mapping[int, Detections], *, score: float = 0.3, iou: float = 0.5
) -> float:
    """Detections that match no object, per million original pixels of the whole set.

    Detections inside a crowd region of their category count neither way.
    """
    wrong = sum(map(len, false_boxes(truth, detections, score=score, iou=iou).values()))
    return wrong / sum(picture.width * picture.height / 1e6 for picture in truth.images)


def hallucinations_per_megapixel(
    truth: CocoSet,
    detections: Mapping[int, Detections],
    *,
    score: float = 0.3,
    iou: float = 0.5,
    background: float = 0.1,
) -> float:
    """Detections where there is nothing of any category, per million original pixels of the set.

    Unlike a false positive at large, such a box cannot be a doubled, misplaced or misnamed object
    (Bolya et al. 2020, arXiv:2008.08115: background errors): the arm invented it.

    Args:
        truth: the set.
        detections: image id to detections in original pixels.
        score: detections below it are not shown to anybody.
        iou: share of a detection that must lie in a crowd region of its category to be excused.
        background: overlap up to which a detection touches no object.
    """
    invented = 0
    for image, objects in truth.objects.items():
        found = _confident(detections, image, score)
        overlap = iou_matrix(found.boxes, objects.boxes[~objects.crowds])
        alone = (overlap <= background).all(dim=1)
        invented += int((alone & ~_in_crowd(objects, found, iou)).sum())
    return invented / sum(picture.width * picture.height / 1e6 for picture in truth.images)


class _Sight(NamedTuple):
    """How an arm sees each object that is no crowd region, in the set's order, ``(N,)`` each."""

    found: Tensor
    seen: Tensor
    """Under whatever category."""
    overlap: Tensor

    def of(self, chosen: Tensor) -> _Sight:
        return _Sight(self.found[chosen], self.seen[chosen], self.overlap[chosen])


def _sight(
    truth: CocoSet, detections: Mapping[int, Detections], score: float, iou: float
) -> _Sight:
    parts = []
    for image, objects in truth.objects.items():
        found = _confident(detections, image, score)
        overlap = _match(objects, found, iou)[2]
        nameless = replace(objects, labels=torch.zeros_like(objects.labels))
        boxes = replace(found, labels=torch.zeros_like(found.labels))
        seen = _match(nameless, boxes, iou)[0]
        parts.append(_Sight(overlap > 0, seen, overlap).of(~objects.crowds))
    return _Sight(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _row(low: float, high: float, chosen: Tensor, was: _Sight, now: _Sight) -> Transitions:
    was, now = was.of(chosen), now.of(chosen)
    both = was.found & now.found
    found, lost = ~was.found & now.found, was.found & ~now.found
    return Transitions(
        bin=bin_name(low, high),
        objects=len(both),
        both=int(both.sum()),
        found=int(found.sum()),
        lost=int(lost.sum()),
        neither=int((~was.found & ~now.found).sum()),
        named=int((found & was.seen).sum()),
        misnamed=int((lost & now.seen).sum()),
        overlap_change=float((now.overlap - was.overlap)[both].mean()),
    )


def _confident(detections: Mapping[int, Detections], image: int, score: float) -> Detections:
    """Detections of one image of at least ``score``, best first."""
    found = detections.get(image, Detections.empty()).to("cpu")
    found = found.select(found.scores >= score)
    return found.select(found.scores.argsort(descending=True, stable=True))


def _match(objects: Objects, found: Detections, iou: float) -> tuple[Tensor, Tensor, Tensor]:
    """Which objects are found ``(N,)``, which detections, best first, are false ``(M,)``.

    And by what overlap each object is found, ``(N,)``, 0 where it is not.
    """
    hit = torch.zeros(len(objects), dtype=torch.bool)
    by = torch.zeros(len(objects))
    overlap = iou_matrix(found.boxes, objects.boxes)
    overlap[found.labels[:, None] != objects.labels[None, :]] = 0
    overlap[:, objects.crowds] = 0
    false = torch.ones(len(found), dtype=torch.bool)
    for row, candidates in enumerate(overlap):
        free = candidates.masked_fill(hit, 0)
        if len(free) and float(free.max()) >= iou:
            hit[free.argmax()] = True
            by[free.argmax()] = free.max()
            false[row] = False
    return hit, false & ~_in_crowd(objects, found, iou), by


def _in_crowd(objects: Objects, found: Detections, iou: float) -> Tensor:
    """Detections of which at least ``iou`` of the area lies in a crowd region of their category."""
    share = share_inside(found.boxes, objects.boxes[objects.crowds])
    same = found.labels[:, None] == objects.labels[objects.crowds][None, :]
    return ((share >= iou) & same).any(dim=1)
