"""Why AP is not 1, in six kinds of error, each told by what mending it alone would give.

Bolya et al. 2020, arXiv:2008.08115 (TIDE), sections 2.2 and 2.3, at an overlap of 0.5 for a hit and
0.1 for background. A false positive is of the first kind that fits: *loc*, an object of its
category overlaps it between the two; *cls*, an object of another category overlaps it enough;
*dupe*, an object of its category does, but a better detection has it; *bkg*, nothing overlaps it;
*both*, the rest. *miss* is an object without a hit that neither mending *loc* nor *cls* would give
one.

Departures: matching is COCO's, so that the AP to start from is AP50 as reported; within a range of
sizes, AP is COCO's of that range, and the kind of an error is judged by the objects of all sizes.
Detections that COCO ignores are no errors. A negative gain is not rounded up to 0, as it would
bias differences between arms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from detection.boxes import Detections
from detection.coco import MAX_DETECTIONS, check_categories
from detection.matching import (
    Matches,
    hits_and_misses,
    ignored_objects,
    match,
    overlap,
    overlapping_pairs,
    same_image_pairs,
)
from detection.precision_recall import weighted_ap
from detection.sizes import BINS, area_ranges
from detection.tables import Bools, Floats, Ints, Table, detection_table, truth_table
from detection.truth import CocoSet

KINDS = ("cls", "loc", "both", "dupe", "bkg", "miss")
"""Kinds of error, in the paper's order."""


@dataclass(frozen=True, slots=True)
class Errors:
    """The errors of one arm among objects of one range of sizes.

    ``ap50`` is AP at an overlap of 0.5 as it is; ``gains`` what it would gain were the errors of a
    kind mended and all others left; ``counts`` how many there are. nan and 0 without objects.
    """

    range: str
    objects: int
    ap50: float
    gains: dict[str, float]
    counts: dict[str, int]


class _Near(NamedTuple):
    """What each detection overlaps most, ``(D,)`` each; object -1 and overlap 0 for nothing."""

    own: Ints
    own_iou: Floats
    other: Ints
    other_iou: Floats


class _Judged(NamedTuple):
    """What became of every detection and object within one range of sizes.

    ``hit`` ``(D,)``; ``kind`` ``(D,)`` position in ``KINDS``, -1 for hits and ignored detections;
    ``heir`` ``(D,)`` the free object a mended *loc* or *cls* error would get, -1 where it would
    only go; ``counts`` and ``missed`` ``(K,)`` objects of each category, and those that are missed.
    """

    hit: Bools
    kind: Ints
    heir: Ints
    counts: Ints
    missed: Ints


def tide(
    truth: CocoSet,
    detections: Mapping[int, Detections],
    *,
    bins: Sequence[tuple[float, float]] = BINS,
    max_detections: int = MAX_DETECTIONS,
    hit: float = 0.5,
    background: float = 0.1,
) -> dict[str, Errors]:
    """The six kinds of error of one arm, over all sizes and for every range of sizes.

    Args:
        truth: the set.
        detections: image id to detections in original pixels.
        bins: size bins besides COCO's and AI-TOD's ranges.
        max_detections: the best so many per image count, as in ``evaluate``.
        hit: overlap from which a detection finds an object.
        background: overlap up to which it touches none.

    Returns:
        Area range ('all', 'small', ..., a bin's name) to its errors.
    """
    check_categories(truth, detections)
    objects = truth_table(truth)
    found = detection_table(truth, detections, max_detections)
    near = _nearest(objects, found)
    pairs = overlapping_pairs(objects, found, hit)
    result = {}
    for name, limits in area_ranges(bins).items():
        ignored = ignored_objects(objects, limits)
        matched = match(objects, found, pairs, ignored=ignored, floors=np.array([hit]))
        hits, false = hits_and_misses(found, matched, ignored=ignored, limits=limits)
        kind = _kinds(near, false[0], hit, background)
        free = ~ignored
        free[matched[0][hits[0]]] = False
        heir, wanted = _heirs(found, near, kind, free)
        counts, missed = (
            np.bincount(objects.category[chosen], minlength=len(truth.categories))
            for chosen in (~ignored, free & ~wanted)
        )
        result[name] = _errors(name, objects, found, _Judged(hits[0], kind, heir, counts, missed))
    return result


