"""What 8 bits keep of deeper values: frames of a thermal camera use 3,000 of 65,536."""

from pathlib import Path

import numpy as np

from pipeline.picture_files import PictureError
from pipeline.raster import Raster

LEVELS = 32
"""Of the 256 of 8 bits. Where values span fewer, scaling them would lose what the picture shows."""

_DEAD = 0.001
"""Share of the values at either end that may be dead pixels and count for nothing."""

_ENOUGH = 1_000_000
"""Values of a picture that tell its range."""

_PIECE, _A_SIDE = 256, 4
"""Side of the pieces of a picture that is not read whole, and how many of them stand in a row."""


def check_levels(values: np.ndarray, name: str) -> None:
    """Refuses 16-bit values of which 8 bits, the whole range scaled, would keep hardly any.

    Args:
        values: uint16, of any shape.
        name: of the picture.

    Raises:
        PictureError: they span fewer than ``LEVELS`` of 8 bits, and more of their own.
    """
    counts = np.bincount(values.ravel()[:: max(1, values.size // _ENOUGH)])
    share = counts.cumsum() / counts.sum()
    low, high = (int(np.searchsorted(share, bound)) for bound in (_DEAD, 1 - _DEAD))
    kept = round(high / 257) - round(low / 257) + 1
    if kept < LEVELS and np.count_nonzero(counts[low : high + 1]) > 2 * kept:
        raise PictureError(
            f"{name} has 16-bit values from {low} to {high}, of which 8 bits would keep {kept} "
            "levels; map all pictures to 8 bits by one range first: "
            "`srdet levels --pictures FOLDER --out OTHER`"
        )


def check_raster(raster: Raster) -> None:
    """``check_levels`` of pieces all over a picture that is not read whole.

    Raises:
        PictureError: as there.
    """
    if raster.depth != 16:
        return
    height, width = raster.size
    pieces = [
        raster.values(slice(y, min(y + _PIECE, height)), slice(x, min(x + _PIECE, width)))
        for y in _starts(height)
        for x in _starts(width)
    ]
    colours = [piece[..., : raster.colours].transpose(2, 0, 1).ravel() for piece in pieces]
    check_levels(np.concatenate(colours), str(raster.path))


def _starts(length: int) -> list[int]:
    return sorted({int(at) for at in np.linspace(0, max(0, length - _PIECE), _A_SIDE)})


def to_eight(values: np.ndarray, path: Path | str) -> np.ndarray:
    """16-bit values scaled to 8 bits; 8-bit ones pass.

    Raises:
        PictureError: as of ``check_levels``.
    """
    if values.dtype == np.uint8:
        return values
    check_levels(values, str(path))
    return np.rint(values * (255 / 65535)).astype(np.uint8)
