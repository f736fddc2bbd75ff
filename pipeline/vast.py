"""Pictures too large for memory: their pieces are read as they are asked for.

libvips reads a tiled TIFF (GeoTIFF, BigTIFF) where the piece lies; other kinds of file are decoded
once, to a temporary file. The reduction of a piece equals that piece of the reduction, because it
is made with the pixels around it.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline.depth import check_raster
from pipeline.raster import Raster, open_raster
from sr_module.degrade import AnyDegradation

PIXELS = 64_000_000
"""Pictures of more are read in pieces: as float32 this many take three quarters of a gigabyte."""
LARGEST = 200_000**2
SHEET = 2048
"""Side of the pieces that the first look at a vast picture is made in, in given pixels."""
TAPS = 4
"""Reduced pixels around one that its cubic kernel may reach."""


@dataclass(frozen=True)
class Vast:
    """A picture as a study gives it, ``(3, H, W)`` in [0, 1]: a shape, and pieces by their slices.

    ``degradation`` None gives the original, cut to a multiple of ``multiple``.
    """

    raster: Raster
    multiple: int
    degradation: AnyDegradation | None

    @property
    def shape(self) -> torch.Size:
        """Of the whole, in given pixels."""
        times = 1 if self.degradation is None else self.multiple
        height, width = (side // self.multiple * self.multiple for side in self.raster.size)
        return torch.Size((3, height // times, width // times))

    def __getitem__(self, index: tuple[slice, slice, slice]) -> Tensor:
        """``[:, rows, columns]``: the pixels of a piece."""
        _, rows, columns = index
        _, height, width = self.shape
        rows, columns = slice(*rows.indices(height)), slice(*columns.indices(width))
        if self.degradation is None:
            return self._read(rows, columns)
        assert self.degradation.reach is not None
        around = TAPS + math.ceil(self.degradation.reach / self.multiple)
        tall, wide = _widened(rows, around, height), _widened(columns, around, width)
        original = self._read(_times(tall, self.multiple), _times(wide, self.multiple))
        piece: Tensor = self.degradation(original[None])[0]
        top, left = rows.start - tall.start, columns.start - wide.start
        bottom, right = top + rows.stop - rows.start, left + columns.stop - columns.start
        return piece[:, top:bottom, left:right]

    def _read(self, rows: slice, columns: slice) -> Tensor:
        pixels = self.raster.read(rows, columns)[0, : self.raster.colours]
        # of 16 bits, the nearest of 8, as in pictures that are read whole
        levels = (pixels * 255).round_().div_(255)
        return levels.expand(3, -1, -1).contiguous()


def open_vast(path: Path, multiple: int, degradation: AnyDegradation | None) -> Vast:
    """Opens a picture by its header.

    Raises:
        ValueError: a degradation that is of the whole picture, as noise and JPEG are.
        PictureError: no picture.
    """
    if degradation and degradation.reach is None:
        raise ValueError(
            f"{path} has more than {PIXELS / 1e6:.0f} megapixels and is read in pieces; noise and "
            f"JPEG, like all that is drawn, are of whole pictures: leave noise_sigma and "
            f"jpeg_quality out of the degradation, or cut the picture with `srdet convert --slice`"
        )
    raster = open_raster(path, max_pixels=LARGEST, fill=False)
    check_raster(raster)
    return Vast(raster, multiple, degradation)


def _widened(span: slice, by: int, length: int) -> slice:
    return slice(max(0, span.start - by), min(length, span.stop + by))


def _times(span: slice, factor: int) -> slice:
    return slice(span.start * factor, span.stop * factor)
