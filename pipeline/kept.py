"""What was seen in runs of pictures, kept on disk: a crash loses the run at hand and no other."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from detection.borders import Seen
from detection.boxes import Detections
from detection.ultralytics_models import PREFIX
from detection.windows import Window, WindowPlan
from pipeline.files import atomic_file

Images = tuple[int, ...]
"""The ids of a run of pictures."""


@dataclass(frozen=True)
class Sight:
    """What was seen in some pictures, in original pixels and not merged, and what it took.

    ``seen`` of whole pictures has no windows. ``pixels`` were enlarged.
    """

    seen: dict[int, Seen]
    enlarging: float = 0.0
    detecting: float = 0.0
    pixels: int = 0

    @classmethod
    def joined(cls, parts: Sequence["Sight"]) -> "Sight":
        """One of several, their pictures in the order of the parts."""
        seen = {image: each for part in parts for image, each in part.seen.items()}
        return cls(
            seen,
            sum(part.enlarging for part in parts),
            sum(part.detecting for part in parts),
            sum(part.pixels for part in parts),
        )


@dataclass(frozen=True)
class Kept:
    """Runs on disk: one file each, in a folder named for all that decides what is in it."""

    folder: Path | None
    windows: Mapping[int, tuple[Window, ...]]

    @classmethod
    def of(
        cls, folder: Path | None, title: str, content: Mapping[str, Any], plan: WindowPlan | None
    ) -> Self:
        """The place of what has a title; another ``content`` has another place."""
        windows = {} if plan is None else plan.windows
        return cls(folder and folder / _slug(title) / short_digest(content), windows)

    def load(self, run: Images) -> Sight | None:
        """A run, or None where it is not there or is damaged."""
        path = self._file(run)
        if path is None or not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                stored = json.loads(file.metadata()["sight"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError):
            return None
        return self._sight(stored, tensors) if tuple(stored["images"]) == run else None

    def save(self, run: Images, sight: Sight) -> None:
        """Keep a run; a crash leaves it whole or not at all."""
        path = self._file(run)
        if path is None:
            return
        parts = [sight.seen[image] for image in run]
        found = Detections.concatenate([part.found for part in parts])
        tensors = {
            "boxes": found.boxes, "scores": found.scores, "labels": found.labels,
            "window": torch.cat([part.window for part in parts]),
        }  # fmt: skip
        stored = {
            "images": run, "counts": [len(part.found) for part in parts],
            "sizes": [(part.width, part.height) for part in parts],
            "costs": (sight.enlarging, sight.detecting, sight.pixels),
        }  # fmt: skip
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        with atomic_file(path) as temporary:
            save_file(whole, temporary, metadata={"sight": json.dumps(stored)})

    def forget_others(self) -> None:
        """Remove what was kept under this title for other pictures, windows or detectors."""
        if self.folder is None:
            return
        for other in self.folder.parent.iterdir():
            if other != self.folder and other.is_dir():
                for file in other.glob("*.safetensors"):
                    file.unlink()
                other.rmdir()

    def _sight(self, stored: dict[str, Any], tensors: dict[str, Tensor]) -> Sight:
        columns = [tensors[name].split_with_sizes(stored["counts"]) for name in _COLUMNS]
        seen = {
            image: Seen(
                Detections(boxes, scores, labels), window, self.windows.get(image, ()), *size
            )
            for image, size, boxes, scores, labels, window in zip(
                stored["images"], stored["sizes"], *columns, strict=True
            )
        }
        return Sight(seen, *stored["costs"])

    def _file(self, run: Images) -> Path | None:
        return None if self.folder is None else self.folder / f"{run[0]:08d}.safetensors"


_COLUMNS = ("boxes", "scores", "labels", "window")


def file_digest(name: str | Path) -> str:
    """A name, with its content's SHA-256 where it is a file: another file is another name."""
    path = Path(str(name).removeprefix(PREFIX))
    if not str(name) or not path.exists():
        return str(name)
    if path.is_dir():
        return " ".join([path.name, *(file_digest(each) for each in sorted(path.iterdir()))])
    with path.open("rb") as file:
        return f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}"


def short_digest(content: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that another content has not."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _slug(title: str) -> str:
    return "".join(c if c.isalnum() or c in "-." else "_" for c in title)
