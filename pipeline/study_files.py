"""What a study leaves to be read by machines: its truth, and what each arm found."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from detection.boxes import Detections, xywh_to_xyxy, xyxy_to_xywh
from detection.truth import CocoSet, read_coco
from pipeline.files import atomic_file

TRUTH = "truth.json"
"""The evaluated pictures and objects, as COCO, under the image ids of the detections."""

SCENE = "scene"
"""The field of a picture there that names its scene, where the study drew whole ones."""


def file_name(name: str) -> str:
    """An arm's name as part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", name)


def save_detections(found: Mapping[int, Detections], folder: Path, arm: str) -> Path:
    """What an arm found, in COCO's result form; returns the file."""
    rows = [
        {"image_id": image, "category_id": label, "bbox": box, "score": score}
        for image, each in found.items()
        for box, score, label in zip(
            xyxy_to_xywh(each.boxes.double()).tolist(),
            each.scores.tolist(),
            each.labels.tolist(),
            strict=True,
        )
    ]
    return _write(folder / f"detections_{file_name(arm)}.json", rows)


def load_detections(folder: Path, arm: str, truth: CocoSet) -> dict[int, Detections]:
    """What ``save_detections`` wrote; pictures in which nothing was found have an entry, too.

    Raises:
        FileNotFoundError: the study has no such arm; the message names those it has.
    """
    path = folder / f"detections_{file_name(arm)}.json"
    if not path.is_file():
        there = ", ".join(stored_arms(folder)) or "none"
        raise FileNotFoundError(f"{folder} has no arm '{arm}'; it has {there}")
    rows: dict[int, list[dict[str, Any]]] = {picture.id: [] for picture in truth.images}
    for row in json.loads(path.read_text()):
        rows[row["image_id"]].append(row)
    return {image: _as_detections(each) for image, each in rows.items()}


def stored_arms(folder: Path) -> list[str]:
    """The arms of which a study left detections, by the names of their files."""
    return sorted(p.stem.removeprefix("detections_") for p in folder.glob("detections_*.json"))


def save_truth(truth: CocoSet, folder: Path, scenes: Mapping[int, str] | None = None) -> Path:
    """The evaluated pictures, with their scenes, and their objects as a COCO file; returns it."""
    scenes = scenes or {}
    annotations: list[dict[str, Any]] = []
    for image, objects in truth.objects.items():
        columns = (
            xyxy_to_xywh(objects.boxes.double()), objects.labels, objects.areas, objects.crowds,
        )  # fmt: skip
        for box, label, area, crowd in zip(*(column.tolist() for column in columns), strict=True):
            place = {"id": len(annotations) + 1, "image_id": image, "category_id": label}
            annotations.append(place | {"bbox": box, "area": area, "iscrowd": int(crowd)})
    images = [
        {"id": p.id, "file_name": p.file_name, "width": p.width, "height": p.height}
        | ({SCENE: scenes[p.id]} if p.id in scenes else {})
        for p in truth.images
    ]
    categories = [{"id": key, "name": name} for key, name in truth.categories.items()]
    coco = {"images": images, "categories": categories, "annotations": annotations}
    return _write(folder / TRUTH, coco)


def load_settings(folder: Path) -> dict[str, Any]:
    """What a finished study was told; empty where it left no study.json."""
    path = folder / "study.json"
    settings: dict[str, Any] = json.loads(path.read_text())["settings"] if path.is_file() else {}
    return settings


def has_scenes(folder: Path) -> bool:
    """Whether a study drew whole scenes."""
    return any(SCENE in row for row in json.loads((folder / TRUTH).read_text())["images"])


def load_truth(folder: Path) -> CocoSet:
    """What ``save_truth`` wrote.

    Raises:
        FileNotFoundError: there is no finished study.
    """
    path = folder / TRUTH
    if not path.is_file():
        raise FileNotFoundError(
            f"no {path}; give the out folder of a finished study of `srdet detect`"
        )
    return read_coco(path, allow_empty=True)


def _as_detections(rows: list[dict[str, Any]]) -> Detections:
    # float64 until the corners are formed, so that they come back to the last bit
    boxes = torch.tensor([row["bbox"] for row in rows], dtype=torch.float64).reshape(-1, 4)
    return Detections(
        xywh_to_xyxy(boxes).float(),
        torch.tensor([row["score"] for row in rows], dtype=torch.float32),
        torch.tensor([row["category_id"] for row in rows], dtype=torch.int64),
    )


def _write(path: Path, content: object) -> Path:
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content))
    return path
