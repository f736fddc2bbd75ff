"""Writing enlarged pictures row by row, so that no picture need fit memory.

The rows travel to libvips as an uncompressed PNG stream, the simplest that it reads from outside
without keeping it; a thread encodes while the next rows are computed.
"""

import errno
import logging
import os
import queue
import struct
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from PIL import Image

from pipeline.files import atomic_file
from pipeline.raster import EXIF, Raster, vips
from pipeline.tiff_exif import ExifError, add_exif

if TYPE_CHECKING:
    import pyvips

logger = logging.getLogger(__name__)

_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WebP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}

_SIDES = {"JPEG": 65_500, "WebP": 16_383}
"""Longest sides: libjpeg's own limit, and the 14 bits that WebP has for a side."""

_BMP_BYTES = 2**32  # its header counts them in 32 bits

_THUMBNAIL = "jpeg-thumbnail-data"
_KEPT = (
    *("exif-", "xmp-", "iptc-", "photoshop-", "icc-", "png-comment-", "image-description"),
    _THUMBNAIL,
)
"""What is taken over from the source."""

_UNSTATED = 1.0
"""The dots per millimetre of libvips where a file states none."""
_USUAL = 72
"""The dots per inch that are written then, as most programs assume."""
_INCH = 25.4  # millimetres

_END = b""


def format_of(place: Path) -> str:
    """The format that a suffix names."""
    return _FORMATS[place.suffix.lower()]


def keeps_depth(place: Path) -> bool:
    """Whether the format holds 16 bits a value."""
    return format_of(place) in ("PNG", "TIFF")


def keeps_alpha(place: Path) -> bool:
    """Whether the format holds transparency."""
    return format_of(place) not in ("JPEG", "BMP")


def keeps_grey(place: Path) -> bool:
    """Whether the format holds pictures of one channel."""
    return format_of(place) != "WebP"


def keeps_metadata(place: Path) -> bool:
    """Whether the format holds EXIF data and a colour profile."""
    return format_of(place) != "BMP"


def too_large_for(place: Path, height: int, width: int) -> str:
    """Why the format cannot hold a picture of this size; empty if it can."""
    kind = format_of(place)
    longest = _SIDES.get(kind)
    if longest and max(height, width) > longest:
        return f"{kind} holds at most {longest} pixels a side"
    if kind == "BMP" and 3 * height * width >= _BMP_BYTES:
        return "BMP holds at most 4 GiB"
    return ""


class RowWriter:
    """Takes the rows of one picture from top to bottom while a thread encodes them.

    As a context manager it ends the picture, or on an error throws the unfinished file away; the
    file is whole once ``written`` has its result.
    """

    def __init__(
        self, place: Path, size: tuple[int, int], channels: int, like: Raster, encoder: Executor
    ) -> None:
        """Opens the stream.

        Args:
            place: the file; its suffix is the format.
            size: height and width.
            channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
            like: the source, whose profile, EXIF and resolution are taken over.
            encoder: where the thread comes from.
        """
        self.dtype = np.dtype(">u2" if like.depth == 16 and keeps_depth(place) else "u1")
        self._chunks: queue.Queue[bytes] = queue.Queue(maxsize=1)
        self._zlib = zlib.compressobj(level=0)
        self.written: Future[None] = encoder.submit(_encode, self._chunks, place, like)
        self._put(_png_header(size, channels, self.dtype.itemsize))

    def __enter__(self) -> Self:
        """The writer."""
        return self

    def put(self, rows: np.ndarray) -> None:
        """Adds rows ``(h, width, channels)`` of ``dtype``; waits while the encoder is behind."""
        lines = np.zeros((len(rows), 1 + rows[0].nbytes), np.uint8)  # byte 0: PNG's filter "none"
        lines[:, 1:] = rows.view(np.uint8).reshape(len(rows), -1)
        self._put(_png_chunk(b"IDAT", self._zlib.compress(lines.data)))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the stream; after an error it ends early, which the encoder refuses as damage."""
        if kind is None:
            self._put(_png_chunk(b"IDAT", self._zlib.flush()) + _png_chunk(b"IEND", b""))
        self._put(_END)

    def _put(self, chunk: bytes) -> None:
        while not self.written.done():
            try:
                return self._chunks.put(chunk, timeout=0.1)
            except queue.Full:
                continue
        return None  # the encoder has failed, and ``written`` says why


def _png_header(size: tuple[int, int], channels: int, item: int) -> bytes:
    height, width = size
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]  # PNG's colour types
    header = struct.pack(">IIBBBBB", width, height, 8 * item, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _png_chunk(b"IHDR", header)


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(data, zlib.crc32(kind))
    return b"".join((struct.pack(">I", len(data)), kind, data, struct.pack(">I", checksum)))


def _encode(chunks: "queue.Queue[bytes]", place: Path, like: Raster) -> None:
    """The encoder's thread: reads the stream to its end and writes the file."""
    source = vips().SourceCustom()
    source.on_read(_reader(iter(chunks.get, _END)))
    with atomic_file(place) as temporary:
        try:
            stream = vips().Image.new_from_source(source, "", access="sequential", fail_on="error")
            _save(_described(stream, like), temporary, format_of(place), _to_keep(like))
            if format_of(place) == "TIFF" and EXIF in like.image.get_fields():
                _add_exif(temporary, place, like.image.get(EXIF), (stream.height, stream.width))
        except vips().Error as error:
            _fill_up(temporary)
            raise OSError(errno.EIO, f"{place}: {' '.join(str(error).split())}") from error


