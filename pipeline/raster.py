"""Picture files in full, for enlarging: 16 bits, transparency, what the file says, any size.

libvips reads them in pieces: a picture that would not fit memory is decoded to a temporary file.
"""

import errno
import functools
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pipeline.files import NoSpaceError
from pipeline.picture_files import PictureError, check_size, open_upright
from pipeline.tiff_exif import ExifError, exif_of_tiff

if TYPE_CHECKING:
    import pyvips

logger = logging.getLogger(__name__)

EXIF = "exif-data"
PROFILE = "icc-profile-data"
"""What libvips calls a picture's EXIF data and its colour profile."""

_LEVELS = {"uchar": 255, "ushort": 65535}

_HOLE = 9
"""Side of the square from which the colours under full transparency are filled, in pixels."""


@dataclass(frozen=True)
class Raster:
    """An opened picture, upright: ``colours`` channels (1 or 3), then alpha if it has any."""

    path: Path
    image: "pyvips.Image"
    colours: int
    frames: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.height, self.image.width

    @property
    def alpha(self) -> bool:
        """Whether the last channel is transparency."""
        return bool(self.image.bands > self.colours)

    @property
    def depth(self) -> int:
        """Bits a value: 8 or 16."""
        return 16 if self.image.format == "ushort" else 8

    def decode(self) -> "Raster":
        """Decodes the file, so that errors come here and not in the middle of the work.

        Raises:
            PictureError: the file is damaged.
            NoSpaceError: no room for the temporary file of a large picture.
        """
        self.read(slice(self.image.height - 1, self.image.height), slice(0, 1))
        return self

    def read(self, rows: slice, columns: slice) -> Tensor:
        """A piece, ``(1, channels, h, w)`` float32 in [0, 1], in channels-last layout."""
        levels = _LEVELS[self.image.format]
        values = torch.from_numpy(self.values(rows, columns))
        return values.float().div_(levels).permute(2, 0, 1)[None]

    def values(self, rows: slice, columns: slice) -> np.ndarray:
        """A piece as it is stored, ``(h, w, channels)``, uint8 or uint16."""
        height, width = rows.stop - rows.start, columns.stop - columns.start
        try:
            piece = self.image.crop(columns.start, rows.start, width, height)
            pixels = piece.write_to_memory()
        except vips().Error as error:
            raise _damaged(self.path, error) from error
        kind = np.uint16 if self.depth == 16 else np.uint8
        return np.ndarray((height, width, self.image.bands), kind, buffer=pixels)


def open_raster(path: Path, *, max_pixels: int, fill: bool = True) -> Raster:
    """Opens a picture by its header; its pixels are decoded when the first are read.

    Orientation is applied. Palettes become RGB, CMYK and Lab become sRGB; grey stays grey.

    Args:
        path: of the picture.
        max_pixels: larger ones are refused.
        fill: where a picture is fully transparent, its invisible colours are replaced by the mean
            of the visible ones around: a network would otherwise spread them (black, mostly) into
            the edges that are seen. Of no use where transparency is dropped.

    Raises:
        PictureError: not a picture, unreadable, too large, or of values without a known range.
    """
    try:
        with path.open("rb"):
            pass
        opened = vips().Image.new_from_file(str(path), access="random", fail_on="error")
        check_size(opened.width, opened.height, str(path), max_pixels)
        frames = opened.get("n-pages") if "n-pages" in opened.get_fields() else 1
        upright = opened.autorot()
    except PermissionError as error:
        raise PictureError(f"{path} may not be read; change its permissions") from error
    except vips().Error:  # a kind that libvips lacks (BMP), or no picture, which Pillow then says
        upright, frames = _through_pillow(path, max_pixels), 1
    return _normalised(path, _with_exif(path, upright), frames, fill=fill)


def read_values(source: Path | bytes, name: str, max_pixels: int | None) -> np.ndarray:
    """The colours of a whole picture, ``(H, W, 1 or 3)``, uint8 or uint16, upright.

    For kinds that Pillow lacks or cuts to 8 bits.

    Raises:
        PictureError: as ``open_raster``.
    """
    path = Path(name)
    try:
        opened = (
            vips().Image.new_from_buffer(source, "", fail_on="error") if isinstance(source, bytes)
            else vips().Image.new_from_file(str(source), fail_on="error")
        )  # fmt: skip
        check_size(opened.width, opened.height, name, max_pixels)
        raster = _normalised(path, opened.autorot(), 1, fill=False)
        values = raster.image[: raster.colours].numpy()
    except vips().Error as error:
        raise _damaged(path, error) from error
    return np.atleast_3d(values)


