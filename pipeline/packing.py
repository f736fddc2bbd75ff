"""Networks and detectors as MLflow models: safetensors, settings, and the code that reads them.

A packed model holds no pickle. Its code is a copy of the three packages, without their shipped
weights, so that ``mlflow models serve`` can make the environment for it anywhere.
"""

import base64
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pipeline.arms import CONTROLS
from pipeline.files import full_disk_named
from pipeline.pictures import png
from pipeline.recording.models import detector_signature, network_signature, save_model
from pipeline.registered import FOLDER, NET
from pipeline.study_settings import Join, Merging, Windows

LOADER = "pipeline.served"
IMAGE = "image"
"""Column of the pictures, in requests and answers."""
DETECTOR, SETTINGS = "detector", "settings.json"
MAX_PIXELS = 4_000_000
"""Of a picture that is served: enlarged four times it has sixteen times as many."""
MAX_PICTURES = 16
MIN_SCORE = 0.25
"""Detections below are not answered, unless a request says otherwise."""
PACKAGES = ("pipeline", "sr_module", "detection")
REQUIREMENTS = ("mlflow", "torch", "torchvision", "numpy", "pillow", "safetensors", "rich")
"""What the served code imports."""


def pack_network(net: Path, out: Path) -> None:
    """Writes a network as an MLflow model.

    Args:
        net: weights for use, in safetensors.
        out: folder to make.

    Raises:
        ValueError: the weights are of another kind of file, which may hold code.
    """
    _refuse_pickle(net)
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / FOLDER
        data.mkdir()
        shutil.copyfile(net, data / NET)
        _write_settings(data, {"kind": "network"})
        save_model(
            out, data, signature=network_signature(IMAGE), example={IMAGE: [_example()]},
            loader=LOADER, code=_code(Path(temporary)), requirements=_pinned(REQUIREMENTS),
        )  # fmt: skip


def pack_detector(
    out: Path,
    *,
    arm: str,
    scale: int,
    detector: str,
    weights: str | None,
    categories: Mapping[int, str],
    windows: Windows,
    join: Join,
    merge: Merging,
    reduction: int,
) -> None:
    """Writes a detector behind an enlargement, an arm of a study, as an MLflow model.

    Args:
        out: folder to make.
        arm: a control's word, or weights in safetensors.
        scale: enlargement.
        detector: a file, or the name of a family.
        weights: of a family.
        categories: id to name.
        windows: of the study, in original pixels, like ``join``.
        join: of the study.
        merge: of the study.
        reduction: original pixels per pixel of the pictures that the study gave its arms, which
            are what people will send.

    Raises:
        ValueError: weights that may hold code, or windows that only the truth, or chance, lays.
    """
    if windows.kind in ("oracle", "random"):
        raise ValueError(f"windows of kind {windows.kind} cannot be served; take grid or guided")
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / FOLDER
        data.mkdir()
        if arm not in CONTROLS:
            _refuse_pickle(Path(arm))
            shutil.copyfile(arm, data / NET)
        if Path(detector).is_file():
            shutil.copyfile(detector, data / f"{DETECTOR}{Path(detector).suffix}")
        told = {
            "kind": "detector", "arm": arm if arm in CONTROLS else "", "scale": scale,
            "detector": detector if not Path(detector).is_file() else "", "weights": weights,
            "categories": dict(categories), "merge": asdict(merge),
            "windows": _reduced(asdict(windows), ("size", "small"), reduction),
            "join": _reduced(asdict(join), ("border", "small_below", "large_above"), reduction),
        }  # fmt: skip
        _write_settings(data, told)
        exported = ["onnxruntime"] if Path(detector).suffix == ".onnx" else []
        save_model(
            out, data, signature=detector_signature(IMAGE, MIN_SCORE),
            example={IMAGE: [_example()]}, loader=LOADER, code=_code(Path(temporary)),
            requirements=_pinned((*REQUIREMENTS, *exported)),
        )  # fmt: skip


def _reduced(settings: dict[str, Any], sides: tuple[str, ...], reduction: int) -> dict[str, Any]:
    """Original pixels as pixels of the pictures that will be sent."""
    kinds = {key: type(settings[key]) for key in sides}
    return settings | {key: kinds[key](settings[key] / reduction) for key in sides}


def _refuse_pickle(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: only .safetensors are packed; other files may hold code")


def _write_settings(folder: Path, told: Mapping[str, Any]) -> None:
    (folder / SETTINGS).write_text(json.dumps({**told, "max_pixels": MAX_PIXELS}, indent=1))


def _code(folder: Path) -> list[Path]:
    """Copies of the packages, without what a served model does not read."""
    root = Path(__file__).resolve().parents[1]
    leave = shutil.ignore_patterns("__pycache__", "*.safetensors", "*.js", "*.html")
    with full_disk_named(folder / "code"):
        return [
            shutil.copytree(root / package, folder / "code" / package, ignore=leave)
            for package in PACKAGES
        ]


def _pinned(names: Sequence[str]) -> list[str]:
    return [f"{name}=={version(name).partition('+')[0]}" for name in names]


def _example() -> str:
    """A small picture in base64: colours that change softly."""
    across = torch.linspace(0, 1, 24)
    picture = torch.stack([across.expand(24, 24), across[:, None].expand(24, 24)] * 2)[:3]
    return base64.b64encode(png(picture)).decode()
