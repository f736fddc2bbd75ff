"""Picture files as they lie on a disk: found, measured by their headers, opened upright, refused.

What is in them, as tensors: ``pictures.py``.
"""

import contextlib
import functools
import io
import logging
import re
import struct
import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

logger = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

MAX_PIXELS = 200_000_000
"""Pictures above this are refused: a small file may claim a size that fills the memory."""

# Pillow's own limit cannot be raised per picture and warns below ours; check_size stands for it.
Image.MAX_IMAGE_PIXELS = None


class PictureError(ValueError):
    """A picture file that cannot be read; the message names the file and the cure."""


def find_pictures(paths: Sequence[Path]) -> list[Path]:
    """Picture files under folders (all levels, sorted) and the files named themselves.

    What is hidden in a folder is left out (folders of thumbnails, the "._" companions that some
    systems put beside each picture); a picture reached twice is given once.

    Raises:
        FileNotFoundError: a path is missing, or there is no picture at all.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"no such file or folder: {path}")
        for picture in files_inside(path, SUFFIXES) if path.is_dir() else [path]:
            found.setdefault(picture.resolve(), picture)
    if not found:
        raise FileNotFoundError(
            f"no pictures in {', '.join(map(str, paths))}; pictures end in {', '.join(SUFFIXES)}"
        )
    return list(found.values())


def files_inside(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Files of these kinds in a folder, all levels, sorted; what is hidden is left out."""
    files = (p for p in folder.rglob("*") if p.suffix.lower() in suffixes and p.is_file())
    hidden = re.compile(r"(^|/)\.")
    return sorted(p for p in files if not hidden.search(p.relative_to(folder).as_posix()))


def open_upright(source: Path | bytes, name: str, max_pixels: int | None) -> Image.Image:
    """The decoded picture in Pillow's own modes, upright.

    Raises:
        PictureError: as ``read_picture``.
        FileNotFoundError: no such file.
    """
    try:
        # By its name Pillow would map an uncompressed TIFF, and scramble it where it is turned.
        with (
            _telling_damaged_exif(name),
            io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file,
            Image.open(file) as opened,
        ):
            check_size(*opened.size, name, max_pixels)
            upright = ImageOps.exif_transpose(opened)
            upright.load()
            return upright
    except (FileNotFoundError, PictureError):
        raise
    except UnidentifiedImageError as error:
        raise PictureError(
            f"{name} is not a picture that can be read; replace or remove it"
        ) from error
    except PermissionError as error:
        raise PictureError(f"{name} may not be read; change its permissions") from error
    except _DAMAGE as error:
        raise PictureError(f"{name} is damaged ({error}); replace or remove it") from error


@contextlib.contextmanager
def _telling_damaged_exif(name: str) -> Iterator[None]:
    """What Pillow warns of in its own terms, as one line that names the file."""
    with warnings.catch_warnings(record=True) as said:
        warnings.filterwarnings("always", module=_EXIF_READER)
        yield
    ours = [each for each in said if Path(each.filename).stem == _EXIF_READER.rpartition(".")[2]]
    for other in said:
        if other not in ours:
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    if ours:
        _tell_damaged_exif(name, str(ours[0].message).strip())


_EXIF_READER = "PIL.TiffImagePlugin"
"""Pillow's module that reads EXIF data, which have the form of a TIFF file."""


@functools.lru_cache(maxsize=4096)  # headers are read before pictures, and pictures again
def _tell_damaged_exif(name: str, said: str) -> None:
    logger.warning(
        "%s: its EXIF data are damaged (%s) and used as far as they can be read; look whether the "
        "picture lies on its side", name, said,
    )  # fmt: skip


def upright_size(path: Path) -> tuple[int, int]:
    """Height and width of the upright picture, by its header alone.

    Raises:
        PictureError: not a picture, or a damaged header.
        FileNotFoundError: no such file.
    """
    return header(path)[0]


def header(path: Path) -> tuple[tuple[int, int], int]:
    """Height and width of the upright picture, and the EXIF orientation of the stored one.

    Raises:
        PictureError: not a picture, or a damaged header.
        FileNotFoundError: no such file.
    """
    try:
        with _telling_damaged_exif(str(path)), Image.open(path) as opened:
            width, height = opened.size
            # Behind the pixels of a PNG, where hardly one has any, Pillow looks by decoding them.
            told = opened.format != "PNG" or "exif" in opened.info
            orientation = opened.getexif().get(ExifTags.Base.Orientation, 1) if told else 1
            stored = opened.format != "TIFF"  # of which Pillow gives the upright size
    except FileNotFoundError:
        raise
    except _DAMAGE as error:
        raise PictureError(f"{path} is damaged ({error}); replace or remove it") from error
    on_its_side = stored and orientation in _ON_THEIR_SIDE
    return (width, height) if on_its_side else (height, width), orientation


_ON_THEIR_SIDE = (5, 6, 7, 8)
"""EXIF's orientations that exchange rows and columns."""

_DAMAGE = (OSError, SyntaxError, EOFError, ValueError, TypeError, struct.error)
"""What Pillow raises on damaged files; the last two come of damaged EXIF data."""


def check_size(width: int, height: int, name: str, max_pixels: int | None) -> None:
    """Raises PictureError for a picture above the limit, before anything is decoded.

    Args:
        width: of the picture.
        height: of the picture.
        name: how the error calls it.
        max_pixels: the limit; None is ``MAX_PIXELS``, and no option is named that would raise it.
    """
    limit = MAX_PIXELS if max_pixels is None else max_pixels
    if width * height > limit:
        cure = "" if max_pixels is None else " or raise --max_pixels"
        raise PictureError(
            f"{name} has {width} x {height} = {width * height / 1e6:.0f} megapixels, more than the "
            f"limit of {limit / 1e6:.0f}; cut it into pieces{cure}"
        )


def lies_deep(source: Path | bytes, name: str) -> bool:
    """Whether a file has 16 bits, of which Pillow clips or cuts most, or bands that it lacks."""
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            begins = file.read(4)
            file.seek(0)
            with _telling_damaged_exif(name), Image.open(file) as opened:
                return ";16" in f"{opened.mode} {opened.tile}" and opened.mode != "I"
    except UnidentifiedImageError:
        return begins in _TIFF
    except _DAMAGE:
        return False  # it is told in full where it is read


_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How TIFF and BigTIFF files begin."""
