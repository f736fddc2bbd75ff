"""One list of detections per picture from its windows and from the picture as a whole."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchvision.ops import nms

from detection.boxes import Detections


def merge(
    windows: Detections,
    full: Detections | None = None,
    *,
    iou: float = 0.55,
    small_below: float = math.inf,
    large_above: float = 0.0,
    max_detections: int = 500,
) -> Detections:
    """Merge the detections of all windows of a picture with those of the whole picture.

    Enlarged windows see small objects well and cut large ones; the whole picture the other way
    round. So each source speaks for its sizes (between ``large_above`` and ``small_below`` both
    do), then non-maximum suppression removes, class by class, what was seen twice.

    Args:
        windows: detections inside windows, original pixels.
        full: detections in the whole picture, original pixels; None leaves them out.
        iou: boxes of one class that overlap more than this are one object.
        small_below: windows speak for boxes whose square root of area is below this, in pixels.
        large_above: the whole picture speaks for boxes above this, in pixels.
        max_detections: the best so many are kept over all classes together, so that an arm with
            more windows has no larger budget.

    Returns:
        Detections by falling score; ties by area, x, y, so the result does not depend on the order
        of windows.
    """
    if large_above > small_below:
        raise ValueError(
            f"sizes from {small_below} to {large_above} pixels would be left to nobody: "
            f"large_above must not exceed small_below"
        )
    kept = windows.select(windows.sides() < small_below)
    if full is not None:
        kept = Detections.concatenate([kept, full.select(full.sides() > large_above)])
    ordered = kept.select(_order(kept))
    return ordered.select(_suppress(ordered, iou)[:max_detections])


def _order(found: Detections) -> Tensor:
    """Positions by falling score, then area, x, y: sorted by the least important key first."""
    order = torch.arange(len(found), device=found.scores.device)
    for key in (found.boxes[:, 1], found.boxes[:, 0], found.sides(), -found.scores):
        order = order[torch.sort(key[order], stable=True).indices]
    return order


def _suppress(ordered: Detections, iou: float) -> Tensor:
    """Positions that survive class-wise suppression, in order.

    One class at a time: moving the classes apart by an offset, as ``batched_nms`` does for few
    boxes, costs float32 digits.
    """
    keep = torch.zeros(len(ordered), dtype=torch.bool, device=ordered.scores.device)
    for label in sorted(set(ordered.labels.tolist())):
        members = torch.nonzero(ordered.labels == label).squeeze(1)
        keep[members[nms(ordered.boxes[members], ordered.scores[members], iou)]] = True
    return torch.nonzero(keep).squeeze(1)
