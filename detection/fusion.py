"""Merging that makes new boxes out of those that saw one object.

Every function takes detections of one group, the best first, and returns one for each object.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from detection.boxes import Detections
from detection.group import TINY, Floats, Group, Merge, overlaps


def nmm(found: Detections, how: Merge) -> Detections:
    """The hull of each best box and the boxes that overlap IT more than the threshold.

    What overlaps only a grown hull is not absorbed, so a row of boxes does not run together. Boxes
    of less than ``min_share`` of the best score are absorbed but move no side.
    """
    group = Group(found, how.overlap)
    alive = np.ones(len(found), dtype=bool)
    kept: list[int] = []
    hulls: list[Floats] = []
    for index in range(len(found)):
        if not alive[index]:
            continue
        near, shared = group.touching(index)
        members = near[(shared > how.threshold) & alive[near]]
        alive[members] = alive[index] = False
        heard = members[group.scores[members] >= how.min_share * group.scores[index]]
        kept.append(index)
        hulls.append(_hull(group.boxes[[index, *heard]]))
    return _replace(found, kept, np.reshape(hulls, (-1, 4)), group.scores[kept])


def wbf(found: Detections, how: Merge) -> Detections:
    """The mean of the boxes of each object, weighted by score; the score is their mean.

    A box joins the fused box it overlaps most, if more than the threshold, else starts another one.
    """
    boxes: Floats = found.boxes.double().cpu().numpy()
    scores: Floats = found.scores.double().cpu().numpy()
    clusters = _Clusters.empty(len(found))
    for index, (box, score) in enumerate(zip(boxes, scores, strict=True)):
        shared = overlaps(box, clusters.fused[:, : clusters.count], how.overlap)
        best = int(shared.argmax()) if len(shared) else -1
        if best < 0 or shared[best] <= how.threshold:
            best = clusters.start(index)
        clusters.add(best, box, score)
    return clusters.result(found, how.views)


@dataclass(slots=True)
class _Clusters:
    """Fused boxes that grow in number and move as boxes join; columns beyond ``count`` are free."""

    fused: Floats
    total: Floats
    """Sum of scores of each."""
    size: Floats
    """Number of boxes of each."""
    first: list[int]
    """Position of the best box of each."""

    @classmethod
    def empty(cls, room: int) -> _Clusters:
        return cls(np.zeros((4, room)), np.zeros(room), np.zeros(room), [])

    @property
    def count(self) -> int:
        return len(self.first)

    def start(self, index: int) -> int:
        self.first.append(index)
        return self.count - 1

    def add(self, row: int, box: Floats, score: float) -> None:
        # A score of nothing still places a box that is alone.
        weight = max(score, TINY)
        self.total[row] += weight
        self.size[row] += 1
        self.fused[:, row] += (box - self.fused[:, row]) * (weight / self.total[row])

    def result(self, found: Detections, views: int) -> Detections:
        count, size = self.count, self.size[: self.count]
        scores = self.total[:count] / size.clip(1) * size.clip(max=views) / views
        return _replace(found, self.first, self.fused[:, :count].T, scores)


def _hull(boxes: Floats) -> Floats:
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])


def _replace(found: Detections, kept: list[int], boxes: Floats, scores: Floats) -> Detections:
    """The detections at some positions with other boxes and scores."""
    chosen = found.select(torch.tensor(kept, dtype=torch.int64, device=found.boxes.device))
    placed, valued = torch.from_numpy(boxes), torch.from_numpy(scores)
    return Detections(placed.to(chosen.boxes), valued.to(chosen.scores), chosen.labels)
