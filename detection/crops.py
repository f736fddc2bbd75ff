"""Detection inside enlarged windows, mapped back to the original pixels.

Equal windows of many pictures share one batch. Every coordinate stays float on its way back:
``x = x_sr / scale * reduction + window.x`` (continuous coordinates, no half-pixel term).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from detection.boxes import Detections, Detector, Upscale
from detection.windows import Window, WindowPlan

Progress = Callable[[int], None]


def detect_windows(
    pictures: Iterable[tuple[int, Tensor]],
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
    """Cut the plan's windows, enlarge them, detect, and map the boxes back to original pixels.

    Args:
        pictures: image id and picture ``(3, H, W)`` in [0, 1], given at ``1 / reduction`` of the
            original: 1 for the native protocol, the low-resolution factor for the synthetic one.
        plan: windows in ORIGINAL pixels, coordinates multiples of ``reduction``.
        upscale: the arm: ``(B, 3, h, w) -> (B, 3, scale * h, scale * w)``.
        detector: called with the enlarged windows of a batch.
        scale: what ``upscale`` enlarges by. The oracle of high resolution is the identity with
            scale 1 and reduction 1 on the original pictures.
        reduction: original pixels per pixel of the given pictures.
        batch_size: greatest number of windows enlarged at once.
        border: boxes within this many ORIGINAL pixels of a window's side are dropped, as cut
            objects, unless that side is the picture's own border.
        progress: called with the number of windows done since the last call.

    Returns:
        Detections of every given picture, those of its windows one after the other, not merged.

    Raises:
        ValueError: a window leaves its picture, or is no multiple of ``reduction``, or ``upscale``
            returned another size than promised.
    """
    found: defaultdict[int, dict[int, Detections]] = defaultdict(dict)
    seen: list[int] = []
    jobs = _windows_of(pictures, plan, reduction=reduction, seen=seen)
    for batch in _equal_batches(jobs, batch_size):
        enlarged = _enlarge(torch.stack([job.crop for job in batch]), upscale, scale)
        for job, detections in zip(batch, detector(list(enlarged)), strict=True):
            found[job.image][job.position] = job.restore(
                detections.to("cpu"), ratio=reduction / scale, border=border
            )
        if progress is not None:
            progress(len(batch))
    return {
        image: Detections.concatenate([found[image][key] for key in sorted(found[image])])
        for image in seen
    }


def detect_full(
    pictures: Iterable[tuple[int, Tensor]],
    detector: Detector,
    *,
    reduction: int = 1,
    batch_size: int = 4,
    progress: Progress | None = None,
) -> dict[int, Detections]:
    """Detect in whole pictures given at ``1 / reduction``; boxes in original pixels."""
    found: dict[int, Detections] = {}
    for batch in _chunks(pictures, batch_size):
        results = detector([picture for _, picture in batch])
        for (image, _), detections in zip(batch, results, strict=True):
            found[image] = detections.to("cpu").affine(float(reduction), 0.0, 0.0)
        if progress is not None:
            progress(len(batch))
    return found


@dataclass(frozen=True, slots=True)
class _Job:
    """One window cut from one picture, and what its boxes need to find home."""

    image: int
    position: int
    window: Window
    crop: Tensor
    inner: tuple[bool, bool, bool, bool]
    """Whether the left, top, right, bottom side lies inside the picture."""

    def restore(self, found: Detections, *, ratio: float, border: float) -> Detections:
        """Detections of the enlarged window in original pixels, without those cut by its sides."""
        width, height = self.window.width, self.window.height
        local = found.affine(ratio, 0.0, 0.0)
        gaps = torch.cat(
            [local.boxes[:, :2], local.boxes.new_tensor([width, height]) - local.boxes[:, 2:]], 1
        )
        cut = ((gaps < border) & torch.tensor(self.inner)).any(dim=1)
        return local.select(~cut).affine(1.0, self.window.x, self.window.y)


def _windows_of(
    pictures: Iterable[tuple[int, Tensor]], plan: WindowPlan, *, reduction: int, seen: list[int]
) -> Iterator[_Job]:
    """Cut every planned window; notes in ``seen`` the pictures that passed by."""
    for image, picture in pictures:
        seen.append(image)
        height, width = (side * reduction for side in picture.shape[-2:])
        for position, window in enumerate(plan.windows.get(image, ())):
            right, bottom = window.x + window.width, window.y + window.height
            _check_window(image, window, width, height, reduction)
            x, y = window.x // reduction, window.y // reduction
            crop = picture[:, y : bottom // reduction, x : right // reduction]
            inner = (window.x > 0, window.y > 0, right < width, bottom < height)
            # a clone, so that waiting windows do not keep whole pictures in memory
            yield _Job(image, position, window, crop.clone(), inner)


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