def _add_exif(temporary: Path, place: Path, exif: bytes, size: tuple[int, int]) -> None:
    try:
        add_exif(temporary, exif, size)
    except ExifError as error:
        logger.warning(
            "%s: without EXIF data, as those of its source are damaged (%s)", place, error
        )


def _fill_up(path: Path) -> None:
    """Writes a MiB more, which on a full disk fails as it should: libvips does not say why."""
    with path.open("ab") as file:
        file.write(bytes(2**20))
        file.flush()
        os.fsync(file.fileno())


def _reader(chunks: Iterator[bytes]) -> Callable[[int], bytes]:
    """The function by which libvips reads ``size`` bytes at most."""
    rest = memoryview(b"")

    def read(size: int) -> bytes:
        nonlocal rest
        if not rest:
            rest = memoryview(next(chunks, b""))
        piece, rest = rest[:size], rest[size:]
        return bytes(piece)

    return read


def _described(stream: "pyvips.Image", like: Raster) -> "pyvips.Image":
    """The stream with what the source's file says about itself."""
    given = like.image
    x, y = (_USUAL / _INCH if dots == _UNSTATED else dots for dots in (given.xres, given.yres))
    made = stream.copy(xres=x, yres=y)
    for field in given.get_fields():
        if field.startswith(_KEPT):
            made.set_type(given.get_typeof(field), field, given.get(field))
    # An old thumbnail may lie on its side. libvips leaves it out of the EXIF data only where it was
    # there and has been removed.
    made.remove(_THUMBNAIL)
    # The pixels are upright; EXIF data still say how the camera was held.
    made.set_type(vips().GValue.gint_type, "orientation", 1)
    return made


def _to_keep(like: Raster) -> str:
    """All metadata; EXIF data only where there is something to say: libvips would begin some."""
    stated = round(like.image.xres * _INCH) not in (round(_UNSTATED * _INCH), _USUAL)
    exif = stated or EXIF in like.image.get_fields()
    return "xmp:iptc:icc:other" + ":exif" * exif


def _save(image: "pyvips.Image", path: Path, kind: str, keep: str) -> None:
    name = str(path)
    if kind == "PNG":
        # a fifth larger than at zlib's usual level 6, and six times faster
        image.pngsave(name, compression=2, filter="up", keep=keep)
    elif kind == "JPEG":
        image.jpegsave(name, Q=95, background=255, keep=keep)
    elif kind == "WebP":
        image.webpsave(name, lossless=True, keep=keep)
    elif kind == "TIFF":
        large = image.width * image.height * image.bands * 2 > 2**31
        image.tiffsave(name, compression="lzw", predictor="horizontal", bigtiff=large, keep=keep)
    else:
        opaque = image.flatten(background=255) if image.hasalpha() else image
        picture = Image.fromarray(opaque.numpy())  # whole in memory: libvips has no BMP
        picture.save(path, kind, dpi=(image.xres * _INCH, image.yres * _INCH))
