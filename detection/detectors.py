"""Detectors behind one function: torchvision's, the small FCOS, stored ones, other packages'.

Whatever the model's own labels are, a ``Detector`` answers in the category ids of the data set.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from detection.boxes import Detections, Detector
from detection.categories import match_categories
from detection.families import build_model, check_name, coco_names
from detection.files import write_atomically
from detection.huggingface import load_huggingface
from detection.published import check_published, load_published
from detection.ultralytics_models import PREFIX, load_ultralytics

FORMAT = "srdet-detector/1"


class _Limits(TypedDict):
    score_threshold: float
    max_detections: int


def load_detector(
    name_or_path: str | Path,
    *,
    categories: Mapping[int, str],
    weights: str | Path | None = None,
    score_threshold: float = 0.01,
    max_detections: int = 500,
    device: torch.device | str = "cpu",
    bf16: bool = False,
) -> Detector:
    """A detector that takes pictures at their own size and answers in the set's categories.

    Args:
        name_or_path: a file of ``save_detector`` (.safetensors), an exported YOLOX (.onnx), a
            folder of Hugging Face transformers, ``ultralytics:FILE``, or one of
            ``families.NAMES``.
        categories: id to name, of the data set.
        weights: for a torchvision name: a file of its published COCO weights, or their torchvision
            name (``COCO_V1``, ``DEFAULT``; fetched on first use). None is random weights, for
            tests.
        score_threshold: boxes below are not returned; low, because average precision wants the
            tail.
        max_detections: boxes returned per picture, over all classes.
        device: where the model runs; the results stay there.
        bf16: run the convolutions in bfloat16; boxes stay float32.

    Raises:
        FileNotFoundError: a file is missing.
        ConnectionError: published weights cannot be fetched.
        ValueError: unknown name, a file that is no detector, or no category in common with the set.
    """
    source = str(name_or_path)
    limits: _Limits = {"score_threshold": score_threshold, "max_detections": max_detections}
    if source.endswith(".onnx"):
        from detection.yolox import load_yolox

        return load_yolox(Path(source), categories=categories, **limits)
    if source.startswith(PREFIX):
        file = Path(source.removeprefix(PREFIX))
        return load_ultralytics(file, categories=categories, device=device, **limits)
    if Path(source).is_dir():
        return load_huggingface(
            Path(source), categories=categories, device=device, bf16=bf16, **limits
        )
    if source.endswith(".safetensors"):
        model, names = load_model(Path(source), score_threshold, max_detections)
    else:
        model, names = _named_model(source, categories, weights, score_threshold, max_detections)
    return as_detector(
        model, label_ids=match_categories(names, categories), device=device, bf16=bf16
    )


def as_detector(
    model: nn.Module,
    *,
    label_ids: Sequence[int | None],
    device: torch.device | str = "cpu",
    bf16: bool = False,
) -> Detector:
    """A torchvision-style model as a ``Detector``.

    Args:
        model: in evaluation mode a list of pictures to a list of dicts of boxes, scores and labels.
        label_ids: category id of every label; None for labels that the set has no category for.
        device: where the model runs.
        bf16: run the convolutions in bfloat16.
    """
    ids = torch.tensor([-1 if label is None else label for label in label_ids], device=device)
    kept = torch.tensor([label is not None for label in label_ids], device=device)
    # Convolutions are a third faster so, on processors and accelerators alike.
    model = model.to(device).to(memory_format=torch.channels_last).eval()
    return _ModelDetector(model, ids, kept, torch.device(device), bf16)


def save_detector(
    model: nn.Module,
    path: Path,
    *,
    architecture: str,
    categories: Mapping[int, str],
    provenance: Mapping[str, str],
) -> None:
    """Store a trained detector as safetensors; a reader never sees half a file.

    Args:
        model: made by ``families.build_model`` with the labels of ``training_labels(categories)``.
        path: ends in ``.safetensors``.
        architecture: one of ``families.NAMES``.
        categories: id to name, of the set it was trained on.
        provenance: where it comes from (data, commit, settings), kept with the file.
    """
    check_name(architecture)
    if path.suffix != ".safetensors":
        raise ValueError(f"a detector is stored as .safetensors, got {path}")
    metadata = {
        "format": FORMAT,
        "architecture": architecture,
        "categories": json.dumps({str(key): categories[key] for key in sorted(categories)}),
        "provenance": json.dumps(dict(provenance)),
    }
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    write_atomically(path, save(tensors, metadata=metadata))


def load_model(
    path: Path, score_threshold: float = 0.01, max_detections: int = 500
) -> tuple[nn.Module, list[str | None]]:
    """The model of a ``save_detector`` file, and the name of each of its labels.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no detector of this project, or it is damaged.
    """
    metadata = read_metadata(path)
    stored: dict[str, str] = json.loads(metadata["categories"])
    model = build_model(
        metadata["architecture"],
        num_classes=len(stored) + 1,
        score_threshold=score_threshold,
        max_detections=max_detections,
    )
    model.load_state_dict(load_file(path))
    names = [stored[key] for key in sorted(stored, key=int)]
    return model, [None, *names]


def read_metadata(path: Path) -> dict[str, str]:
    """What ``save_detector`` wrote beside the weights: architecture, categories, provenance.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no detector of this project, or it is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no detector file {path}; `srdet detect train` writes one")
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or is damaged ({error})") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path} holds weights but no detector of this project (format "
            f"{metadata.get('format')!r}, expected {FORMAT!r}); published weights go into "
            "--detector_weights, with the family's name as --detector"
        )
    return metadata


@dataclass(frozen=True, slots=True)
class _ModelDetector:
    model: nn.Module
    ids: Tensor
    kept: Tensor
    device: torch.device
    bf16: bool

    def __call__(self, pictures: list[Tensor]) -> list[Detections]:
        if not pictures:
            return []
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16),
        ):
            results = self.model([picture.to(self.device) for picture in pictures])
        return [self._detections(result) for result in results]

    def _detections(self, result: dict[str, Tensor]) -> Detections:
        labels = result["labels"]
        found = Detections(result["boxes"].float(), result["scores"].float(), self.ids[labels])
        return found.select(self.kept[labels])


def _named_model(
    name: str,
    categories: Mapping[int, str],
    weights: str | Path | None,
    score_threshold: float,
    max_detections: int,
) -> tuple[nn.Module, list[str | None]]:
    check_name(name)
    names: list[str | None]
    if weights is None:
        names = [None, *(categories[key] for key in sorted(categories))]
    else:
        check_published(name)
        names = coco_names()
    model = build_model(
        name,
        num_classes=len(names),
        score_threshold=score_threshold,
        max_detections=max_detections,
    )
    if weights is not None:
        load_published(model, name, weights)
    return model, names
