r"""``srdet levels``: pictures of 16 bits, floating point or many bands become 8-bit grey or RGB.

    srdet levels --pictures frames/ --out frames8/ --between 28000 31000
    srdet levels --pictures scenes/ --out scenes8/ --bands 3 2 1

All pictures are mapped by one range, so that a value keeps its meaning from picture to picture.
They keep their names and folders, so that their annotation file stays as it is.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.encode import format_of, keeps_depth
from pipeline.files import atomic_file
from pipeline.options import run_function
from pipeline.picture_files import PictureError
from pipeline.places import Existing, make_folder, places_for, without_existing
from pipeline.progress import bar, console
from pipeline.raster import open_values

if TYPE_CHECKING:
    import pyvips

_ALONE = 3
"""Side of the median before a range is looked for: dead pixels stand alone, objects do not."""


def main(words: list[str]) -> None:
    """The command."""
    run_function(levels, words, name="levels")


def levels(
    pictures: list[Path],
    out: Path,
    *,
    between: list[float] | None = None,
    bands: list[int] | None = None,
    existing: Existing = "error",
) -> tuple[float, float]:
    """Maps pictures of any depth and any bands to 8-bit grey or RGB, all by one range.

    Args:
        pictures: folders (all levels) or files, TIFF or PNG.
        out: folder for the mapped pictures, upright, under their names and sub-folders.
        between: the two values that become black and white; what lies outside is cut. Without it
            the lowest and highest of all the pictures, single dead pixels left aside, and it is
            said which: give them for further pictures of the same camera, as those that a detector
            is tested on.
        bands: one band (grey), or three (red, green, blue), counted from 1. Without it the only
            one, or the first three of three.
        existing: what to do where a result stands already.

    Returns:
        The range.
    """
    places = without_existing(places_for(pictures, out, "same"), existing)
    if other := [path for path in places if not keeps_depth(path)]:
        raise PictureError(f"{other[0]}: TIFF and PNG alone hold more than 8 bits; leave it out")
    chosen = {path: _bands(open_values(path), bands, path) for path in places}
    low, high = _range(between) if between else _extremes(chosen.values())
    make_folder(out)
    with bar("mapping to 8 bits", len(places)) as advance:
        for path, place in places.items():
            _write((chosen[path] - low) * (255 / (high - low)), place)
            advance(1)
    console.print(
        f"{len(places)} pictures in {out}; black is {low:g}, white {high:g} (for further pictures: "
        f"--between {low:g} {high:g})",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    return low, high


def _range(between: Sequence[float]) -> tuple[float, float]:
    if len(between) != 2 or not between[0] < between[1]:
        raise ValueError(
            f"--between takes two values, the lower first, got {' '.join(map(str, between))}"
        )
    return between[0], between[1]


def _bands(image: "pyvips.Image", bands: Sequence[int] | None, path: Path) -> "pyvips.Image":
    there = image.bands
    if bands is None:
        if there not in (1, 3):
            raise PictureError(
                f"{path} has {there} bands; say which are red, green and blue (--bands 3 2 1), or "
                "which one is grey (--bands 1)"
            )
        return image
    if len(bands) not in (1, 3) or not all(1 <= band <= there for band in bands):
        raise ValueError(
            f"--bands {' '.join(map(str, bands))}: one or three of the bands 1 to {there} of {path}"
        )
    first, *others = (image[band - 1] for band in bands)
    return first.bandjoin(others) if others else first


def _extremes(images: Iterable["pyvips.Image"]) -> tuple[float, float]:
    """Not percentiles: small objects are fewer pixels than any share that would leave noise out."""
    calm = [image.median(_ALONE) for image in images]
    low, high = min(image.min() for image in calm), max(image.max() for image in calm)
    if not low < high:
        raise ValueError(f"all values are {low:g}; give the range with --between LOW HIGH")
    return float(low), float(high)


def _write(image: "pyvips.Image", place: Path) -> None:
    kind = "srgb" if image.bands == 3 else "b-w"
    eight = image.rint().cast("uchar").copy(interpretation=kind)
    with atomic_file(place) as temporary:
        if format_of(place) == "TIFF":
            eight.tiffsave(str(temporary), compression="deflate", tile=True, keep="icc")
        else:
            eight.pngsave(str(temporary), keep="icc")
