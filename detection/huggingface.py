"""Detectors of Hugging Face transformers, from a folder of ``save_pretrained``; an optional extra.

DETR, RT-DETR, YOLOS, Conditional and Deformable DETR and their kin: what ``AutoModelForObject
Detection`` opens. Their own resize is left out, as everywhere here: windows come as large as they
are meant to be. Nothing is fetched, and weights are safetensors only.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from detection.boxes import Detections, Detector
from detection.categories import match_categories

logger = logging.getLogger(__name__)

MULTIPLE = 32
"""Sides are padded to it at the right and bottom: patches and pyramids want whole cells."""


def load_huggingface(
    folder: Path,
    *,
    categories: Mapping[int, str],
    score_threshold: float = 0.01,
    max_detections: int = 500,
    device: torch.device | str = "cpu",
    bf16: bool = False,
) -> Detector:
    """A folder of ``save_pretrained`` as a ``Detector``.

    Args:
        folder: with config.json, model.safetensors and preprocessor_config.json.
        categories: id to name, of the data set; the model's labels meet them by name.
        score_threshold: boxes below are not returned.
        max_detections: boxes per picture over all classes. A model answers with at most as many as
            it has queries, which is said where it is less.
        device: where the model runs.
        bf16: compute in bfloat16; boxes stay float32.

    Raises:
        ImportError: transformers is not installed.
        ValueError: the folder holds no detector, or none with a category of the set.
    """
    model, processor = _open(folder)
    queries = getattr(model.config, "num_queries", None) or model.config.to_dict().get(
        "num_detection_tokens", max_detections
    )
    if queries < max_detections:
        logger.warning("%s answers with at most %d boxes a picture", folder, queries)
    count = len(model.config.id2label)
    names = [_name(model.config.id2label[number]) for number in range(count)]
    ids = [-1 if each is None else each for each in match_categories(names, categories)]
    return _HuggingFace(
        model=model.to(device).eval(),
        processor=processor,
        ids=torch.tensor(ids),
        score_threshold=score_threshold,
        max_detections=max_detections,
        device=torch.device(device),
        bf16=bf16,
    )


@dataclass(frozen=True, slots=True)
class _HuggingFace:
    model: Any
    processor: Any
    ids: Tensor
    score_threshold: float
    max_detections: int
    device: torch.device
    bf16: bool

    def __call__(self, pictures: list[Tensor]) -> list[Detections]:
        found: list[Detections | None] = [None] * len(pictures)
        for positions in _equal(pictures):
            batch = torch.stack([pictures[position].to(self.device) for position in positions])
            for position, each in zip(positions, self._detect(batch), strict=True):
                found[position] = each
        return [each for each in found if each is not None]

    def _detect(self, batch: Tensor) -> list[Detections]:
        """Detections of equal pictures ``(B, 3, H, W)``."""
        height, width = batch.shape[-2:]
        padded = F.pad(self._normalised(batch), (0, -width % MULTIPLE, 0, -height % MULTIPLE))
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16),
        ):
            outputs = self.model(pixel_values=padded)
        outputs.logits, outputs.pred_boxes = outputs.logits.float(), outputs.pred_boxes.float()
        # The padding counts as part of the picture, so boxes are shares of the padded sides.
        results = self.processor.post_process_object_detection(
            outputs, threshold=self.score_threshold, target_sizes=[padded.shape[-2:]] * len(batch)
        )
        return [self._detections(each).clip(width, height) for each in results]

    def _detections(self, result: Mapping[str, Tensor]) -> Detections:
        labels = self.ids.to(self.device)[result["labels"]]
        found = Detections(result["boxes"].float(), result["scores"].float(), labels)
        known = found.select(labels >= 0)
        order = known.scores.argsort(descending=True, stable=True)[: self.max_detections]
        return known.select(order)

    def _normalised(self, batch: Tensor) -> Tensor:
        if not self.processor.do_normalize:
            return batch
        mean, std = (
            batch.new_tensor(values)[:, None, None]
            for values in (self.processor.image_mean, self.processor.image_std)
        )
        return (batch - mean) / std


def _open(folder: Path) -> tuple[Any, Any]:
    try:
        from transformers import AutoImageProcessor, AutoModelForObjectDetection
    except ImportError as error:
        raise ValueError(
            f"{folder} is a folder of Hugging Face transformers, which is not installed; install "
            f"it with: pip install 'srdet[transformers]'"
        ) from error
    for name in ("config.json", "preprocessor_config.json"):
        if not (folder / name).is_file():
            raise ValueError(
                f"{folder} has no {name}; give a folder to which both the model and its image "
                f"processor were saved with save_pretrained"
            )
    try:
        model = AutoModelForObjectDetection.from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        )
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} holds no detector that transformers opens: {error}") from error
    return model, processor


def _name(label: str) -> str | None:
    return None if label in ("N/A", "") else label


def _equal(pictures: list[Tensor]) -> list[list[int]]:
    """Positions of pictures of one size each."""
    groups: dict[torch.Size, list[int]] = {}
    for position, picture in enumerate(pictures):
        groups.setdefault(picture.shape, []).append(position)
    return list(groups.values())
