"""``srdet upscale``: pictures, folders and videos, enlarged.

srdet upscale --model runs/srresnet/net.safetensors --pictures photos/ a.png --out enlarged/
srdet upscale --model runs/vespcn/net.safetensors --pictures film.mp4 --out enlarged/

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
from pipeline.options import run_function
from pipeline.pictures import MAX_PIXELS, PictureError
from pipeline.places import Existing, Suffix, make_folder, places_for, without_existing
from pipeline.progress import bar, console
from pipeline.raster import EXIF, PROFILE, Raster, open_raster
from pipeline.upscale_clips import Limits, enlarge_clips, parted, places_of_videos
from pipeline.upscalers import Precision, Upscaler, bicubic, of_pictures, open_upscaler
from pipeline.world import best_device
from sr_module.tiles import best_tile, count_parts, upscale_parts

logger = logging.getLogger(__name__)

_UNCUT = 2**20
"""Tile for the upscaler itself: pieces are cut here, and come to it with their context."""

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


def main(words: list[str]) -> None:
    """The command."""
    run_function(upscale, words, name="upscale")


def upscale(
    model: str,
    pictures: list[Path],
    out: Path,
    *,
    scale: int | None = None,
    precision: Precision = "auto",
    tile: int | None = None,
    clips: bool = False,
    repeat_still: bool = False,
    suffix: Suffix = "same",
    quality: int = 16,
    existing: Existing = "error",
    max_pixels: int = MAX_PIXELS,
) -> int:
    """Enlarges pictures and videos with a network or a kernel; what cannot be read is skipped.

    Results are upright and keep colour profile, EXIF, resolution, transparency, grey, and 16 bits
    where the format holds them; what one loses is told. Transparency is enlarged bicubically. Of
    several frames in one picture the first is enlarged. Videos keep their times and, copied, their
    sound.

    Args:
        model: a trained network of ``srdet models``, a file of weights (ours, or a published one)
            or of ``srdet export`` (.onnx), one of MLflow's registry (models:/NAME@ALIAS),
            "mix:PSNR+GAN@ALPHA" between two networks, or "bicubic", "lanczos", "bilinear",
            "nearest".
        pictures: folders (all levels) or files, pictures or videos; those that cannot be read are
            named and skipped, and the exit status is 0 if any result was written.
        out: folder for the enlarged pictures and videos, under their names and sub-folders.
        scale: enlargement of a kernel; a network knows its own.
        precision: in which a network computes; auto takes bf16 where the hardware multiplies it
            natively, and fp32 for pictures of 16 bits. int8 is for SRCNN and ESPCN on CPUs.
        tile: low-resolution side of the pieces of large pictures; chosen by size without it.
        clips: the pictures of each folder are frames in the order of their names, for a network of
            several frames; results are 8-bit pictures again.
        repeat_still: let a network of several frames enlarge single pictures, as if nothing moved,
            and clips shorter than it reads.
        suffix: file format of the enlarged pictures; EXIF, colour profile and resolution (72 dpi
            where none is stated) go with them, except into BMP.
        quality: of videos, x264's constant rate factor: 0 (lossless) to 51.
        existing: what to do where a result stands already: stop before any work, keep it, or
            replace it.
        max_pixels: larger pictures are skipped.

    Returns:
        How many were written.

    Raises:
        ValueError: nothing could be read, two results would have one name, a result is too large
            for its format, or the network's output is not a number.
        FileExistsError: results exist, and ``existing`` is "error".
        NoSpaceError: the disk is full.
    """
    open_model: Callable[[Precision], Upscaler] = functools.cache(
        lambda precision: open_upscaler(model, scale=scale, precision=precision, tile=_UNCUT)
    )
    open_model(precision)

    def open_still(precision: Precision) -> Upscaler:
        return of_pictures(open_model(precision), repeat_still=repeat_still)

    _check_settings(tile, quality)
    with_pictures, videos = parted(pictures)
    places = places_for(with_pictures, out, suffix) | places_of_videos(videos, out)
    missing = without_existing(places, existing)
    if not missing:
        console.print(f"all {len(places)} results exist in {out}", highlight=False)
        return 0
    moving = {path: place for path, place in missing.items() if clips or path in videos}
    stills = {path: place for path, place in missing.items() if path not in moving}
    jobs = _survey(stills, open_still(precision), tile, max_pixels) if stills else []
    make_folder(out)
    deep: Precision = "fp32" if precision == "auto" else precision
    written = _enlarge_all(jobs, lambda job: open_still(deep if job.depth == 16 else precision))
    if moving:
        upscaler = open_upscaler(model, scale=scale, precision=precision, tile=tile)
        try:
            written += enlarge_clips(moving, upscaler, Limits(quality, max_pixels, repeat_still))
        except PictureError as error:
            if not written:
                raise ValueError(f"nothing was written to {out}: {error}") from error
            logger.warning("skipped: %s", error)
    return _told(written, len(missing), len(places), out)


def _told(written: int, asked: int, found: int, out: Path) -> int:
    """Prints how many were written.

    Raises:
        ValueError: none.
    """
    if not written:
        raise ValueError(f"none of {asked} pictures could be read; nothing was written to {out}")
    kept = f", {found - asked} kept" if asked < found else ""
    console.print(f"{written} of {asked} pictures written to {out}{kept}", highlight=False)
    return written


def _check_settings(tile: int | None, quality: int) -> None:
    if tile is not None and tile < 1:
        raise ValueError(f"--tile must be at least 1 pixel, got {tile}")
    if not 0 <= quality <= 51:
        raise ValueError(f"--quality {quality}: from 0 (lossless) to 51")


def _survey(
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


def _enlarge_all(jobs: Sequence[Job], upscaler_for: Callable[[Job], Upscaler]) -> int:
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
