"""COCO evaluation in original pixels, through pycocotools.

Lin et al. 2014, arXiv:1405.0312. ``eval['precision']`` is read directly: ``summarize()`` of
pycocotools gives -1 or raises when the largest ``maxDets`` is not its third. The matches are kept,
so that ``gain.py`` can resample images without matching again.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.boxes import Detections, xyxy_to_xywh
from detection.truth import CocoSet, Objects, Picture, read_coco

__all__ = [
    "BINS",
    "CocoSet",
    "Evaluation",
    "Matches",
    "Objects",
    "Picture",
    "bin_name",
    "check_categories",
    "evaluate",
    "read_coco",
    "truth_as_detections",
]

BINS: tuple[tuple[float, float], ...] = (
    (0, 8), (8, 16), (16, 24), (24, 32), (32, 48), (48, 96), (96, math.inf)
)  # fmt: skip
"""Square root of area in pixels, from, up to but without: the points of the gain-by-size curve."""

COCO_AREAS: dict[str, tuple[float, float]] = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}


@dataclass(frozen=True, slots=True)
class Matches:
    """All detections of one category matched within one area range, by falling score.

    ``scores`` ``(D,)``; ``image`` ``(D,)`` position of its image; ``hit`` ``(T, D)`` true
    positives and ``miss`` ``(T, D)`` false positives at each IoU threshold (ignored detections are
    neither); ``objects`` ``(I,)`` objects of each image that count.
    """

    scores: NDArray[np.float64]
    image: NDArray[np.int64]
    hit: NDArray[np.bool_]
    miss: NDArray[np.bool_]
    objects: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics of one arm and the matches they come from."""

    metrics: dict[str, float]
    """AP, AP50, AP75, AP_small, AP_medium, AP_large, AR, one AP per bin; nan without objects."""
    images: tuple[int, ...]
    matches: dict[str, list[Matches]]
    """Area range ('all', 'small', ..., a bin's name) to the matches of every category."""
    objects: dict[str, int]
    """Objects that count per area range."""


def bin_name(low: float, high: float) -> str:
    """Name of a size bin in metrics: ``8_16``, ``96_inf``."""
    return f"{low:g}_{high:g}"


def evaluate(
    truth: CocoSet,
    detections: Mapping[int, Detections],
    *,
    bins: Sequence[tuple[float, float]] = BINS,
    max_detections: int = 500,
) -> Evaluation:
    """COCO metrics of detections in ORIGINAL pixels over every image of the set.

    Images without an entry count as images without detections. ``max_detections`` limits each image
    over all categories together (pycocotools limits each category of each image by itself).

    Args:
        truth: the set; its ``area`` decides the size of an object.
        detections: image id to detections in original pixels.
        bins: side ranges in pixels that get an AP of their own, ``AP_8_16`` and so on.
        max_detections: the best so many per image count.

    Raises:
        ValueError: detections of an image or a category that the set does not have.
    """
    check_categories(truth, detections)
    ranges = dict(COCO_AREAS)
    for low, high in bins:
        # pycocotools includes both ends; a bin leaves its upper end to the next one
        ranges[bin_name(low, high)] = (low**2, min(math.nextafter(high**2, 0), 1e10))
    images = [picture.id for picture in truth.images]
    run = _run_pycocotools(truth, detections, ranges, max_detections)
    matches = {
        name: [
            _matches(run, category, area, len(images)) for category in range(len(truth.categories))
        ]
        for area, name in enumerate(ranges)
    }
    counts = {name: sum(int(m.objects.sum()) for m in rows) for name, rows in matches.items()}
    return Evaluation(_metrics(run, list(ranges)), tuple(images), matches, counts)


def check_categories(truth: CocoSet, detections: Mapping[int, Detections]) -> None:
    """Refuse detections whose image or category ids the set does not know.

    A detector's list positions in place of ids give AP 0.0 without any error, so this fails loudly.
    """
    if strangers := sorted(detections.keys() - truth.objects.keys()):
        raise ValueError(f"detections of image id {strangers[0]}, which {truth.path} does not have")
    used = {label for found in detections.values() for label in found.labels.tolist()}
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


def _matches(run: Any, category: int, area: int, images: int) -> Matches:  # noqa: ANN401
    """Gather what pycocotools matched image by image, in the order it accumulates."""
    start = (category * len(run.params.areaRng) + area) * images
    entries = [(i, e) for i, e in enumerate(run.evalImgs[start : start + images]) if e is not None]
    objects = np.zeros(images, dtype=np.int64)
    for i, entry in entries:
        objects[i] = np.count_nonzero(np.asarray(entry["gtIgnore"]) == 0)
    thresholds = len(run.params.iouThrs)
    scores = np.concatenate([np.zeros(0), *(np.asarray(e["dtScores"], float) for _, e in entries)])
    image = np.concatenate(
        [np.zeros(0, np.int64), *(np.full(len(e["dtScores"]), i, np.int64) for i, e in entries)]
    )
    blank = np.zeros((thresholds, 0), dtype=bool)
    matched = np.concatenate([blank, *(e["dtMatches"] > 0 for _, e in entries)], axis=1)
    ignored = np.concatenate([blank, *(e["dtIgnore"].astype(bool) for _, e in entries)], axis=1)
    order = np.argsort(-scores, kind="stable")
    hit, miss = (matched & ~ignored)[:, order], (~matched & ~ignored)[:, order]
    return Matches(scores[order], image[order], hit, miss, objects)


def _metrics(run: Any, names: list[str]) -> dict[str, float]:  # noqa: ANN401
    precision = run.eval["precision"][..., 0]  # (T, R, K, A), -1 for categories without objects
    thresholds = [round(float(value), 2) for value in run.params.iouThrs]
    metrics = {
        "AP": _mean(precision[..., 0]),
        "AP50": _mean(precision[thresholds.index(0.5), ..., 0]),
        "AP75": _mean(precision[thresholds.index(0.75), ..., 0]),
        "AR": _mean(run.eval["recall"][..., 0, 0]),
    }
    return metrics | {
        f"AP_{name}": _mean(precision[..., area])
        for area, name in enumerate(names)
        if name != "all"
    }


def _mean(values: NDArray[np.float64]) -> float:
    present = values[values > -1]
    return float(present.mean()) if present.size else math.nan
