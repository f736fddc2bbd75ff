"""Merging that keeps the best boxes as they are: non-maximum suppression, hard and soft.

Every function takes detections of one group, the best first, and returns those that remain.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torchvision

from detection.boxes import Detections
from detection.group import Floats, Group, Merge


def nms(found: Detections, how: Merge) -> Detections:
    """Of boxes that overlap more than the threshold only the first remains."""
    if how.overlap == "iou":
        # Ranks, not scores: equal scores would leave the order to the implementation.
        ranks = torch.arange(len(found), 0, -1, device=found.boxes.device, dtype=torch.float32)
        return found.select(torchvision.ops.nms(found.boxes, ranks, how.threshold))
    group = Group(found, how.overlap)
    alive = np.ones(len(found), dtype=bool)
    kept = []
    for index in range(len(found)):
        if alive[index]:
            kept.append(index)
            near, shared = group.touching(index)
            alive[near[shared > how.threshold]] = False
    return found.select(torch.tensor(kept, dtype=torch.int64, device=found.boxes.device))


def soft_nms_linear(found: Detections, how: Merge) -> Detections:
    """Boxes beyond the threshold lose score in proportion to the overlap (Bodla 2017, eq. 2)."""

    def decay(shared: Floats) -> Floats:
        return np.where(shared > how.threshold, 1 - shared, 1.0)

    return _soft(found, how, decay)


def soft_nms_gaussian(found: Detections, how: Merge) -> Detections:
    """All boxes that touch a better one lose score, smoothly (Bodla 2017, eq. 3)."""

    def decay(shared: Floats) -> Floats:
        return np.asarray(np.exp(-(shared**2) / how.sigma))

    return _soft(found, how, decay)


def _soft(found: Detections, how: Merge, decay: Callable[[Floats], Floats]) -> Detections:
    """Takes the best box left, lowers its neighbours, until none is above ``min_score``.

    Of equal scores the first in the given order is taken.
    """
    group = Group(found, how.overlap)
    left = group.scores.copy()
    kept: list[int] = []
    scores: list[float] = []
    while len(kept) < len(found) and left[best := int(left.argmax())] >= how.min_score:
        kept.append(best)
        scores.append(float(left[best]))
        near, shared = group.touching(best)
        left[near] *= decay(shared)
        left[best] = 0.0
    chosen = found.select(torch.tensor(kept, dtype=torch.int64, device=found.boxes.device))
    return Detections(chosen.boxes, chosen.scores.new_tensor(scores), chosen.labels)
