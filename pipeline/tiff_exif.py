"""EXIF data of TIFF files, which libvips neither reads from them nor writes to them.

A TIFF keeps EXIF's tags in its own directory, beside those that say where the pixels are. Only
directories are read here, and written behind the pixels: no picture is decoded or held for it.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image
from PIL.ExifTags import IFD, Base

_PREFIX = b"Exif\0\0"
"""What EXIF data begin with outside TIFF files; a TIFF header follows."""

_CARRIED = frozenset(
    {
        *(Base.DocumentName, Base.ImageDescription, Base.Make, Base.Model, Base.PageName),
        *(Base.Software, Base.DateTime, Base.Artist, Base.HostComputer, Base.Copyright),
        *(Base.Rating, Base.RatingPercent, Base.UniqueCameraModel, Base.CameraSerialNumber),
        *(Base.XPTitle, Base.XPComment, Base.XPAuthor, Base.XPKeywords, Base.XPSubject),
    }
)
"""Tags of the first directory that say something of the picture and nothing of its pixels."""

_GROUPS = (IFD.Exif, IFD.GPSInfo)
"""Tags that lead to directories of their own."""

_LONG8 = 16  # BigTIFF's type of places beyond 4 GiB, for which Pillow writes 32 bits

_FAULTS = (OSError, SyntaxError, ValueError, TypeError, KeyError, AttributeError, struct.error)
"""What Pillow raises on damaged or odd directories."""


class ExifError(ValueError):
    """EXIF data that cannot be read."""


@dataclass(frozen=True)
class _Layout:
    """How one TIFF file is written."""

    order: str
    """Of bytes, as ``struct`` calls it: "<" or ">"."""
    big: bool
    """BigTIFF, whose places have 8 bytes."""

    @property
    def place(self) -> struct.Struct:
        """Of an offset in the file."""
        return struct.Struct(self.order + ("Q" if self.big else "L"))

    @property
    def count(self) -> struct.Struct:
        """Of the number of entries, with which a directory begins."""
        return struct.Struct(self.order + ("Q" if self.big else "H"))

    @property
    def entry(self) -> int:
        """Bytes of an entry: tag, type, number of values, the values or where they are."""
        return 20 if self.big else 12

    @property
    def header(self) -> int:
        """Bytes of the header, which ends with the place of the first directory."""
        return 16 if self.big else 8


def exif_of_tiff(path: Path) -> bytes:
    """EXIF data as other formats embed them; empty for other formats, or where there are none.

    Raises:
        ExifError: they are damaged.
    """
    with path.open("rb") as file:
        layout = _layout_of(file)
        if layout is None:
            return b""
        try:
            told = _told(_exif_at(file, layout))
            return told.tobytes() if len(told) else b""
        except _FAULTS as error:
            raise ExifError(str(error)) from error


def add_exif(path: Path, exif: bytes, size: tuple[int, int]) -> None:
    """Adds EXIF data to a TIFF file; tags that its directory has already stay as they are.

    Args:
        path: a TIFF or BigTIFF file.
        exif: as other formats embed them.
        size: height and width, for data that tell those of the picture.

    Raises:
        ExifError: they are damaged; the file is as it was.
    """
    with path.open("r+b") as file:
        layout = _layout_of(file)
        if layout is None:
            raise ExifError(f"{path} is no TIFF file")
        end = file.seek(0, os.SEEK_END)
        place = end + end % 2  # what directories lead to begins at even places
        try:
            added = _block(exif, size, layout, place)
        except _FAULTS as error:
            raise ExifError(str(error)) from error
        entries = _entries(added, layout) | _entries(_first_directory(file, layout), layout)
        whole = [entries[tag] for tag in sorted(entries)]
        file.seek(end)
        file.write(bytes(end % 2) + added + bytes(len(added) % 2))
        directory = file.tell()
        file.write(b"".join([layout.count.pack(len(whole)), *whole, layout.place.pack(0)]))
        file.seek(layout.header - layout.place.size)
        file.write(layout.place.pack(directory))


def _layout_of(file: BinaryIO) -> _Layout | None:
    magic = file.read(4)
    order = {b"II": "<", b"MM": ">"}.get(magic[:2], "")
    version = magic[2:] if order == "<" else magic[:1:-1]
    kinds = {b"\x2a\0": False, b"\x2b\0": True}
    return _Layout(order, kinds[version]) if order and version in kinds else None


def _exif_at(file: BinaryIO, layout: _Layout) -> Image.Exif:
    found = Image.Exif()
    found.endian, found.bigtiff = layout.order, layout.big
    found.load_from_fp(file, _first_place(file, layout))
    return found


def _told(found: Image.Exif) -> Image.Exif:
    """What is carried, apart from the file it comes from."""
    told = Image.Exif()
    for tag in _CARRIED & set(found):
        told[tag] = found[tag]
    for group in _GROUPS:
        # Of what leads further only a rule for naming files is left, that of cameras' disks.
        if inside := {k: v for k, v in found.get_ifd(group).items() if k != IFD.Interop}:
            told[group] = inside
    return told


def _block(exif: bytes, size: tuple[int, int], layout: _Layout, place: int) -> bytes:
    """A directory of EXIF data with all that it leads to, to stand at ``place``."""
    found = Image.Exif()
    found.load(exif)
    told = _told(found)
    inside = told.get(IFD.Exif, {})
    for tag, side in zip((Base.ExifImageHeight, Base.ExifImageWidth), size, strict=True):
        if tag in inside:
            inside[tag] = side
    told.endian, told.bigtiff = layout.order, layout.big
    return told.tobytes(place)[len(_PREFIX) + layout.header :]


def _first_place(file: BinaryIO, layout: _Layout) -> int:
    file.seek(layout.header - layout.place.size)
    return int(layout.place.unpack(file.read(layout.place.size))[0])


def _first_directory(file: BinaryIO, layout: _Layout) -> bytes:
    file.seek(_first_place(file, layout))
    count = file.read(layout.count.size)
    return count + file.read(layout.entry * layout.count.unpack(count)[0])


def _entries(directory: bytes, layout: _Layout) -> dict[int, bytes]:
    """The entries of a directory by their tags."""
    (count,) = layout.count.unpack_from(directory)
    start, length = layout.count.size, layout.entry
    found = (directory[start + i * length :][:length] for i in range(count))
    kind = struct.Struct(layout.order + "HH")
    entries = {}
    for entry in found:
        tag, _ = kind.unpack_from(entry)
        wide = layout.big and tag in _GROUPS
        entries[tag] = kind.pack(tag, _LONG8) + entry[kind.size :] if wide else entry
    return entries
