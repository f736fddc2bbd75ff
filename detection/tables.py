"""A whole set in flat arrays: the objects of all images in one table, the detections in another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.boxes import Detections, xyxy_to_xywh
from detection.truth import CocoSet

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Table:
    """Boxes of all images in one row each, by image and category; detections by falling score too.

    ``image`` and ``category`` are positions, not ids; ``boxes`` ``(N, 4)`` x, y, width, height;
    ``scores`` are 0 and ``crowds`` False where they have no meaning.
    """

    image: Ints
    category: Ints
    boxes: Floats
    areas: Floats
    scores: Floats
    crowds: Bools

    def __len__(self) -> int:
        return len(self.image)


def truth_table(truth: CocoSet) -> Table:
    """The objects of a set, crowd regions included."""
    places = {picture.id: i for i, picture in enumerate(truth.images)}
    parts = [(places[image], objects) for image, objects in truth.objects.items()]
    boxes = [xyxy_to_xywh(objects.boxes.double()).numpy() for _, objects in parts]
    labels = [objects.labels.numpy() for _, objects in parts]
    image = [np.full(len(objects), place, np.int64) for place, objects in parts]
    areas = [objects.areas.double().numpy() for _, objects in parts]
    crowds = [objects.crowds.numpy() for _, objects in parts]
    category = _positions(joined(labels, np.int64), list(truth.categories))
    table = Table(
        image=joined(image, np.int64),
        category=category,
        boxes=np.concatenate([np.zeros((0, 4)), *boxes]),
        areas=joined(areas, np.float64),
        scores=np.zeros(len(category)),
        crowds=joined(crowds, np.bool_),
    )
    return _rows(table, np.lexsort((table.category, table.image)))


def detection_table(truth: CocoSet, detections: Mapping[int, Detections], limit: int) -> Table:
    """The best ``limit`` detections of each image over all categories; equal scores keep order."""
    places = {picture.id: i for i, picture in enumerate(truth.images)}
    best = [
        (
            places[image],
            found.select(found.scores.argsort(descending=True, stable=True)[:limit]).to("cpu"),
        )
        for image, found in detections.items()
    ]
    corners = [xyxy_to_xywh(d.boxes.double()).numpy() for _, d in best]
    boxes = np.concatenate([np.zeros((0, 4)), *corners])
    labels = joined([d.labels.numpy() for _, d in best], np.int64)
    scores = joined([d.scores.double().numpy() for _, d in best], np.float64)
    image = joined([np.full(len(d), place, np.int64) for place, d in best], np.int64)
    table = Table(
        image=image,
        category=_positions(labels, list(truth.categories)),
        boxes=boxes,
        areas=boxes[:, 2] * boxes[:, 3],
        scores=scores,
        crowds=np.zeros(len(scores), np.bool_),
    )
    return _rows(table, np.lexsort((-table.scores, table.category, table.image)))


def _positions(labels: Ints, categories: list[int]) -> Ints:
    order = np.argsort(categories)
    found = np.searchsorted(np.asarray(categories)[order], labels)
    return order[found].astype(np.int64)


def joined(parts: Sequence[NDArray[Any]], kind: type[np.generic]) -> NDArray[Any]:
    """One-dimensional arrays end to end; of ``kind`` where there are none."""
    return np.concatenate([np.zeros(0, kind), *parts])


def _rows(table: Table, order: Ints) -> Table:
    return Table(
        table.image[order],
        table.category[order],
        table.boxes[order],
        table.areas[order],
        table.scores[order],
        table.crowds[order],
    )