def tide_differences(arm: Mapping[str, Errors], reference: Mapping[str, Errors]) -> list[Errors]:
    """Arm minus reference for every range: a negative gain of a kind is less of that error.

    Raises:
        ValueError: the two were not measured over the same ranges and objects.
    """
    if {n: e.objects for n, e in arm.items()} != {n: e.objects for n, e in reference.items()}:
        raise ValueError(
            "arm and reference were not measured over the same objects and ranges of sizes; "
            "call tide() with one set and one list of bins for both"
        )
    return [
        Errors(
            range=name,
            objects=errors.objects,
            ap50=errors.ap50 - reference[name].ap50,
            gains={kind: errors.gains[kind] - reference[name].gains[kind] for kind in KINDS},
            counts={kind: errors.counts[kind] - reference[name].counts[kind] for kind in KINDS},
        )
        for name, errors in arm.items()
    ]


def _nearest(objects: Table, found: Table) -> _Near:
    """The object of its own category and of any other one that each detection overlaps most."""
    none, nothing = np.full(len(found), -1), np.zeros(len(found))
    near = _Near(none, nothing, none.copy(), nothing.copy())
    for detection, place in same_image_pairs(objects, found):
        iou = overlap(found.boxes[detection], objects.boxes[place], objects.crowds[place])
        real = (iou > 0) & ~objects.crowds[place]
        own = objects.category[place] == found.category[detection]
        for chosen, best, best_iou in (
            (real & own, near.own, near.own_iou),
            (real & ~own, near.other, near.other_iou),
        ):
            rows = np.flatnonzero(chosen)
            rows = rows[np.lexsort((place[rows], -iou[rows], detection[rows]))]
            rows = rows[np.flatnonzero(np.diff(detection[rows], prepend=-1))]
            best[detection[rows]], best_iou[detection[rows]] = place[rows], iou[rows]
    return near


def _kinds(near: _Near, false: Bools, hit: float, background: float) -> Ints:
    """Position in ``KINDS`` of every false detection, -1 for the others."""
    tests = {
        "loc": (near.own_iou >= background) & (near.own_iou < hit),
        "cls": near.other_iou >= hit,
        "dupe": near.own_iou >= hit,
        "bkg": np.maximum(near.own_iou, near.other_iou) <= background,
    }
    kind = np.full(len(false), KINDS.index("both"))
    for name in reversed(tests):  # the first that fits has the last word
        kind[tests[name]] = KINDS.index(name)
    return np.where(false, kind, -1)


def _heirs(found: Table, near: _Near, kind: Ints, free: Bools) -> tuple[Ints, Bools]:
    """The free object of every mendable error, and which objects are wanted by any.

    Of all errors that want one object only the best-scored gets it.
    """
    wanted = np.where(kind == KINDS.index("loc"), near.own, -1)
    wanted = np.where(kind == KINDS.index("cls"), near.other, wanted)
    rows = np.flatnonzero(np.append(free, False)[wanted])
    rows = rows[np.lexsort((-found.scores[rows], wanted[rows]))]
    rows = rows[np.flatnonzero(np.diff(wanted[rows], prepend=-1))]
    heir = np.full(len(kind), -1)
    heir[rows] = wanted[rows]
    claimed = np.zeros(len(free), np.bool_)
    claimed[wanted[rows]] = True
    return heir, claimed


def _errors(name: str, objects: Table, found: Table, judged: _Judged) -> Errors:
    """AP as it is and with each kind mended alone."""
    alone = judged.kind >= 0
    before = _ap(found.category, found.scores, judged.hit, alone, judged.counts, judged)
    gains, counts = {}, {}
    for position, kind in enumerate(KINDS):
        mine = judged.kind == position
        counts[kind] = int(judged.missed.sum() if kind == "miss" else mine.sum())
        mended = mine & (judged.heir >= 0)
        category = np.where(mended, np.append(objects.category, -1)[judged.heir], found.category)
        left = judged.counts - (judged.missed if kind == "miss" else 0)
        after = _ap(category, found.scores, judged.hit | mended, alone & ~mine, left, judged)
        gains[kind] = after - before
    return Errors(name, int(judged.counts.sum()), before, gains, counts)


def _ap(
    category: Ints, scores: Floats, hit: Bools, miss: Bools, objects: Ints, judged: _Judged
) -> float:
    """Mean AP over the categories that have objects; one without any left has none to find."""
    order = np.lexsort((-scores, category))
    order = order[(hit | miss)[order]]
    once = torch.ones(1, 1, dtype=torch.float64)
    values = []
    for k in np.flatnonzero(judged.counts):
        rows = order[category[order] == k]
        place = np.zeros(len(rows), np.int64)
        matches = Matches(
            scores[rows], place, hit[None, rows], miss[None, rows], objects[k : k + 1]
        )
        values.append(float(weighted_ap(matches, once).nan_to_num(0.0)))
    return float(np.mean(values)) if values else math.nan
