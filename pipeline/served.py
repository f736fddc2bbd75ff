"""What MLflow serves: base64 pictures in, super-resolved pictures or detections out.

``packing.py`` writes models whose loader this module is: MLflow calls ``_load_pyfunc`` with the
folder of safetensors and settings, then ``predict`` for each request. Wrong input is answered with
status 400 and what is wrong with it.
"""

import base64
import binascii
import json
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

from detection.boxes import Detections
from detection.crops import detect_full, see_windows
from detection.detectors import load_detector
from detection.merge import fuse
from detection.truth import CocoSet, Picture
from pipeline.arms import open_arm
from pipeline.packing import DETECTOR, IMAGE, MAX_PICTURES, MIN_SCORE, SETTINGS
from pipeline.picture_files import PictureError
from pipeline.pictures import png, read_picture, to_float
from pipeline.plans import plan_windows
from pipeline.registered import NET
from pipeline.study import Pictures
from pipeline.study_settings import Join, Merging, Windows
from pipeline.upscalers import Upscaler, open_upscaler
from pipeline.world import best_device, best_precision

LIMIT = "SRDET_SERVE_MAX_PIXELS"
"""Environment variable: the largest picture taken, before it is enlarged."""
_BITS = 4 / 3
"""Characters of base64 a byte."""
_BYTES_A_PIXEL = 8
"""More than any picture format needs of a picture of the largest size."""
ONLY = 1
"""The id of the one picture of a request's row."""


class Enlarging:
    """A super-resolution network behind MLflow's door.

    Args:
        folder: of the packed network.
    """

    def __init__(self, folder: Path) -> None:
        settings = json.loads((folder / SETTINGS).read_text())
        self._limit = _limit(settings)
        self._upscaler = open_upscaler(str(folder / NET), precision="auto")
        self._one_at_a_time = threading.Lock()

    def predict(self, rows: Any, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:  # noqa: ANN401
        """Enlarges every picture of the request; PNG in base64, with its size."""
        return [self._answer(picture) for picture in pictures_of(rows, self._limit)]

    def _answer(self, picture: Tensor) -> dict[str, Any]:
        with self._one_at_a_time:
            sr = self._upscaler(to_float(picture)[None])[0]
        height, width = sr.shape[1:]
        return {
            IMAGE: base64.b64encode(png(sr)).decode(), "width": width, "height": height,
            "scale": self._upscaler.scale,
        }  # fmt: skip


class Detecting:
    """A detector behind a super-resolution network: an arm of a study, on single pictures.

    Args:
        folder: of the packed detector.
    """

    def __init__(self, folder: Path) -> None:
        settings = json.loads((folder / SETTINGS).read_text())
        bf16 = best_precision("auto").startswith("bf16")
        self._limit = _limit(settings)
        self._categories = {int(key): name for key, name in settings["categories"].items()}
        self._windows = Windows(**settings["windows"])
        self._join = Join(**settings["join"])
        self._merge = Merging(**settings["merge"])
        arm = settings["arm"] or str(folder / NET)
        self._upscaler: Upscaler | None = open_arm(arm, settings["scale"], bf16=bf16)
        detector = next(folder.glob(f"{DETECTOR}.*"), None) or settings["detector"]
        self._detector = load_detector(
            detector,
            categories=self._categories,
            weights=settings["weights"],
            device=best_device(),
            bf16=bf16,
        )
        self._one_at_a_time = threading.Lock()

    def predict(self, rows: Any, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:  # noqa: ANN401
        """Detects in every picture of the request, in its own pixels."""
        least = float((params or {}).get("min_score", MIN_SCORE))
        return [self._answer(picture, least) for picture in pictures_of(rows, self._limit)]

    def _answer(self, picture: Tensor, least: float) -> dict[str, Any]:
        with self._one_at_a_time:
            found = self._detect(to_float(picture))
        found = found.select(found.scores >= least)
        height, width = picture.shape[1:]
        columns = (found.boxes.tolist(), found.scores.tolist(), found.labels.tolist())
        each = zip(*columns, strict=True)
        return {"detections": [self._told(*one) for one in each], "width": width, "height": height}

    def _told(self, box: list[float], score: float, label: int) -> dict[str, Any]:
        left, top, right, bottom = (round(value, 2) for value in box)
        return {
            "box": [left, top, round(right - left, 2), round(bottom - top, 2)],
            "score": round(score, 4), "category_id": label, "category": self._categories[label],
        }  # fmt: skip

    def _detect(self, picture: Tensor) -> Detections:
        """As an arm of a study does: the first look, windows, enlargement, detection, merging."""
        full = detect_full([(ONLY, picture)], self._detector)
        plan = plan_windows(self._as_set(picture), self._windows, full)
        seen = see_windows(
            [(ONLY, picture)], plan, self._upscaler or _as_it_is, self._detector,
            scale=self._upscaler.scale if self._upscaler else 1,
        )  # fmt: skip
        inside = self._join.cut.apply(seen[ONLY])
        joined = self._join.gate.join(inside, full[ONLY] if self._join.full else None)
        return fuse(joined, self._merge)

    def _as_set(self, picture: Tensor) -> Pictures:
        height, width = picture.shape[1:]
        images = (Picture(ONLY, "", width, height),)
        truth = CocoSet(Path(), images, self._categories, {}, [])
        return Pictures(truth, {}, None)


def _load_pyfunc(data_path: str) -> Enlarging | Detecting:
    """The loader that MLflow calls by this name."""
    folder = Path(data_path)
    kind = json.loads((folder / SETTINGS).read_text())["kind"]
    return Enlarging(folder) if kind == "network" else Detecting(folder)


def _limit(settings: Mapping[str, Any]) -> int:
    return int(os.environ.get(LIMIT, settings["max_pixels"]))


def longest_text(pixels: int) -> int:
    """Most characters of base64 that a picture of so many pixels is given."""
    return int(pixels * _BYTES_A_PIXEL * _BITS)


def pictures_of(rows: Any, limit: int) -> Iterable[Tensor]:  # noqa: ANN401
    """The pictures of a request, uint8 ``(3, H, W)``; all are looked at before the first is used.

    Args:
        rows: a data frame, or mapping, with a column "image" of base64 texts.
        limit: most pixels of a picture.

    Raises:
        MlflowException: with status 400, and what is wrong.
    """
    texts = list(rows[IMAGE])
    if not 1 <= len(texts) <= MAX_PICTURES:
        _refuse(f"{len(texts)} pictures; send 1 to {MAX_PICTURES} a request")
    return [_picture(text, f"picture {number}", limit) for number, text in enumerate(texts, 1)]


def _picture(text: object, name: str, limit: int) -> Tensor:
    if not isinstance(text, str) or not text:
        _refuse(f"{name} is no text; send the file's bytes in base64")
    most = longest_text(limit)
    if len(text) > most:
        _refuse(f"{name} has {len(text)} characters of base64, more than the limit of {most}")
    try:
        data = base64.b64decode(text.partition(",")[2] or text, validate=True)  # after "data:...,"
    except (binascii.Error, ValueError):
        _refuse(f"{name} is not base64; send the bytes of a PNG, JPEG, WebP, TIFF or BMP in base64")
    try:
        return read_picture(data, name=name, max_pixels=limit)
    except PictureError as error:
        _refuse(str(error).split("; cut it")[0])


def _refuse(said: str) -> NoReturn:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    raise MlflowException(said, error_code=INVALID_PARAMETER_VALUE)


def _as_it_is(windows: Tensor) -> Tensor:
    return windows
