"""Regions of a picture in which nothing was annotated, so that no detection there can be judged.

COCO's crowd regions speak for one category only, and a detection in one still uses up the picture's
budget of detections. A region of the VisDrone kind (Zhu et al. 2021, arXiv:2001.06303) means every
category: its detections leave before the budget is counted, in every arm alike.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from detection.boxes import Detections, areas
from detection.truth import CocoSet, Objects


def split_ignored(truth: CocoSet, names: Collection[str]) -> tuple[CocoSet, dict[int, Tensor]]:
    """The set without some categories, and the boxes of these as ignored regions of each image.

    Args:
        truth: a set in which ignored regions are annotated like objects.
        names: categories that mean such regions, without regard to case: ``["ignored regions"]``.

    Raises:
        ValueError: the set has none of these categories, or no other ones.
    """
    wanted = {name.casefold() for name in names}
    ignored = {key for key, name in truth.categories.items() if name.casefold() in wanted}
    known = ", ".join(truth.categories.values())
    if not ignored:
        raise ValueError(f"{truth.path} has no category {sorted(names)}; it has {known}")
    kept = {key: name for key, name in truth.categories.items() if key not in ignored}
    if not kept:
        raise ValueError(f"all categories of {truth.path} ({known}) are ignored; keep at least one")
    chosen = torch.tensor(sorted(ignored))
    objects, regions = {}, {}
    for image, all_objects in truth.objects.items():
        region = torch.isin(all_objects.labels, chosen)
        regions[image] = all_objects.boxes[region]
        objects[image] = _select(all_objects, ~region)
    return CocoSet(truth.path, truth.images, kept, objects, truth.skipped), regions


def outside_regions(
    detections: Mapping[int, Detections], regions: Mapping[int, Tensor], *, share: float = 0.5
) -> dict[int, Detections]:
    """Detections of which less than ``share`` of the area lies in ignored regions of their image.

    Args:
        detections: image id to detections in original pixels.
        regions: image id to boxes ``(R, 4)`` x1, y1, x2, y2; overlapping ones count once.
        share: of a detection's area; VisDrone takes one half.
    """
    kept = {}
    for image, found in detections.items():
        boxes = regions.get(image)
        if boxes is None or not len(boxes):
            kept[image] = found
            continue
        covered = covered_share(found.boxes, boxes.to(found.boxes.device))
        kept[image] = found.select(covered < share)
    return kept


def covered_share(boxes: Tensor, regions: Tensor) -> Tensor:
    """Share of each box ``(N, 4)`` that the union of regions ``(R, 4)`` covers, ``(N,)``."""
    low, high = regions[:, None, :2].double(), regions[:, None, 2:].double()
    columns, rows = (torch.unique(torch.cat([low[:, 0, i], high[:, 0, i]])) for i in (0, 1))
    # The regions' edges cut the picture into cells that are wholly inside or outside the union.
    inside = (
        ((low[..., :1] <= columns[:-1]) & (columns[1:] <= high[..., :1])).movedim(1, 2)
        & ((low[..., 1:] <= rows[:-1]) & (rows[1:] <= high[..., 1:]))
    ).any(dim=0)  # (columns - 1, rows - 1)
    wide = _shared_length(boxes[:, 0].double(), boxes[:, 2].double(), columns)
    tall = _shared_length(boxes[:, 1].double(), boxes[:, 3].double(), rows)
    shared = torch.einsum("nc,cr,nr->n", wide, inside.double(), tall)
    return shared / areas(boxes.double()).clamp(min=1e-9)


def _shared_length(start: Tensor, end: Tensor, edges: Tensor) -> Tensor:
    """Length that intervals ``(N,)`` share with each stretch between ``edges``, ``(N, E)``."""
    low = torch.maximum(start[:, None], edges[None, :-1])
    return (torch.minimum(end[:, None], edges[None, 1:]) - low).clamp(min=0)


def _select(objects: Objects, mask: Tensor) -> Objects:
    return Objects(
        objects.boxes[mask], objects.labels[mask], objects.areas[mask], objects.crowds[mask]
    )
