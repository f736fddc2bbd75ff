"""Exported YOLOX detectors through onnxruntime.

Ge et al. 2021, arXiv:2107.08430. The export ends at the raw head: each row is an offset in its
grid cell, log width and height in strides, objectness, and class scores. Its input is BGR in
0..255, fitted into a fixed canvas from the top left, grey 114 around it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from detection.boxes import Detections, Detector
from detection.categories import match_categories
from detection.families import coco_names
from detection.merge import merge

STRIDES = (8, 16, 32)
PADDING = 114.0


def load_yolox(
    path: Path,
    *,
    categories: Mapping[int, str],
    score_threshold: float = 0.01,
    max_detections: int = 500,
    iou: float = 0.65,
) -> Detector:
    """A YOLOX export as a ``Detector``.

    A picture of exactly the canvas' size goes in as it is; any other is resized into it, so windows
    should be chosen such that the enlarged window has that size.

    Args:
        path: the ONNX file, one input ``(B, 3, H, W)``, one output ``(B, cells, 5 + classes)``.
        categories: id to name, of the data set. 80 classes are COCO's, matched by name; any other
            number must equal the set's and stands in the order of its ids, as YOLOX trains.
        score_threshold: objectness times class score below this is not returned.
        max_detections: boxes per picture over all classes.
        iou: overlap from which non-maximum suppression removes a box of the same class.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no YOLOX export, or its classes do not fit the set.
    """
    session = _open(path)
    height, width = session.get_inputs()[0].shape[2:]
    grid = _grid(height, width)
    classes = _classes(path, session.get_outputs()[0].shape, len(grid))
    return _Yolox(
        session=session,
        canvas=(height, width),
        grid=grid,
        label_ids=_label_ids(path, classes, categories),
        score_threshold=score_threshold,
        max_detections=max_detections,
        iou=iou,
    )


@dataclass(frozen=True, slots=True)
class _Yolox:
    session: Any
    canvas: tuple[int, int]
    grid: Tensor
    """``(cells, 3)``: column, row and stride of every output row."""
    label_ids: Sequence[int | None]
    score_threshold: float
    max_detections: int
    iou: float

    def __call__(self, pictures: list[Tensor]) -> list[Detections]:
        fitted = [_letterbox(picture, self.canvas) for picture in pictures]
        rows = self._run(np.stack([canvas for canvas, _ in fitted])) if fitted else []
        return [
            self._detections(row, ratio, picture)
            for row, (_, ratio), picture in zip(rows, fitted, pictures, strict=True)
        ]

    def _run(self, batch: NDArray[np.float32]) -> list[Tensor]:
        entry = self.session.get_inputs()[0]
        size = entry.shape[0] if isinstance(entry.shape[0], int) else len(batch)
        out: list[Tensor] = []
        for start in range(0, len(batch), size):
            part = batch[start : start + size]
            missing = size - len(part)  # an export of fixed batch size wants it full
            full = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)])
            (result,) = self.session.run(None, {entry.name: full})
            out.extend(torch.from_numpy(result[: len(part)]))
        return out

    def _detections(self, row: Tensor, ratio: float, picture: Tensor) -> Detections:
        boxes = _decode(row[:, :4], self.grid) / ratio
        scores = row[:, 4:5] * row[:, 5:]  # (cells, classes)
        cell, label = torch.nonzero(scores >= self.score_threshold, as_tuple=True)
        ids = torch.tensor([-1 if label is None else label for label in self.label_ids])[label]
        found = Detections(boxes[cell], scores[cell, label], ids).select(ids >= 0)
        height, width = picture.shape[-2:]
        return merge(found.clip(width, height), iou=self.iou, max_detections=self.max_detections)


def _open(path: Path) -> Any:  # noqa: ANN401 (onnxruntime publishes no types)
    import onnxruntime

    if not path.is_file():
        raise FileNotFoundError(f"no ONNX file {path}; give the path of an exported YOLOX")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(path, options, onnxruntime.get_available_providers())
    except onnxruntime.capi.onnxruntime_pybind11_state.InvalidProtobuf as error:
        raise ValueError(f"{path} is no ONNX file ({error})") from error
    shape = session.get_inputs()[0].shape
    if len(shape) != 4 or shape[1] != 3 or not all(isinstance(side, int) for side in shape[2:]):
        raise ValueError(f"{path} takes {shape}; a YOLOX export takes (B, 3, height, width)")
    return session


def _classes(path: Path, shape: Sequence[Any], cells: int) -> int:
    if len(shape) != 3 or shape[1] != cells or shape[2] < 6:
        raise ValueError(
            f"{path} returns {shape}; a YOLOX export of its input size returns (B, {cells}, 5 + "
            f"classes). Export without decoding and without suppression"
        )
    return int(shape[2]) - 5


def _label_ids(path: Path, classes: int, categories: Mapping[int, str]) -> Sequence[int | None]:
    coco = [name for name in coco_names() if name is not None]
    if classes == len(coco):
        return match_categories(coco, categories)
    if classes != len(categories):
        raise ValueError(
            f"{path} tells {classes} classes apart, the data set has {len(categories)} categories: "
            f"it was trained on other data"
        )
    return sorted(categories)


def _grid(height: int, width: int) -> Tensor:
    levels = []
    for stride in STRIDES:
        rows, columns = torch.meshgrid(
            torch.arange(height // stride), torch.arange(width // stride), indexing="ij"
        )
        levels.append(torch.stack([columns, rows, torch.full_like(rows, stride)], 2).reshape(-1, 3))
    return torch.cat(levels).float()


def _decode(raw: Tensor, grid: Tensor) -> Tensor:
    """Raw ``(cells, 4)`` to corners in pixels of the canvas."""
    stride = grid[:, 2:]
    centre = (raw[:, :2] + grid[:, :2]) * stride
    half = raw[:, 2:].exp() * stride / 2
    return torch.cat([centre - half, centre + half], dim=1)


def _letterbox(picture: Tensor, canvas: tuple[int, int]) -> tuple[NDArray[np.float32], float]:
    """A picture as BGR 0..255 in the canvas, and what its coordinates were multiplied by."""
    height, width = picture.shape[-2:]
    ratio = min(canvas[0] / height, canvas[1] / width)
    size = (round(height * ratio), round(width * ratio))
    values = picture.detach().cpu().float() * 255
    if size != (height, width):
        # without antialias, as the detector was trained (OpenCV's linear resize)
        values = F.interpolate(values[None], size, mode="bilinear", align_corners=False)[0]
    padded = F.pad(values, (0, canvas[1] - size[1], 0, canvas[0] - size[0]), value=PADDING)
    return padded.flip(0).numpy(), ratio
