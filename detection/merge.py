"""One list of detections per picture from its windows and from the picture as a whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from detection.boxes import Detections
from detection.fusion import nmm, wbf
from detection.group import Kind, Merge
from detection.suppression import nms, soft_nms_gaussian, soft_nms_linear

MERGES: dict[Kind, Callable[[Detections, Merge], Detections]] = {
    "nms": nms,
    "soft_nms_linear": soft_nms_linear,
    "soft_nms_gaussian": soft_nms_gaussian,
    "nmm": nmm,
    "wbf": wbf,
}
"""What merges one group of detections, given the best first."""


@dataclass(frozen=True, slots=True)
class SizeGate:
    """Who speaks for which size; between the two limits both do.

    Enlarged windows see small objects well and cut large ones; the whole picture the other way
    round (Hardy et al. 2022: super-resolution helps below a size and harms above it).

    Attributes:
        small_below: windows speak for boxes whose square root of area is below this, in original
            pixels.
        large_above: the whole picture speaks for boxes above this, in original pixels.
    """

    small_below: float = math.inf
    large_above: float = 0.0

    def __post_init__(self) -> None:
        if self.large_above > self.small_below:
            raise ValueError(
                f"sizes from {self.small_below} to {self.large_above} pixels would be left to "
                f"nobody: large_above must not exceed small_below"
            )

    def join(self, windows: Detections, full: Detections | None) -> Detections:
        """What each source may say, one after the other; without ``full`` the windows alone."""
        kept = windows.select(windows.sides() < self.small_below)
        if full is None:
            return kept
        return Detections.concatenate([kept, full.select(full.sides() > self.large_above)])


def fuse(found: Detections, how: Merge, *, max_detections: int | None = 500) -> Detections:
    """Make one detection of those that saw one object.

    Args:
        found: detections of one picture in original pixels, in any order.
        how: the merge and its settings.
        max_detections: the best so many are kept over all classes together, so that an arm with
            more windows has no larger budget; None keeps all.

    Returns:
        Detections by falling score. The result depends neither on the order of ``found`` nor on the
        batches it came in: equal scores are ordered by area (the smaller first), then left, top,
        right, bottom and class, which leaves only exact copies alike.
    """
    if not len(found):
        return found
    ordered = found.select(best_first(found))
    labels = sorted(set(ordered.labels.tolist())) if how.classes == "aware" else []
    # One class at a time: moving the classes apart by an offset costs float32 digits.
    groups = [ordered.select(ordered.labels == label) for label in labels] or [ordered]
    merged = Detections.concatenate([MERGES[how.kind](group, how) for group in groups])
    return merged.select(best_first(merged)[:max_detections])


def merge(
    windows: Detections,
    full: Detections | None = None,
    *,
    iou: float = 0.55,
    small_below: float = math.inf,
    large_above: float = 0.0,
    max_detections: int = 500,
) -> Detections:
    """Size gate and non-maximum suppression by class: ``SizeGate.join``, then ``fuse``.

    Args:
        windows: detections inside windows, original pixels.
        full: detections in the whole picture, original pixels; None leaves them out.
        iou: boxes of one class that overlap more than this are one object.
        small_below: windows speak for boxes whose square root of area is below this, in pixels.
        large_above: the whole picture speaks for boxes above this, in pixels.
        max_detections: the best so many are kept over all classes together.
    """
    joined = SizeGate(small_below, large_above).join(windows, full)
    return fuse(joined, Merge("nms", iou), max_detections=max_detections)


def best_first(found: Detections) -> Tensor:
    """Positions by falling score, then by area, sides and class: a total order.

    Sorted by the least important key first.
    """
    order = torch.arange(len(found), device=found.scores.device)
    left, top, right, bottom = found.boxes.unbind(1)
    for key in (found.labels, bottom, right, top, left, found.sides(), -found.scores):
        order = order[torch.sort(key[order], stable=True).indices]
    return order
