"""Reading and writing pictures: every kind people have, one clear error where it cannot be.

In memory a picture is a uint8 tensor ``(3, H, W)``, RGB, upright.
"""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.depth import to_eight
from pipeline.files import atomic_file
from pipeline.picture_files import SUFFIXES, PictureError, lies_deep, open_upright
from pipeline.raster import read_values


def read_picture(source: Path | bytes, *, name: str = "", max_pixels: int | None = None) -> Tensor:
    """Reads any picture as upright 8-bit RGB.

    Grey is replicated, an alpha channel is dropped, CMYK and palettes are converted, 16 bits are
    scaled to 8, and the EXIF orientation is applied. Of several frames the first is read.

    Args:
        source: a file, or its bytes.
        name: how errors call it; the path by default.
        max_pixels: larger pictures are refused before they are decoded; None is ``MAX_PIXELS``,
            for commands without an option that would raise it.

    Returns:
        uint8 ``(3, H, W)``.

    Raises:
        PictureError: empty, not a picture, truncated, too large, of 32-bit values, whose range the
            file does not say, or of 16-bit ones of which 8 bits would keep hardly any.
        FileNotFoundError: no such file.
    """
    name = name or str(source if isinstance(source, Path) else "picture")
    return _read8(source, name, max_pixels).expand(3, -1, -1).contiguous()


def read_grey_or_rgb(path: Path) -> Tensor:
    """As ``read_picture``, but a grey file stays one channel: ``(1, H, W)`` or ``(3, H, W)``.

    The papers' protocol compares grey pictures as they are and colour pictures by their luma.
    """
    return _read8(path, str(path), None).contiguous()


def _read8(source: Path | bytes, name: str, max_pixels: int | None) -> Tensor:
    """uint8 ``(1, H, W)`` of a grey file, ``(3, H, W)`` of others."""
    if lies_deep(source, name):
        pixels = to_eight(read_values(source, name, max_pixels), name)
        return torch.from_numpy(pixels).permute(2, 0, 1)
    picture = open_upright(source, name, max_pixels)
    if picture.mode in ("I", "F", "LAB"):
        raise PictureError(
            f"{name} holds values that are neither 8- nor 16-bit grey or RGB (Pillow's mode "
            f"'{picture.mode}'); `srdet levels` maps the range that you mean to 8 bits"
        )
    grey = picture.mode in ("1", "L", "LA")
    pixels = np.atleast_3d(np.array(picture.convert("L" if grey else "RGB")))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def write_picture(picture: Tensor, path: Path) -> None:
    """Writes a picture atomically; the format follows the suffix.

    Args:
        picture: ``(3, H, W)`` uint8, or float in [0, 1] (rounded).
        path: where to; PNG, JPEG (quality 95), WebP (lossless), TIFF or BMP.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"cannot write {path}: unknown picture suffix; choose from {', '.join(SUFFIXES)}"
        )
    image = Image.fromarray(to_uint8(picture).permute(1, 2, 0).cpu().numpy())
    kind = Image.registered_extensions()[path.suffix.lower()]
    with atomic_file(path) as temporary:
        if kind == "WEBP":
            image.save(temporary, kind, lossless=True)
        else:
            image.save(temporary, kind, quality=95)  # of JPEG; the other formats have none


def png(picture: Tensor) -> bytes:
    """A picture ``(3, H, W)``, uint8 or float in [0, 1] (rounded), as the bytes of a PNG file."""
    written = io.BytesIO()
    Image.fromarray(to_uint8(picture).permute(1, 2, 0).cpu().numpy()).save(written, "PNG")
    return written.getvalue()


def to_uint8(picture: Tensor) -> Tensor:
    """Float [0, 1] to uint8, rounded to nearest; uint8 passes."""
    if picture.dtype == torch.uint8:
        return picture
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8)


def to_float(picture: Tensor) -> Tensor:
    """uint8 to float32 in [0, 1]; float passes."""
    return picture.float().div(255) if picture.dtype == torch.uint8 else picture
