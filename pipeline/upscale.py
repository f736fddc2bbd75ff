"""``srdet upscale``: pictures and folders, enlarged.

srdet upscale --model runs/srresnet/net.safetensors --pictures photos/ a.png --out enlarged/
"""

import logging
from pathlib import Path
from typing import Literal

from pipeline.options import run_function
from pipeline.pictures import (
    MAX_PIXELS,
    PictureError,
    find_pictures,
    read_picture,
    to_float,
    write_picture,
)
from pipeline.progress import bar, console
from pipeline.upscalers import Precision, open_upscaler

logger = logging.getLogger(__name__)


def main(words: list[str]) -> None:
    """The command."""
    run_function(upscale, words, name="upscale")


def upscale(
    model: str,
    pictures: list[Path],
    out: Path,
    *,
    scale: int | None = None,
    precision: Precision = "fp32",
    tile: int | None = None,
    suffix: Literal["same", "png", "jpg", "webp", "tiff"] = "same",
    max_pixels: int = MAX_PIXELS,
) -> int:
    """Enlarges pictures with a network or a kernel; what cannot be read is skipped and counted.

    Args:
        model: a file of weights (ours, or a published one), "bicubic", "bilinear" or "nearest".
        pictures: folders (all levels) or files.
        out: folder for the enlarged pictures, under their names and sub-folders.
        scale: enlargement of a kernel; a network knows its own.
        precision: in which a network computes.
        tile: low-resolution side of the pieces of large pictures; chosen by size without it.
        suffix: file format of the results.
        max_pixels: larger pictures are skipped.

    Returns:
        How many were written.

    Raises:
        ValueError: nothing could be read, or two results would have one name.
    """
    upscaler = open_upscaler(model, scale=scale, precision=precision, tile=tile)
    places = _places(pictures, out, suffix)
    written = 0
    with bar(f"enlarging {upscaler.scale} times", len(places)) as advance:
        for path, place in places.items():
            try:
                lr = to_float(read_picture(path, max_pixels=max_pixels))[None]
            except PictureError as error:
                logger.warning("skipped: %s", error)
                continue
            finally:
                advance(1)
            write_picture(upscaler(lr)[0], place)
            written += 1
    if not written:
        raise ValueError(
            f"none of {len(places)} pictures could be read; nothing was written to {out}"
        )
    console.print(f"{written} of {len(places)} pictures written to {out}", highlight=False)
    return written


def _places(pictures: list[Path], out: Path, suffix: str) -> dict[Path, Path]:
    """Each picture and where it goes: its place below the folder it was found in.

    Raises:
        ValueError: two results in one place, or one over its own source.
    """
    places: dict[Path, Path] = {}
    taken: dict[Path, Path] = {}
    for given in pictures:
        base = given if given.is_dir() else given.parent
        for path in find_pictures([given]):
            named = path.relative_to(base)
            place = out / (named if suffix == "same" else named.with_suffix(f".{suffix}"))
            if path not in places:
                _refuse_loss(path, place, taken.setdefault(place, path))
                places[path] = place
    return places


def _refuse_loss(path: Path, place: Path, taken_by: Path) -> None:
    if taken_by != path or place.resolve() == path.resolve():
        whose = "itself" if taken_by == path else str(taken_by)
        raise ValueError(
            f"{path} would be written over {whose} ({place}); choose another --out, or enlarge the "
            "folders one by one"
        )
