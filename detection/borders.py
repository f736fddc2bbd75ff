"""Objects cut by a window's side: a part of a car is not a car."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from detection.boxes import Detections
from detection.windows import Window


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen in the windows of one picture, in original pixels, not merged.

    Attributes:
        found: detections, those of one window after those of the other.
        window: ``(N,)`` int64, which of ``windows`` each was found in.
        windows: of the picture.
        width: of the picture, original pixels.
        height: of the picture, original pixels.
    """

    found: Detections
    window: Tensor
    windows: tuple[Window, ...]
    width: int
    height: int

    def gaps(self) -> Tensor:
        """``(N, M, 4)``: from the left, top, right and bottom of box N to those sides of window M.

        Negative where the box leaves the window, infinite at the picture's own border, which cuts
        nothing that anybody could see.
        """
        low = torch.tensor([[w.x, w.y] for w in self.windows]).reshape(-1, 2)
        high = low + torch.tensor([[w.width, w.height] for w in self.windows]).reshape(-1, 2)
        boxes = self.found.boxes
        gaps = torch.cat([boxes[:, None, :2] - low, high - boxes[:, None, 2:]], dim=2)
        outer = torch.cat([low <= 0, high >= torch.tensor([self.width, self.height])], dim=1)
        return gaps.masked_fill(outer, torch.inf)


@dataclass(frozen=True, slots=True)
class Border:
    """What becomes of boxes that an inner side of their window may have cut.

    Attributes:
        width: boxes within so many ORIGINAL pixels of an inner side count as cut.
        weight: their scores are multiplied by it; 0 drops them.
        cut: "every" treats all of them so; "seen_whole" only those whose place another window holds
            clear of its own border, so that an object larger than the overlap of windows is not
            lost, but stays in parts (which ``Merge("nmm", overlap="ios")`` can join).
    """

    width: float = 2.0
    weight: float = 0.0
    cut: Literal["every", "seen_whole"] = "every"

    def __post_init__(self) -> None:
        if self.width < 0 or not 0 <= self.weight < 1:
            raise ValueError(
                f"a border's width must not be negative and its weight lie in [0, 1), got "
                f"{self.width} and {self.weight}"
            )

    def apply(self, seen: Seen) -> Detections:
        """The detections, those that count as cut dropped or with a lower score."""
        clear = (seen.gaps() >= self.width).all(dim=2)  # (N, M): window M holds box N whole
        cut = ~clear.gather(1, seen.window[:, None]).squeeze(1)
        if self.cut == "seen_whole":
            cut = cut & clear.any(dim=1)
        if self.weight == 0:
            return seen.found.select(~cut)
        scores = torch.where(cut, seen.found.scores * self.weight, seen.found.scores)
        return Detections(seen.found.boxes, scores, seen.found.labels)
