"""Looking at the pictures of a study, some at a time: kept as it goes, here or spread over workers.

The pictures are cut into equal runs, always the same ones, and each run is looked at by itself. So
a crash loses one run, a study that is started again skips what it has seen, and workers that share
the runs find the same boxes to the last bit as one process.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from detection.borders import Border, Seen
from detection.boxes import Detections, Detector, Upscale
from detection.crops import detect_full, see_windows
from detection.group import Merge
from detection.merge import fuse
from detection.windows import WindowPlan, grid_windows
from pipeline.kept import Images, Kept, Sight, file_digest
from pipeline.progress import bar
from pipeline.upscalers import Upscaler, bicubic
from pipeline.vast import SHEET

if TYPE_CHECKING:
    from pipeline.study import Pictures

Eyes = tuple[Detector, Upscaler | None]
"""A detector and what enlarges for it."""
Opener = Callable[[], Eyes]
"""Opens them again, in a worker."""


@dataclass(frozen=True)
class Look:
    """A way to look at pictures.

    ``plan`` None looks at whole pictures; ``original`` at the originals in place of what is given.
    Whole pictures are enlarged by ``zoom`` with bicubic.
    """

    pictures: "Pictures"
    plan: WindowPlan | None
    batch_size: int
    original: bool = False
    zoom: float = 1.0

    def __call__(self, images: Images, eyes: Eyes) -> Sight:
        """What is seen in some of the pictures."""
        detector, upscaler = eyes
        enlarging, detecting = Clock(), Clock()
        detect: Detector = detecting.around(detector)  # type: ignore[assignment]
        form = self.pictures.original if self.original else self.pictures.given
        each = self.pictures.only(images).each(form)
        reduction = 1 if self.original else self.pictures.reduction
        if self.plan is None:
            found = self._whole(images, detect, enlarging, reduction)
            whole = {i: _seen(f) for i, f in found.items()}
            return Sight(whole, enlarging.seconds, detecting.seconds, enlarging.pixels)
        upscale: Upscale = enlarging.around(upscaler or _as_it_is)  # type: ignore[assignment]
        seen = see_windows(
            each, self.plan, upscale, detect,
            scale=upscaler.scale if upscaler else 1, reduction=reduction,
            batch_size=self.batch_size,
        )  # fmt: skip
        return Sight(seen, enlarging.seconds, detecting.seconds, enlarging.pixels)

    def _whole(
        self, images: Images, detect: Detector, enlarging: "Clock", reduction: int
    ) -> dict[int, Detections]:
        """Of whole pictures; of vast ones in sheets, whose borders cut nothing off that counts."""
        pictures = self.pictures
        ordinary = [image for image in images if not pictures.vast(image)]
        whole = ((i, pictures.given(i)) for i in ordinary)
        zoom: Upscale = enlarging.around(self._zoomed)  # type: ignore[assignment]
        if self.zoom != 1:
            refuse_vast([image for image in images if pictures.vast(image)])
            whole = ((i, zoom(picture[None])[0]) for i, picture in whole)  # type: ignore[index]
        ratio = reduction / self.zoom
        found = detect_full(whole, detect, reduction=ratio)  # type: ignore[arg-type]
        for image in images:
            if pictures.vast(image):
                found[image] = self._in_sheets(image, detect, reduction)
        return {image: found[image] for image in images}

    def _in_sheets(self, image: int, detect: Detector, reduction: int) -> Detections:
        given = self.pictures.given(image)
        height, width = (side * reduction for side in given.shape[-2:])
        # No sheet has more than four times its pixels to be read before it is reduced.
        side = min(SHEET, 2 * SHEET // reduction) * reduction
        sheets = grid_windows(width, height, size=side, overlap=0.1, multiple=reduction)
        seen = see_windows(
            [(image, given)], WindowPlan({image: tuple(sheets)}), _as_it_is, detect,
            scale=1, reduction=reduction, batch_size=1,
        )  # fmt: skip
        return fuse(Border(cut="seen_whole").apply(seen[image]), Merge())

    def _zoomed(self, pictures: Tensor) -> Tensor:
        return bicubic(pictures, self.zoom)

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
    kept = Kept.of(how.folder, title, _content(look, how, spec), look.plan)
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


def _content(look: Look, how: Looking, spec: str) -> dict[str, Any]:
    """All that decides what is seen."""
    return {
        "key": dict(how.key), "spec": file_digest(spec), "pictures": look.pictures.digest,
        "windows": "" if look.plan is None else look.plan.digest, "original": look.original,
        "zoom": look.zoom,
        "batch_size": look.batch_size, "at_once": how.at_once,
    }  # fmt: skip


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


def refuse_vast(images: Sequence[int]) -> None:
    """Refuse to enlarge pictures that are read in pieces.

    Raises:
        ValueError: there are any.
    """
    if images:
        raise ValueError(
            f"image {images[0]} is too large to be enlarged as a whole; leave the arms out "
            "that do so (larger...)"
        )


def _seen(found: Detections) -> Seen:
    return Seen(found, torch.zeros(len(found), dtype=torch.int64), (), 0, 0)


def _as_it_is(windows: Tensor) -> Tensor:
    return windows
