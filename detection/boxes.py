"""Boxes and the three contracts of the room: ``Detections``, ``Upscale`` and ``Detector``.

Coordinates are continuous: pixel ``i`` covers ``[i, i + 1)``, so enlarging a picture ``s`` times
maps ``x`` to ``s * x`` without any half-pixel term, and the way back is ``x / s``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Detections:
    """What a detector found in one picture, or what is true of it.

    ``boxes`` is ``(N, 4)`` float32 ``x1, y1, x2, y2`` in pixels of that picture, ``scores``
    ``(N,)`` float32 in [0, 1], ``labels`` ``(N,)`` int64 category ids of the data set (not
    positions in a list).
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        count = len(self.boxes)
        if self.boxes.shape != (count, 4):
            raise ValueError(f"boxes must be (N, 4) x1, y1, x2, y2, got {tuple(self.boxes.shape)}")
        for name, values in (("scores", self.scores), ("labels", self.labels)):
            if values.shape != (count,):
                raise ValueError(f"{name} must be ({count},) like boxes, got {tuple(values.shape)}")

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def empty(cls, device: torch.device | str = "cpu") -> Detections:
        """No detections."""
        return cls(
            torch.zeros((0, 4), device=device),
            torch.zeros(0, device=device),
            torch.zeros(0, dtype=torch.int64, device=device),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Detections]) -> Detections:
        """All detections of ``parts`` in their order."""
        if not parts:
            return cls.empty()
        return cls(
            torch.cat([part.boxes for part in parts]),
            torch.cat([part.scores for part in parts]),
            torch.cat([part.labels for part in parts]),
        )

    def select(self, index: Tensor) -> Detections:
        """The detections under a boolean mask ``(N,)`` or at int64 positions, in that order."""
        return Detections(self.boxes[index], self.scores[index], self.labels[index])

    def affine(self, scale: float, dx: float, dy: float) -> Detections:
        """Boxes scaled by ``scale``, then moved by ``(dx, dy)``; always float, never rounded."""
        shift = self.boxes.new_tensor([dx, dy, dx, dy])
        return Detections(self.boxes * scale + shift, self.scores, self.labels)

    def clip(self, width: float, height: float) -> Detections:
        """Boxes cut at the borders of a picture of ``width`` by ``height`` pixels."""
        return Detections(clip(self.boxes, width, height), self.scores, self.labels)

    def to(self, device: torch.device | str) -> Detections:
        """The same detections on another device."""
        return Detections(self.boxes.to(device), self.scores.to(device), self.labels.to(device))

    def sides(self) -> Tensor:
        """Size of each box as the side of the square of equal area, ``(N,)`` pixels."""
        return areas(self.boxes).sqrt()


Upscale = Callable[[Tensor], Tensor]
"""Enlarges equal windows: ``(B, 3, h, w) -> (B, 3, s * h, s * w)``; an arm of a study is one."""

Detector = Callable[[list[Tensor]], list[Detections]]
"""Finds objects: pictures ``(3, H, W)`` in [0, 1] to detections in pixels of the same pictures."""


def areas(boxes: Tensor) -> Tensor:
    """Area of ``(N, 4)`` corner boxes; a box turned inside out has none."""
    width, height = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).unbind(1)
    return width * height


def xywh_to_xyxy(boxes: Tensor) -> Tensor:
    """COCO's ``x, y, width, height`` to corners, ``(N, 4)``."""
    return torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)


def xyxy_to_xywh(boxes: Tensor) -> Tensor:
    """Corners to COCO's ``x, y, width, height``, ``(N, 4)``."""
    return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)


def clip(boxes: Tensor, width: float, height: float) -> Tensor:
    """Corner boxes ``(N, 4)`` cut at the borders of a picture of ``width`` by ``height`` pixels."""
    limit = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), limit)


def iou_matrix(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of ``(N, 4)`` with ``(M, 4)`` corner boxes, ``(N, M)``."""
    shared = _shared(first, second)
    union = areas(first)[:, None] + areas(second)[None, :] - shared
    return shared / union.clamp(min=torch.finfo(union.dtype).tiny)


def share_inside(boxes: Tensor, regions: Tensor) -> Tensor:
    """Share of the area of each of ``(N, 4)`` corner boxes in each of ``(M, 4)``, ``(N, M)``."""
    return _shared(boxes, regions) / areas(boxes).clamp(min=1e-9)[:, None]


def _shared(first: Tensor, second: Tensor) -> Tensor:
    """Area that ``(N, 4)`` and ``(M, 4)`` corner boxes share, ``(N, M)``."""
    low = torch.maximum(first[:, None, :2], second[None, :, :2])  # (N, M, 2)
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    return (high - low).clamp(min=0).prod(dim=2)
