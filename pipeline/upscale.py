"""``srdet upscale``: pictures, folders and videos, enlarged.

srdet upscale --model runs/srresnet/net.safetensors --pictures photos/ a.png --out enlarged/
srdet upscale --model runs/vespcn/net.safetensors --pictures film.mp4 --out enlarged/

Pictures are enlarged in ``upscale_stills.py``, clips in ``upscale_clips.py``.
"""

import functools
import logging
from collections.abc import Callable
from pathlib import Path

from pipeline.options import run_function
from pipeline.picture_files import MAX_PIXELS, PictureError
from pipeline.places import Existing, Suffix, make_folder, places_for, without_existing
from pipeline.progress import console
from pipeline.upscale_clips import Limits, enlarge_clips, parted, places_of_videos
from pipeline.upscale_stills import enlarge_all, survey
from pipeline.upscalers import Precision, Upscaler, of_pictures, open_upscaler

logger = logging.getLogger(__name__)

_UNCUT = 2**20
"""Tile for the upscaler itself: pieces are cut here, and come to it with their context."""


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
    jobs = survey(stills, open_still(precision), tile, max_pixels) if stills else []
    make_folder(out)
    deep: Precision = "fp32" if precision == "auto" else precision
    written = enlarge_all(jobs, lambda job: open_still(deep if job.depth == 16 else precision))
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