def open_values(path: Path) -> "pyvips.Image":
    """A picture as it is, of any kind of number and any bands, but upright.

    Raises:
        PictureError: no picture.
    """
    try:
        return vips().Image.new_from_file(str(path), access="random", fail_on="error").autorot()
    except vips().Error as error:
        raise _damaged(path, error) from error


@functools.cache
def vips() -> ModuleType:
    """libvips, set up: without its cache of opened files, which would outlive their overwriting."""
    import pyvips

    pyvips.cache_set_max(0)
    pyvips.voperation.block_untrusted_set(True)  # an SVG or PDF that calls itself .png
    logging.getLogger("pyvips").setLevel(logging.ERROR)
    module: ModuleType = pyvips
    return module


def _through_pillow(path: Path, max_pixels: int) -> "pyvips.Image":
    picture = open_upright(path, str(path), max_pixels)
    if picture.mode not in ("L", "RGB", "RGBA"):
        picture = picture.convert("L" if picture.mode == "1" else "RGB")
    pixels = np.asarray(picture)
    image = vips().Image.new_from_array(
        pixels, interpretation="b-w" if pixels.ndim == 2 else "srgb"
    )
    x, y = (dots / 25.4 for dots in picture.info.get("dpi", (72, 72)))
    return image.copy(xres=x, yres=y)


def _with_exif(path: Path, image: "pyvips.Image") -> "pyvips.Image":
    """The picture with the EXIF data of a TIFF file, which libvips does not read."""
    try:
        exif = exif_of_tiff(path)
    except ExifError as error:
        logger.warning("%s: its EXIF data are damaged (%s) and left out", path, error)
        return image
    if not exif:
        return image
    told = image.copy()
    told.set_type(vips().GValue.blob_type, EXIF, exif)
    return told


def _normalised(path: Path, image: "pyvips.Image", frames: int, *, fill: bool) -> Raster:
    try:
        _check_bands(path, image)
        if image.interpretation not in ("b-w", "grey16", "srgb", "rgb", "rgb16"):
            image = _to_rgb(image)
        if image.format not in _LEVELS or image.interpretation == "multiband":
            raise PictureError(
                f"{path} holds {image.bands} channels of the kind '{image.format}', which are "
                "neither 8- nor 16-bit grey or RGB; `srdet levels` maps the range that you mean"
            )
        colours = 1 if image.bands < 3 else 3
        return Raster(path, _without_holes(image, colours) if fill else image, colours, frames)
    except vips().Error as error:
        raise _damaged(path, error) from error


def _check_bands(path: Path, image: "pyvips.Image") -> None:
    """Refuses bands of which nothing says which are red, green and blue."""
    most = 3 if image.interpretation in ("b-w", "grey16") else 5  # CMYK and transparency
    if image.bands > most:
        raise PictureError(
            f"{path} has {image.bands} bands, and does not say which are red, green and blue; "
            "choose them with `srdet levels --bands 3 2 1`"
        )


def _to_rgb(image: "pyvips.Image") -> "pyvips.Image":
    if image.interpretation == "multiband":
        return image
    space = "rgb16" if image.format == "ushort" else "srgb"
    if image.interpretation == "cmyk" and PROFILE in image.get_fields():
        return image.icc_transform("srgb", embedded=True, depth=16 if space == "rgb16" else 8)
    converted = image.colourspace(space).copy()
    converted.remove(PROFILE)  # it was of the other space
    return converted


def _without_holes(image: "pyvips.Image", colours: int) -> "pyvips.Image":
    """Invisible colours replaced by the mean of the visible around them, weighted by alpha."""
    if image.bands == colours:
        return image
    colour, alpha = image[:colours], image[colours]
    square = vips().Image.new_from_array([[1] * _HOLE] * _HOLE)
    weight = alpha.cast("float")
    near = (colour * weight).conv(square, precision="float") / weight.conv(
        square, precision="float"
    )
    filled = (alpha == 0).ifthenelse(near.rint().cast(image.format), colour)
    return filled.bandjoin(alpha).copy(interpretation=image.interpretation)


def _damaged(path: Path, error: Exception) -> Exception:
    said = " ".join(str(error).split())
    if "No space left" in said:
        return NoSpaceError(
            errno.ENOSPC,
            f"no room to decode {path} in {tempfile.gettempdir()}; free some space, or name a "
            "folder on another disk in TMPDIR",
        )
    return PictureError(f"{path} is damaged ({said}); replace or remove it")
