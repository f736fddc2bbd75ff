"""Looking at the pictures of a study, some at a time: kept as it goes, here or spread over workers.

The pictures are cut into equal runs, always the same ones, and each run is looked at by itself. So
a crash loses one run, a study that is started again skips what it has seen, and workers that share
the runs find the same boxes to the last bit as one process.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from detection.borders import Seen
from detection.boxes import Detections, Detector, Upscale
from detection.crops import detect_full, see_windows
from detection.windows import WindowPlan
from pipeline.files import atomic_file
from pipeline.progress import bar
from pipeline.upscalers import Upscaler

if TYPE_CHECKING:
    from pipeline.study import Pictures

Eyes = tuple[Detector, Upscaler | None]
"""A detector and what enlarges for it."""
Opener = Callable[[], Eyes]
"""Opens them again, in a worker."""
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
class Look:
    """A way to look at pictures.

    ``plan`` None looks at whole pictures; ``original`` at the originals in place of what is given.
    """

    pictures: "Pictures"
    plan: WindowPlan | None
    batch_size: int
    original: bool = False

    def __call__(self, images: Images, eyes: Eyes) -> Sight:
        """What is seen in some of the pictures."""
        detector, upscaler = eyes
        enlarging, detecting = Clock(), Clock()
        detect: Detector = detecting.around(detector)  # type: ignore[assignment]
        form = self.pictures.original if self.original else self.pictures.given
        each = self.pictures.only(images).each(form)
        reduction = 1 if self.original else self.pictures.reduction
        if self.plan is None:
            found = detect_full(each, detect, reduction=reduction)
            return Sight({i: _whole(f) for i, f in found.items()}, 0.0, detecting.seconds)
        upscale: Upscale = enlarging.around(upscaler or _as_it_is)  # type: ignore[assignment]
        seen = see_windows(
            each, self.plan, upscale, detect,
            scale=upscaler.scale if upscaler else 1, reduction=reduction,
            batch_size=self.batch_size,
        )  # fmt: skip
        return Sight(seen, enlarging.seconds, detecting.seconds, enlarging.pixels)

    def runs(self, size: int) -> list[Images]:
        """The pictures in equal runs; the last may be shorter."""
        images = [picture.id for picture in self.pictures.truth.images]
        return [tuple(images[start : start + size]) for start in range(0, len(images), size)]


@dataclass(frozen=True)
class Looking:
    """How looking is done.

    Attributes:
        at_once: pictures of a run: what a crash loses.
        folder: where runs are kept; None keeps nothing.
        key: what, besides pictures and windows, decides what is seen: detector, precision, device.
        spread: looks at runs on workers, in any order; None looks at one after the other.
    """

    at_once: int = 16
    folder: Path | None = None
    key: Mapping[str, str] = field(default_factory=dict)
    spread: "Spread | None" = None


Spread = Callable[[Look, Opener, Sequence[Images]], Iterator[tuple[Images, Sight]]]


def look_at_all(
    look: Look, eyes: Eyes, how: Looking, *, title: str, spec: str = "", again: Opener | None = None
) -> Sight:
    """Look at all pictures, except at those runs that were looked at before.

    Args:
        look: at what.
        eyes: that look.
        how: to do it.
        title: of the progress bar and of the folder that keeps the runs.
        spec: what the arm enlarges with, part of the key of what is kept.
        again: opens the eyes in a worker; without it they look here.
    """
    runs = look.runs(how.at_once)
    kept = _Kept.of(look, how, title, spec)
    done = {run: sight for run in runs if (sight := kept.load(run)) is not None}
    left = [run for run in runs if run not in done]
    with bar(_told(title, len(done), len(runs)), sum(map(len, left))) as advance:
        if how.spread is not None and again is not None and left:
            looked = how.spread(look, again, left)
        else:
            looked = ((run, look(run, eyes)) for run in left)
        for run, sight in looked:
            kept.save(run, sight)
            done[run] = sight
            advance(len(run))
    kept.forget_others()
    return Sight.joined([done[run] for run in runs])


def _told(title: str, done: int, runs: int) -> str:
    return f"{title}: {done} of {runs} parts are there" if done else title


class Clock:
    """Counts the seconds spent inside a function, and the pixels of pictures that it returned."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.pixels = 0

    def around(self, function: Callable[..., object]) -> Callable[..., object]:
        """The function with its time counted."""
        return partial(self._timed, function)

    def _timed(self, function: Callable[..., object], *inputs: object) -> object:
        started = time.perf_counter()
        result = function(*inputs)
        self.seconds += time.perf_counter() - started
        if isinstance(result, Tensor):
            self.pixels += result.numel() // result.shape[1]
        return result


@dataclass(frozen=True)
class _Kept:
    """Runs on disk: one file each, in a folder named for all that decides what is in it."""

    folder: Path | None
    look: Look

    @classmethod
    def of(cls, look: Look, how: Looking, title: str, spec: str) -> "_Kept":
        if how.folder is None:
            return cls(None, look)
        content = {
            "key": dict(how.key), "spec": file_digest(spec), "windows": _windows(look.plan),
            "pictures": look.pictures.digest, "original": look.original,
            "batch_size": look.batch_size, "at_once": how.at_once,
        }  # fmt: skip
        return cls(how.folder / _slug(title) / _short(content), look)

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
        windows = self.look.plan.windows if self.look.plan else {}
        columns = [tensors[name].split_with_sizes(stored["counts"]) for name in _COLUMNS]
        seen = {
            image: Seen(Detections(boxes, scores, labels), window, windows.get(image, ()), *size)
            for image, size, boxes, scores, labels, window in zip(
                stored["images"], stored["sizes"], *columns, strict=True
            )
        }
        return Sight(seen, *stored["costs"])

    def _file(self, run: Images) -> Path | None:
        return None if self.folder is None else self.folder / f"{run[0]:08d}.safetensors"


_COLUMNS = ("boxes", "scores", "labels", "window")


def _windows(plan: WindowPlan | None) -> str:
    return "" if plan is None else plan.digest


def file_digest(name: str | Path) -> str:
    """A name, with its content's SHA-256 where it is a file: another file is another name."""
    path = Path(name)
    if not str(name) or not path.is_file():
        return str(name)
    with path.open("rb") as file:
        return f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}"


def _short(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _slug(title: str) -> str:
    return "".join(c if c.isalnum() or c in "-." else "_" for c in title)


def _whole(found: Detections) -> Seen:
    return Seen(found, torch.zeros(len(found), dtype=torch.int64), (), 0, 0)


def _as_it_is(windows: Tensor) -> Tensor:
    return windows
