"""Pictures beside what an annotation file says of them: boxes are of one size and one way up."""

import logging
from collections.abc import Sequence
from pathlib import Path

from pipeline.picture_files import PictureError, header
from pipeline.raster import open_raster
from pipeline.vast import LARGEST

logger = logging.getLogger(__name__)

_UNTOLD_BY_SIZE = (2, 3, 4)
"""EXIF's orientations that turn a picture and keep its width and height."""

_KEEP_AS_STORED = (
    "take the tag away (exiftool -Orientation= FILE) if they are of it as it is stored"
)


def check_annotated_size(path: Path, size: tuple[int, int], said: tuple[int, int]) -> None:
    """Refuses a picture that has another size than its boxes were drawn in.

    Args:
        path: of the picture, for the message.
        size: width and height of the upright picture.
        said: width and height in its annotation file.

    Raises:
        PictureError: they differ.
    """
    if size == said:
        return
    if size == said[::-1]:
        cure = f"its EXIF data may turn it by 90 degrees: {_KEEP_AS_STORED}"
    else:
        cure = "annotate the picture again, or give the pictures that were annotated"
    raise PictureError(
        f"{path} is {size[0]} x {size[1]} pixels when upright, its annotation says "
        f"{said[0]} x {said[1]}, so its boxes would be wrong; {cure}"
    )


def check_annotated(pictures: Sequence[tuple[Path, tuple[int, int]]]) -> None:
    """Compares all pictures, by their headers, with the width and height annotated.

    Of pictures that EXIF data turn by 180 degrees or mirror, no size tells which way up they were
    annotated: these are told.

    Raises:
        PictureError: one differs, or is no picture; says how many differ.
    """
    wrong: list[PictureError] = []
    turned: list[Path] = []
    for path, said in pictures:
        (height, width), orientation = _header(path)
        try:
            check_annotated_size(path, (width, height), said)
        except PictureError as error:
            wrong.append(error)
        if orientation in _UNTOLD_BY_SIZE:
            turned.append(path)
    if wrong:
        more = f" ({len(wrong)} of {len(pictures)} pictures are not as annotated)" * (
            len(wrong) > 1
        )
        raise PictureError(f"{wrong[0]}{more}")
    if turned:
        logger.warning(
            "%d of %d pictures are turned by 180 degrees or mirrored by their EXIF data, the first "
            "is %s: their boxes are taken as of the upright picture; %s",
            len(turned), len(pictures), turned[0], _KEEP_AS_STORED,
        )  # fmt: skip


def _header(path: Path) -> tuple[tuple[int, int], int]:
    try:
        return header(path)
    except PictureError:  # a kind that Pillow lacks, as of four bands of 16 bits, or no picture
        return open_raster(path, max_pixels=LARGEST).size, 1
