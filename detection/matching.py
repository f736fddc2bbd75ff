"""Which detection finds which object, for a whole set at once and exactly as COCO matches.

Lin et al. 2014, arXiv:1405.0312. Within one image and category the detections take, best score
first, the free object they overlap most; an object that does not count (a crowd region, a size out
of range) is only taken where no other is left. Detections that share no object do not influence
each other, so all of those whose rivals are done are decided together: as many steps as detections
contend for one object, instead of one step for each detection.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detection.tables import Bools, Floats, Ints, Table, joined

THRESHOLDS: NDArray[np.float64] = np.linspace(0.5, 0.95, 10)
"""COCO's overlaps from which a detection finds an object; pycocotools makes them the same way."""

PAIRS_AT_ONCE = 1_000_000
"""Overlaps computed at once, so that memory stays below some 200 MB however crowded a set is."""


@dataclass(frozen=True, slots=True)
class Matches:
    """All detections of one category matched within one area range, by falling score.

    ``scores`` ``(D,)``; ``image`` ``(D,)`` position of its image; ``hit`` ``(T, D)`` true
    positives and ``miss`` ``(T, D)`` false positives at each IoU threshold. Ignored detections are
    neither; those that are ignored at every threshold have no row. ``objects`` ``(I,)`` objects of
    each image that count.
    """

    scores: Floats
    image: Ints
    hit: Bools
    miss: Bools
    objects: Ints


@dataclass(frozen=True, slots=True)
class Pairs:
    """Detections and the objects of their image and category that they overlap enough.

    By detection, then by falling overlap. ``steps`` holds for each step of the matching the
    positions of its pairs: no two detections of one step contend for an object.
    """

    detection: Ints
    object: Ints
    iou: Floats
    steps: tuple[Ints, ...]


def overlapping_pairs(objects: Table, found: Table, lowest: float) -> Pairs:
    """Every detection with every object of its image and category it overlaps at ``lowest``."""
    parts = list(_overlaps(objects, found, lowest))
    detection = joined([part[0] for part in parts], np.int64)
    place = joined([part[1] for part in parts], np.int64)
    iou = joined([part[2] for part in parts], np.float64)
    # Of equal overlaps COCO takes the object that stands last.
    order = np.lexsort((-place, -iou, detection))
    detection, place, iou = detection[order], place[order], iou[order]
    level = _levels(detection, place, objects.crowds[place])
    ranked = np.argsort(level, kind="stable")
    counts = np.bincount(level) if len(level) else np.zeros(0, np.int64)
    steps = tuple(np.split(ranked, np.cumsum(counts)[:-1])) if len(counts) else ()
    return Pairs(detection, place, iou, steps)


def match(objects: Table, found: Table, pairs: Pairs, *, ignored: Bools, floors: Floats) -> Ints:
    """The object of every detection at every IoU threshold.

    Args:
        objects: all that is true.
        found: all that was detected.
        pairs: of the two, down to the lowest of ``floors``.
        ignored: ``(G,)`` objects that do not count.
        floors: ``(T,)`` overlaps that find an object.

    Returns:
        ``(T, D)`` positions of objects, -1 where there is none.
    """
    # A hair below 1, so that a floor of 1 can be reached; pycocotools does the same.
    floors = np.minimum(floors, 1 - 1e-10)
    taken = np.zeros((len(floors), len(objects)), np.bool_)
    result = np.full((len(floors), len(found)), -1, np.int64)
    for step in pairs.steps:
        detection, place = pairs.detection[step], pairs.object[step]
        free = (pairs.iou[step] >= floors[:, None]) & (~taken[:, place] | objects.crowds[place])
        starts = np.flatnonzero(np.diff(detection, prepend=-1))
        # The first free object wins, and any that counts before any that does not.
        never = 2 * len(step)
        rank = np.arange(len(step)) + len(step) * ignored[place]
        first = np.minimum.reduceat(np.where(free, rank, never), starts, axis=1)
        rows, columns = np.nonzero(first < never)
        chosen = place[first[rows, columns] % len(step)]
        result[rows, detection[starts][columns]] = chosen
        taken[rows, chosen] = True
    return result


