"""How boxes are merged: the settings, and what two boxes share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from detection.boxes import Detections

Kind = Literal["nms", "soft_nms_linear", "soft_nms_gaussian", "nmm", "wbf"]
Overlap = Literal["iou", "ios"]
Floats = NDArray[np.float64]
Positions = NDArray[np.int64]
TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, slots=True)
class Merge:
    """How what was seen twice becomes one.

    Attributes:
        kind: "nms" keeps the best box of each object; "soft_nms_linear" and "soft_nms_gaussian"
            lower the scores of the others instead (Bodla et al. 2017); "nmm" takes the hull of them
            all (greedy non-maximum merging, Akyon et al. 2022); "wbf" their mean, weighted by score
            (weighted boxes fusion, Solovyev et al. 2021).
        threshold: boxes that overlap MORE than this are one object, in [0, 1]. Gaussian soft-NMS
            has none.
        overlap: "iou" intersection over union; "ios" over the smaller box, which joins the parts of
            a cut object, and swallows a small one in front of a large one of its class.
        classes: "aware" merges inside each class; "agnostic" across them, and the best box names
            the class.
        sigma: of Gaussian soft-NMS: scores are multiplied by ``exp(-overlap ** 2 / sigma)``.
        min_score: soft-NMS drops what falls below.
        min_share: nmm absorbs boxes whose score is below this share of the best one's without
            growing for them. 0 is the published rule, whose boxes grow with every weak neighbour.
        views: how often wbf expects an object to be seen: scores of those seen less often are
            lowered in proportion (section 3 of the paper, its number of models). 1 expects nothing.

    Raises:
        ValueError: a setting out of its range.
    """

    kind: Kind = "nms"
    threshold: float = 0.55
    overlap: Overlap = "iou"
    classes: Literal["aware", "agnostic"] = "aware"
    sigma: float = 0.5
    min_score: float = 0.001
    min_share: float = 0.5
    views: int = 1

    def __post_init__(self) -> None:
        for name in ("threshold", "min_share"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {value}")
        if self.sigma <= 0 or self.min_score <= 0 or self.views < 1:
            raise ValueError(
                f"sigma and min_score must be above 0 and views at least 1, got "
                f"{self.sigma}, {self.min_score} and {self.views}"
            )


class Group:
    """Boxes among which merging happens, the best first, and what touches what.

    Boxes are also kept by their left side, so that one box is compared with those near it only:
    memory grows with the number of boxes, not with its square.
    """

    def __init__(self, found: Detections, overlap: Overlap) -> None:
        self.boxes: Floats = found.boxes.double().cpu().numpy()
        self.scores: Floats = found.scores.double().cpu().numpy()
        self._overlap: Overlap = overlap
        self._by_left: Positions = np.argsort(self.boxes[:, 0], kind="stable")
        self._sides = np.ascontiguousarray(self.boxes[self._by_left].T)  # (4, N)
        lefts = self._sides[0]
        widest = float((self._sides[2] - lefts).max(initial=0.0))
        self._first = np.searchsorted(lefts, self.boxes[:, 0] - widest, side="left")
        self._last = np.searchsorted(lefts, self.boxes[:, 2], side="left")

    def touching(self, index: int) -> tuple[Positions, Floats]:
        """Positions of the boxes that share area with one box, itself among them, and how much."""
        near = slice(self._first[index], self._last[index])
        shared = overlaps(self.boxes[index], self._sides[:, near], self._overlap)
        hit = shared.nonzero()[0]
        return self._by_left[near][hit], shared[hit]


def overlaps(box: Floats, others: Floats, overlap: Overlap) -> Floats:
    """What one box ``(4,)`` shares with each of ``(4, N)``, in [0, 1]."""
    x1, y1, x2, y2 = box
    left, top, right, bottom = others
    width = np.maximum(np.minimum(right, x2) - np.maximum(left, x1), 0.0)
    height = np.maximum(np.minimum(bottom, y2) - np.maximum(top, y1), 0.0)
    shared = width * height
    own, theirs = (x2 - x1) * (y2 - y1), (right - left) * (bottom - top)
    whole = own + theirs - shared if overlap == "iou" else np.minimum(own, theirs)
    return np.asarray(shared / np.maximum(whole, TINY))
