"""Ultralytics' detectors, where their package is installed; an adapter and nothing else.

The package is AGPL-3.0 and its weight files are pickles, which run code when they are opened: both
are the user's decision, so it is no dependency, and a file is opened by it only where it is asked
for by name, ``ultralytics:FILE``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from detection.boxes import Detections, Detector
from detection.categories import match_categories

PREFIX = "ultralytics:"
STRIDE = 32
GREY = 114 / 255
"""Of the padding, as in training."""


def load_ultralytics(
    file: Path,
    *,
    categories: Mapping[int, str],
    score_threshold: float = 0.01,
    max_detections: int = 500,
    device: torch.device | str = "cpu",
    iou: float = 0.65,
) -> Detector:
    """A file that ``ultralytics.YOLO`` opens as a ``Detector``.

    Args:
        file: weights (.pt) or the plan of an untrained model (.yaml).
        categories: id to name, of the data set; the model's names meet them.
        score_threshold: boxes below are not returned.
        max_detections: boxes per picture over all classes.
        device: where the model runs.
        iou: overlap from which its own suppression removes a box of the same class.

    Raises:
        ValueError: the package or the file is missing, or no category is in common.
    """
    try:
        from ultralytics import YOLO
    except ImportError as error:
        raise ValueError(
            "ultralytics is not installed (AGPL-3.0, so it does not come with this package); "
            "install it with: pip install ultralytics"
        ) from error
    if not file.is_file() and file.suffix != ".yaml":
        raise FileNotFoundError(f"no file {file}; give weights that are on this disk")
    model = YOLO(str(file), task="detect")
    names = [model.names[number] for number in range(len(model.names))]
    ids = [-1 if each is None else each for each in match_categories(names, categories)]
    limits = {"conf": score_threshold, "max_det": max_detections, "iou": iou}
    settings = {**limits, "device": str(device), "verbose": False, "save": False}
    return _Ultralytics(model, torch.tensor(ids), settings)


@dataclass(frozen=True, slots=True)
class _Ultralytics:
    model: Any
    ids: Tensor
    settings: Mapping[str, Any]

    def __call__(self, pictures: list[Tensor]) -> list[Detections]:
        return [self._detect(picture) for picture in pictures]

    def _detect(self, picture: Tensor) -> Detections:
        """Of a tensor their package resizes nothing, if its sides are whole strides."""
        height, width = picture.shape[-2:]
        sides = (0, -width % STRIDE, 0, -height % STRIDE)
        padded = F.pad(picture.float(), sides, value=GREY)[None]
        (result,) = self.model.predict(padded, **self.settings)
        boxes = result.boxes
        labels = self.ids.to(boxes.cls.device)[boxes.cls.long()]
        found = Detections(boxes.xyxy.float(), boxes.conf.float(), labels)
        return found.select(labels >= 0).clip(width, height)