def range_matches(
    objects: Table,
    found: Table,
    matched: Ints,
    *,
    ignored: Bools,
    limits: tuple[float, float],
    shape: tuple[int, int],
) -> list[Matches]:
    """What was matched within one area range, for every category.

    ``matched`` is of ``match``; ``shape`` is how many images and categories the set has.
    """
    images, categories = shape
    hit, miss = hits_and_misses(found, matched, ignored=ignored, limits=limits)
    by_score = np.lexsort((-found.scores, found.category))
    counts_anywhere: Bools = np.any(hit | miss, axis=0)
    order = by_score[counts_anywhere[by_score]]
    ends = np.searchsorted(found.category[order], np.arange(categories + 1))
    counted: Bools = ~ignored
    place = objects.category[counted] * images + objects.image[counted]
    counts = np.bincount(place, minlength=categories * images).reshape(categories, images)
    return [
        Matches(found.scores[rows], found.image[rows], hit[:, rows], miss[:, rows], counts[k])
        for k in range(categories)
        for rows in [order[ends[k] : ends[k + 1]]]
    ]


def hits_and_misses(
    found: Table, matched: Ints, *, ignored: Bools, limits: tuple[float, float]
) -> tuple[Bools, Bools]:
    """True and false positives ``(T, D)``; the rest is ignored.

    A detection of an object that does not count is ignored, and so is one of no object whose own
    box is out of range.
    """
    there = matched >= 0
    counts: Bools = np.append(~ignored, True)
    hit = there & counts[matched]
    inside = (found.areas >= limits[0]) & (found.areas <= limits[1])
    return hit, ~there & inside


def ignored_objects(objects: Table, limits: tuple[float, float]) -> Bools:
    """Objects that do not count within an area range: crowd regions and other sizes, ``(G,)``."""
    return objects.crowds | (objects.areas < limits[0]) | (objects.areas > limits[1])


def overlap(boxes: Floats, others: Floats, crowds: Bools) -> Floats:
    """Intersection over union of rows ``(P, 4)`` x, y, width, height; of crowds over ``boxes``.

    The order of the operations is pycocotools', so that no overlap falls on the other side of a
    threshold.
    """
    low = np.maximum(boxes[:, :2], others[:, :2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], others[:, :2] + others[:, 2:])
    sides = np.clip(high - low, 0, None)
    shared = sides[:, 0] * sides[:, 1]
    area, other = boxes[:, 2] * boxes[:, 3], others[:, 2] * others[:, 3]
    union = np.where(crowds, area, area + other - shared)
    iou: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
    return iou


def same_image_pairs(objects: Table, found: Table) -> Iterator[tuple[Ints, Ints]]:
    """Positions of detections with all objects of their image, some detections at a time."""
    return _pairs_by_key(objects.image, found.image)


def _pairs_by_key(keys: Ints, wanted: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Positions of ``wanted`` with those of all equal ``keys``, which are sorted."""
    first, last = np.searchsorted(keys, wanted), np.searchsorted(keys, wanted, side="right")
    counts = last - first
    ends = np.cumsum(counts)
    start = 0
    while start < len(wanted):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + PAIRS_AT_ONCE, side="right")))
        part = counts[start:stop]
        detection = np.repeat(np.arange(start, stop), part)
        within = np.arange(len(detection)) - np.repeat(np.cumsum(part) - part, part)
        yield detection, first[detection] + within
        start = stop


def _overlaps(objects: Table, found: Table, lowest: float) -> Iterator[tuple[Ints, Ints, Floats]]:
    width = int(max(objects.category.max(initial=0), found.category.max(initial=0))) + 1
    keys, wanted = (table.image * width + table.category for table in (objects, found))
    for detection, place in _pairs_by_key(keys, wanted):
        iou = overlap(found.boxes[detection], objects.boxes[place], objects.crowds[place])
        near = iou >= min(lowest, 1 - 1e-10)
        yield detection[near], place[near], iou[near]


def _levels(detection: Ints, place: Ints, crowds: Bools) -> Ints:
    """Step in which each pair is decided: after all better detections of the same object.

    A crowd region is never used up, so nobody waits for it.
    """
    level = np.zeros(int(detection.max(initial=-1)) + 1, np.int64)
    # Detections stand by falling score within their image and category.
    order = np.lexsort((detection, place))
    order = order[~crowds[order]]
    later = np.flatnonzero(place[order][1:] == place[order][:-1]) + 1
    waits, on = detection[order[later]], detection[order[later - 1]]
    while True:
        raised = level.copy()
        np.maximum.at(raised, waits, level[on] + 1)
        if np.array_equal(raised, level):
            return level[detection]
        level = raised
