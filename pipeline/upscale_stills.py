"""Enlarging pictures, each from file to file.

One picture is decoded and another encoded while the network works on a third; each passes in
bands of rows, so that the memory taken does not grow with the height of the pictures.
"""

import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.encode import (
    RowWriter,
    keeps_alpha,
    keeps_depth,
    keeps_grey,
    keeps_metadata,
    too_large_for,
)
from pipeline.picture_files import PictureError
from pipeline.progress import bar
from pipeline.raster import EXIF, PROFILE, Raster, open_raster
from pipeline.upscalers import Upscaler, bicubic
from pipeline.world import best_device
from sr_module.tiles import best_tile, count_parts, upscale_parts

logger = logging.getLogger(__name__)

_ALPHA_OVERLAP = 4
"""Pixels of context that the bicubic enlargement of alpha needs at most."""


@dataclass(frozen=True)
class Job:
    """One picture to enlarge, known by its header."""

    path: Path
    place: Path
    size: tuple[int, int]
    """Height and width."""
    depth: int
    """Bits a value of the result."""
    tile: int
    parts: int


def survey(
    places: Mapping[Path, Path], upscaler: Upscaler, tile: int | None, max_pixels: int
) -> list[Job]:
    """Reads all headers: what is there, what it will change on the way, whether it fits.

    Raises:
        ValueError: a result is too large for its format.
    """
    jobs: list[Job] = []
    told: dict[str, list[Path]] = {}
    device = best_device()
    for path, place in places.items():
        try:
            raster = open_raster(path, max_pixels=max_pixels)
        except PictureError as error:
            logger.warning("skipped: %s", error)
            continue
        for change in _changes(raster, place):
            told.setdefault(change, []).append(path)
        side = tile or best_tile(
            *raster.size, device, overlap=upscaler.overlap, banded=upscaler.banded
        )
        parts = count_parts(raster.size, side, upscaler.multiple_of)
        depth = raster.depth if keeps_depth(place) else 8
        jobs.append(Job(path, place, raster.size, depth, side, parts))
    _check_fit(jobs, upscaler.scale)
    for change, paths in told.items():
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        logger.warning("%s%s: %s", paths[0], more, change)
    return jobs


def _changes(raster: Raster, place: Path) -> Iterator[str]:
    """What of a picture its result will not have."""
    if raster.frames > 1:
        yield "several frames; the first is enlarged"
    if raster.depth == 16 and not keeps_depth(place):
        yield f"16 bits become 8, the most that {place.suffix} holds; --suffix png keeps them"
    if raster.alpha and not keeps_alpha(place):
        yield f"laid on white, as {place.suffix} holds no transparency; --suffix png keeps it"
    if raster.colours == 1 and not keeps_grey(place):
        yield f"grey becomes RGB, as {place.suffix} holds no grey; --suffix png keeps it"
    if not keeps_metadata(place) and {EXIF, PROFILE} & set(raster.image.get_fields()):
        yield f"{place.suffix} holds no EXIF data and no colour profile; --suffix png keeps them"


def _check_fit(jobs: Sequence[Job], scale: int) -> None:
    for job in jobs:
        height, width = (scale * side for side in job.size)
        if why := too_large_for(job.place, height, width):
            raise ValueError(
                f"{job.path} would become {width} x {height} pixels, and {why}; nothing was "
                "written: choose --suffix png or --suffix tiff"
            )


def enlarge_all(jobs: Sequence[Job], upscaler_for: Callable[[Job], Upscaler]) -> int:
    """Enlarges all, decoding one picture ahead and encoding one behind."""
    if not jobs:
        return 0
    scale, total = upscaler_for(jobs[0]).scale, sum(job.parts for job in jobs)
    many = f"{len(jobs)} pictures" if len(jobs) > 1 else "1 picture"
    pieces = f"{total} pieces" if total > 1 else "1 piece"
    what = f"enlarging {many} {scale} times, in {pieces}"
    pending: list[Future[None]] = []
    with (
        ThreadPoolExecutor(1) as decoder,
        ThreadPoolExecutor(1) as encoder,
        bar(what, total) as advance,
    ):
        for job, opened in _decoded_ahead(jobs, decoder):
            try:
                raster = opened.result()
            except PictureError as error:
                logger.warning("skipped: %s", error)
                advance(job.parts)
                continue
            pending.append(_enlarge(job, raster, upscaler_for(job), encoder, advance))
            _raise_failures(pending)
    _raise_failures(pending)
    return len(pending)


def _decoded_ahead(
    jobs: Sequence[Job], decoder: ThreadPoolExecutor
) -> Iterator[tuple[Job, "Future[Raster]"]]:
    """Each job with its picture, of which the next is decoded meanwhile."""
    coming = decoder.submit(_decode, jobs[0])
    for job, following in zip(jobs, [*jobs[1:], None], strict=True):
        opened = coming
        opened.exception()  # waits: two decoded pictures at a time are enough
        if following is not None:
            coming = decoder.submit(_decode, following)
        yield job, opened


def _decode(job: Job) -> Raster:
    height, width = job.size
    return open_raster(job.path, max_pixels=height * width).decode()


def _raise_failures(pending: Sequence["Future[None]"]) -> None:
    for written in pending:
        if written.done():
            written.result()


def _enlarge(
    job: Job,
    raster: Raster,
    upscaler: Upscaler,
    encoder: ThreadPoolExecutor,
    advance: Callable[[int], None],
) -> "Future[None]":
    """Sends the picture through the upscaler to its file, which is whole when the future is done.

    Raises:
        ValueError: the network's output is not a number.
    """
    scale, channels = upscaler.scale, raster.image.bands
    height, width = (scale * side for side in raster.size)
    parts = upscale_parts(
        functools.partial(_run, upscaler, raster.colours),
        raster.read,
        raster.size,
        scale=scale,
        tile=job.tile,
        overlap=max(upscaler.overlap, _ALPHA_OVERLAP),
        multiple_of=upscaler.multiple_of,
    )
    with RowWriter(job.place, (height, width), channels, raster, encoder) as writer:
        try:
            for _, columns, sr in parts:
                if columns.start == 0:
                    band = np.empty((sr.shape[-2], width, channels), writer.dtype)
                band[:, scale * columns.start : scale * columns.stop] = _levels(sr, writer.dtype)
                if scale * columns.stop == width:
                    writer.put(band)
                advance(1)
        except FloatingPointError as error:
            raise ValueError(f"{upscaler.name} fails on {job.path}: {error}") from error
    return writer.written


def _run(upscaler: Upscaler, colours: int, lr: Tensor) -> Tensor:
    """Colours by the upscaler, of which a grey picture has three alike; alpha bicubically."""
    colour, alpha = lr[:, :colours], lr[:, colours:]
    sr = upscaler(colour.expand(-1, 3, -1, -1) if colours == 1 else colour)
    if colours == 1:
        sr = sr.mean(1, keepdim=True)
    return torch.cat([sr, bicubic(alpha, upscaler.scale)], 1) if alpha.shape[1] else sr


def _levels(sr: Tensor, dtype: np.dtype[np.generic]) -> np.ndarray:
    """Floats ``(1, channels, h, w)`` to rounded integers ``(h, w, channels)``."""
    most = 255 if dtype.itemsize == 1 else 65535
    levels = sr[0].permute(1, 2, 0).mul(most).clamp_(0, most).round_()
    return levels.to(torch.uint8 if most == 255 else torch.int32).numpy()
