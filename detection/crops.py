"""Detection inside enlarged windows, mapped back to the original pixels.

Equal windows of many pictures share one batch, and what the detector finds stays on its device
until all is done. Every coordinate stays float on its way back:
``x = x_sr / scale * reduction + window.x`` (continuous coordinates, no half-pixel term).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from detection.borders import Border, Seen
from detection.boxes import Detections, Detector, Upscale
from detection.windows import Window, WindowPlan

Progress = Callable[[int], None]


class Pixels(Protocol):
    """A picture ``(3, H, W)``: a tensor, or what reads its pieces when they are asked for."""

    @property
    def shape(self) -> torch.Size:
        """``(3, H, W)``."""

    def __getitem__(self, index: tuple[slice, slice, slice], /) -> Tensor:
        """``[:, rows, columns]``."""


def detect_windows(
    pictures: Iterable[tuple[int, Pixels]],
    plan: WindowPlan,
    upscale: Upscale,
    detector: Detector,
    *,
    scale: int,
    reduction: int = 1,
    batch_size: int = 16,
    border: float = 2.0,
    progress: Progress | None = None,
) -> dict[int, Detections]:
    """``see_windows``, without the boxes that a window's inner side cuts.

    Args:
        pictures: as of ``see_windows``, like all that is not here.
        plan: windows in ORIGINAL pixels.
        upscale: the arm.
        detector: called with the enlarged windows of a batch.
        scale: what ``upscale`` enlarges by.
        reduction: original pixels per pixel of the given pictures.
        batch_size: greatest number of windows enlarged at once.
        border: boxes within this many ORIGINAL pixels of a window's side are dropped, as cut
            objects, unless that side is the picture's own border.
        progress: called with the number of windows done since the last call.

    Returns:
        Detections of every given picture, those of its windows one after the other, not merged.
    """
    seen = see_windows(
        pictures, plan, upscale, detector,
        scale=scale, reduction=reduction, batch_size=batch_size, progress=progress,
    )  # fmt: skip
    return {image: Border(border).apply(found) for image, found in seen.items()}


def see_windows(
    pictures: Iterable[tuple[int, Pixels]],
    plan: WindowPlan,
    upscale: Upscale,
    detector: Detector,
    *,
    scale: int,
    reduction: int = 1,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> dict[int, Seen]:
    """Cut the plan's windows, enlarge them, detect, and map the boxes back to original pixels.

    Args:
        pictures: image id and picture ``(3, H, W)`` in [0, 1], given at ``1 / reduction`` of the
            original: 1 for the native protocol, the low-resolution factor for the synthetic one.
            Of a picture that reads its pieces no more than a batch of windows is in memory.
        plan: windows in ORIGINAL pixels, coordinates multiples of ``reduction``.
        upscale: the arm: ``(B, 3, h, w) -> (B, 3, scale * h, scale * w)``.
        detector: called with the enlarged windows of a batch, which may be of many pictures; what
            it finds is copied to the host once, after the last batch.
        scale: what ``upscale`` enlarges by. The oracle of high resolution is the identity with
            scale 1 and reduction 1 on the original pictures.
        reduction: original pixels per pixel of the given pictures.
        batch_size: greatest number of windows enlarged at once. It changes no result.
        progress: called with the number of windows done since the last call.

    Returns:
        What was seen in every given picture, window by window in the plan's order.

    Raises:
        ValueError: a window leaves its picture, or is no multiple of ``reduction``, or ``upscale``
            returned another size than promised.
    """
    sizes: dict[int, tuple[int, int]] = {}
    places: list[tuple[int, int]] = []
    results: list[Detections] = []
    jobs = _windows_of(pictures, plan, reduction=reduction, sizes=sizes)
    for batch in _equal_batches(jobs, batch_size):
        enlarged = _enlarge(torch.stack([job.crop for job in batch]), upscale, scale)
        results += _answers(detector, list(enlarged))
        places += [(job.image, job.position) for job in batch]
        if progress is not None:
            progress(len(batch))
    found = dict(zip(places, _to_host(results), strict=True))
    return {
        image: _gather(image, plan.windows.get(image, ()), size, found, ratio=reduction / scale)
        for image, size in sizes.items()
    }


def detect_full(
    pictures: Iterable[tuple[int, Tensor]],
    detector: Detector,
    *,
    reduction: float = 1,
    batch_size: int = 4,
    progress: Progress | None = None,
) -> dict[int, Detections]:
    """Detect in whole pictures given at ``1 / reduction``; boxes in original pixels.

    Pictures that were enlarged have a reduction below 1.
    """
    images: list[int] = []
    results: list[Detections] = []
    for batch in _chunks(pictures, batch_size):
        results += _answers(detector, [picture for _, picture in batch])
        images += [image for image, _ in batch]
        if progress is not None:
            progress(len(batch))
    return {
        image: found.affine(float(reduction), 0.0, 0.0)
        for image, found in zip(images, _to_host(results), strict=True)
    }


@dataclass(frozen=True, slots=True)
class _Job:
    """One window cut from one picture."""

    image: int
    position: int
    crop: Tensor


def _answers(detector: Detector, pictures: list[Tensor]) -> list[Detections]:
    found = detector(pictures)
    if len(found) != len(pictures):
        raise ValueError(
            f"the detector answered for {len(found)} of {len(pictures)} pictures; it must return "
            f"one Detections for each, empty where it finds nothing"
        )
    return found


def _to_host(results: Sequence[Detections]) -> list[Detections]:
    """The same detections in main memory, brought there by one copy."""
    lengths = [len(found) for found in results]
    joined = Detections.concatenate(results).to("cpu")
    columns = (joined.boxes, joined.scores, joined.labels)
    parts = (values.split_with_sizes(lengths) for values in columns)
    return [Detections(*part) for part in zip(*parts, strict=True)]


def _gather(
    image: int,
    windows: tuple[Window, ...],
    size: tuple[int, int],
    found: dict[tuple[int, int], Detections],
    *,
    ratio: float,
) -> Seen:
    """What all windows of one picture saw, in its original pixels."""
    parts = [found[image, position] for position in range(len(windows))]
    moved = [p.affine(ratio, w.x, w.y) for p, w in zip(parts, windows, strict=True)]
    owner = torch.repeat_interleave(torch.tensor([len(part) for part in parts], dtype=torch.int64))
    return Seen(Detections.concatenate(moved), owner, windows, *size)


def _windows_of(
    pictures: Iterable[tuple[int, Pixels]],
    plan: WindowPlan,
    *,
    reduction: int,
    sizes: dict[int, tuple[int, int]],
) -> Iterator[_Job]:
    """Cut every planned window; notes in ``sizes`` the original size of the pictures passed by."""
    for image, picture in pictures:
        height, width = (side * reduction for side in picture.shape[-2:])
        sizes[image] = (width, height)
        for position, window in enumerate(plan.windows.get(image, ())):
            _check_window(image, window, width, height, reduction)
            left, top = window.x // reduction, window.y // reduction
            right, bottom = left + window.width // reduction, top + window.height // reduction
            # a clone, so that waiting windows do not keep whole pictures in memory
            yield _Job(image, position, picture[:, top:bottom, left:right].clone())


def _check_window(image: int, window: Window, width: int, height: int, reduction: int) -> None:
    numbers = (window.x, window.y, window.width, window.height)
    if any(number % reduction for number in numbers):
        raise ValueError(
            f"image {image}: {window} is not a multiple of the reduction factor {reduction}; "
            f"plan the windows with multiple={reduction}"
        )
    if min(numbers) < 0 or window.x + window.width > width or window.y + window.height > height:
        raise ValueError(
            f"image {image}: {window} leaves the picture of {width}x{height} original pixels "
            f"(given at 1/{reduction}); was the plan made for other pictures or another reduction?"
        )


def _equal_batches(jobs: Iterable[_Job], batch_size: int) -> Iterator[list[_Job]]:
    """Batches of windows of one size, across pictures; the rest of each size at the end."""
    waiting: defaultdict[torch.Size, list[_Job]] = defaultdict(list)
    for job in jobs:
        queue = waiting[job.crop.shape]
        queue.append(job)
        if len(queue) == batch_size:
            yield waiting.pop(job.crop.shape)
    yield from waiting.values()


def _enlarge(crops: Tensor, upscale: Upscale, scale: int) -> Tensor:
    enlarged = upscale(crops)
    batch, channels, height, width = crops.shape
    wanted = (batch, channels, scale * height, scale * width)
    if enlarged.shape != wanted:
        raise ValueError(
            f"the upscaler made {tuple(enlarged.shape)} from {tuple(crops.shape)}, "
            f"scale {scale} asks for {wanted}; is it a network of another scale?"
        )
    return enlarged.clamp(0, 1)


def _chunks(
    pictures: Iterable[tuple[int, Tensor]], size: int
) -> Iterator[tuple[tuple[int, Tensor], ...]]:
    iterator = iter(pictures)
    while batch := tuple(islice(iterator, size)):
        yield batch
