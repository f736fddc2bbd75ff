"""COCO evaluation in original pixels, with everything kept that the statistics need.

Lin et al. 2014, arXiv:1405.0312. ``evaluate`` matches and measures on arrays of its own;
``reference_metrics`` asks pycocotools, slowly, and is what the former is tested against. There,
``eval['precision']`` is read directly: ``summarize()`` of pycocotools gives -1 or raises when the
largest ``maxDets`` is not its third.

The annotated ``area`` (of the mask, where the set has masks) decides the size of an object, the box
that of a detection, as in COCO.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detection.boxes import Detections, xyxy_to_xywh
from detection.ignored import outside_regions
from detection.matching import (
    THRESHOLDS,
    Matches,
    Pairs,
    ignored_objects,
    match,
    overlapping_pairs,
    range_matches,
)
from detection.precision_recall import measure
from detection.sizes import AITOD_AREAS, BINS, COCO_AREAS, area_ranges, bin_name
from detection.tables import Table, detection_table, truth_table
from detection.truth import CocoSet, Objects, Picture, read_coco

__all__ = [
    "BINS",
    "MAX_DETECTIONS",
    "CocoSet",
    "Evaluation",
    "Matches",
    "Objects",
    "Picture",
    "bin_name",
    "check_categories",
    "evaluate",
    "read_coco",
    "reference_metrics",
    "truth_as_detections",
]

MAX_DETECTIONS = 500
"""Of one picture over all categories. COCO's 100 would cut crowded pictures: 300 objects found
perfectly then have an AP of 0.337."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics of one arm and the matches they come from."""

    metrics: dict[str, float]
    """AP, AP50, AP75, AR; AP and AR by COCO's and AI-TOD's sizes; one AP per bin. nan where the
    set has no objects."""
    images: tuple[int, ...]
    matches: dict[str, list[Matches]]
    """Area range ('all', 'small', ..., a bin's name) to the matches of every category."""
    objects: dict[str, int]
    """Objects that count per area range."""
    max_detections: int = MAX_DETECTIONS
    """The best so many of each image that were looked at."""


def evaluate(
    truth: CocoSet,
    detections: Mapping[int, Detections],
    *,
    bins: Sequence[tuple[float, float]] = BINS,
    max_detections: int = MAX_DETECTIONS,
    ignored: Mapping[int, Tensor] | None = None,
) -> Evaluation:
    """COCO metrics of detections in ORIGINAL pixels over every image of the set.

    Images without an entry count as images without detections. ``max_detections`` limits each image
    over all categories together (pycocotools limits each category of each image by itself, so that
    an arm with many categories in a picture would keep more).

    Args:
        truth: the set; its ``area`` decides the size of an object.
        detections: image id to detections in original pixels.
        bins: side ranges in pixels that get an AP of their own, ``AP_8_16`` and so on.
        max_detections: the best so many per image count.
        ignored: image id to regions ``(R, 4)`` in which nothing was annotated: detections that lie
            there by half or more are left out before the best are chosen.

    Raises:
        ValueError: detections of an image or a category that the set does not have, or a bin
            without extent.
    """
    check_categories(truth, detections)
    ranges = area_ranges(bins)
    objects = truth_table(truth)
    found = detection_table(truth, outside_regions(detections, ignored or {}), max_detections)
    pairs = overlapping_pairs(objects, found, float(THRESHOLDS[0]))
    shape = (len(truth.images), len(truth.categories))
    matches = {
        name: _matched(objects, found, pairs, limits, shape) for name, limits in ranges.items()
    }
    counts = {name: sum(int(m.objects.sum()) for m in rows) for name, rows in matches.items()}
    values = measure(matches, _metric_names(ranges), torch.ones(shape[0], 1, dtype=torch.float64))
    return Evaluation(
        metrics={name: float(value[0]) for name, value in values.items()},
        images=tuple(picture.id for picture in truth.images),
        matches=matches,
        objects=counts,
        max_detections=max_detections,
    )


def check_categories(truth: CocoSet, detections: Mapping[int, Detections]) -> None:
    """Refuse detections whose image or category ids the set does not know.

    A detector's list positions in place of ids give AP 0.0 without any error, so this fails loudly.
    """
    if strangers := sorted(detections.keys() - truth.objects.keys()):
        raise ValueError(f"detections of image id {strangers[0]}, which {truth.path} does not have")
    used = {label for found in detections.values() for label in torch.unique(found.labels).tolist()}
    if unknown := sorted(used - truth.categories.keys()):
        raise ValueError(
            f"detections carry the category ids {unknown}, {truth.path} has "
            f"{sorted(truth.categories)}; a detector must answer in the ids of the set, not in "
            f"positions of its own list"
        )


