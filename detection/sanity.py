"""Is the measuring itself sound? A perfect detector must be perfect before any other is judged.

COCO's 80 classes have ids up to 90; one position off, and every AP is 0 without any error.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from detection.boxes import Detections
from detection.coco import MAX_DETECTIONS, evaluate, truth_as_detections
from detection.precision_recall import measure
from detection.truth import CocoSet


def check_perfect(
    truth: CocoSet,
    detections: Mapping[int, Detections] | None = None,
    *,
    max_detections: int = MAX_DETECTIONS,
) -> None:
    """Refuse a set or a mapping of categories in which even a perfect detector is not perfect.

    Args:
        truth: the set.
        detections: ``truth_as_detections(truth)`` after the same mapping of labels and boxes that a
            detector's answer goes through; None for the set by itself.
        max_detections: as the study will use.

    Raises:
        ValueError: an AP below 1; the message names the pictures that are cut, or the categories.
    """
    crowded = {i: int((~o.crowds).sum()) for i, o in truth.objects.items()}
    fullest = max(crowded, key=crowded.__getitem__)
    if crowded[fullest] > max_detections:
        raise ValueError(
            f"image id {fullest} of {truth.path} has {crowded[fullest]} objects, and only "
            f"{max_detections} detections of an image count; raise max_detections"
        )
    perfect = truth_as_detections(truth) if detections is None else detections
    evaluation = evaluate(truth, perfect, bins=(), max_detections=max_detections)
    once = torch.ones(len(truth.images), 1, dtype=torch.float64)
    each = {
        name: float(measure({"all": [rows]}, ["AP"], once)["AP"][0])
        for name, rows in zip(truth.categories.values(), evaluation.matches["all"], strict=True)
    }
    if wrong := {name: ap for name, ap in each.items() if ap < 1 - 1e-9}:
        shown = ", ".join(f"{name} {ap:.4f}" for name, ap in list(wrong.items())[:12])
        raise ValueError(
            f"the objects of {truth.path} given back as detections should have an AP of 1 in every "
            f"category, they have: {shown}; the category ids or the boxes are mapped wrongly on "
            f"the way from the detector to the set"
        )