def truth_as_detections(truth: CocoSet) -> dict[int, Detections]:
    """A perfect detector's answer: its AP is 1.0 wherever the set has objects."""
    found = {}
    for image, objects in truth.objects.items():
        real = ~objects.crowds
        boxes, labels = objects.boxes[real], objects.labels[real]
        found[image] = Detections(boxes, boxes.new_ones(len(boxes)), labels)
    return found


def reference_metrics(
    truth: CocoSet,
    detections: Mapping[int, Detections],
    *,
    bins: Sequence[tuple[float, float]] = BINS,
    max_detections: int = MAX_DETECTIONS,
) -> dict[str, float]:
    """The metrics of ``evaluate`` as pycocotools finds them: the reference, many times slower."""
    ranges = area_ranges(bins)
    run = _run_pycocotools(truth, detections, ranges, max_detections)
    precision = run.eval["precision"][..., 0]  # (T, R, K, A), -1 for categories without objects
    recall = run.eval["recall"][..., 0]  # (T, K, A)
    metrics = {
        "AP": _mean(precision[..., 0]),
        "AP50": _mean(precision[0, ..., 0]),
        "AP75": _mean(precision[5, ..., 0]),
        "AR": _mean(recall[..., 0]),
    }
    for area, name in enumerate(ranges):
        metrics |= {f"AP_{name}": _mean(precision[..., area])}
        metrics |= {f"AR_{name}": _mean(recall[..., area])}
    return {name: metrics[name] for name in _metric_names(ranges)}


def _metric_names(ranges: Mapping[str, tuple[float, float]]) -> list[str]:
    named = [name for name in (COCO_AREAS | AITOD_AREAS) if name != "all"]
    sized = [f"AP_{name}" for name in ranges if name != "all"]
    return ["AP", "AP50", "AP75", "AR", *sized, *(f"AR_{name}" for name in named)]


def _matched(
    objects: Table,
    found: Table,
    pairs: Pairs,
    limits: tuple[float, float],
    shape: tuple[int, int],
) -> list[Matches]:
    ignored = ignored_objects(objects, limits)
    matched = match(objects, found, pairs, ignored=ignored, floors=THRESHOLDS)
    return range_matches(objects, found, matched, ignored=ignored, limits=limits, shape=shape)


def _run_pycocotools(
    truth: CocoSet,
    detections: Mapping[int, Detections],
    ranges: Mapping[str, tuple[float, float]],
    max_detections: int,
) -> Any:  # noqa: ANN401 (pycocotools publishes no types)
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        real, found = COCO(), COCO()
        frame = {
            "images": [{"id": picture.id} for picture in truth.images],
            "categories": [{"id": key, "name": name} for key, name in truth.categories.items()],
        }
        real.dataset = {**frame, "annotations": _truth_rows(truth)}
        # not loadRes: it raises IndexError when there is no detection at all
        found.dataset = {**frame, "annotations": _detection_rows(detections, max_detections)}
        real.createIndex()
        found.createIndex()
        run = COCOeval(real, found, "bbox")
        run.params.imgIds = [picture.id for picture in truth.images]
        run.params.catIds = list(truth.categories)
        run.params.maxDets = [max_detections]
        run.params.areaRng = [list(limits) for limits in ranges.values()]
        run.params.areaRngLbl = list(ranges)
        run.evaluate()
        run.accumulate()
    return run


def _truth_rows(truth: CocoSet) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for image, objects in truth.objects.items():
        columns = (
            xyxy_to_xywh(objects.boxes.double()),
            objects.labels,
            objects.areas,
            objects.crowds,
        )
        for box, label, area, crowd in zip(*(column.tolist() for column in columns), strict=True):
            # ids from 1: pycocotools takes a match with object 0 for no match
            rows.append(
                {"id": len(rows) + 1, "image_id": image, "category_id": label, "bbox": box}
                | {"area": area, "iscrowd": int(crowd)}
            )
    return rows


def _detection_rows(detections: Mapping[int, Detections], limit: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for image, found in detections.items():
        best = found.select(found.scores.argsort(descending=True, stable=True)[:limit]).to("cpu")
        columns = (xyxy_to_xywh(best.boxes.double()), best.scores, best.labels)
        for box, score, label in zip(*(column.tolist() for column in columns), strict=True):
            rows.append(
                {"id": len(rows) + 1, "image_id": image, "category_id": label, "bbox": box}
                | {"score": score, "area": box[2] * box[3], "iscrowd": 0}
            )
    return rows


def _mean(values: NDArray[np.float64]) -> float:
    present = values[values > -1]
    return float(present.mean()) if present.size else math.nan
