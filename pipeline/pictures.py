"""Reading and writing picture files: every kind people have, one clear error where it cannot be.

In memory a picture is a uint8 tensor ``(3, H, W)``, RGB, upright.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from pipeline.files import atomic_file

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

MAX_PIXELS = 200_000_000
"""Pictures above this are refused: a small file may claim a size that fills the memory."""


class PictureError(ValueError):
    """A picture file that cannot be read; the message names the file and the cure."""


def find_pictures(paths: Sequence[Path]) -> list[Path]:
    """Picture files under folders (all levels, sorted) and the files named themselves.

    Raises:
        FileNotFoundError: a path is missing, or there is no picture at all.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"no such file or folder: {path}")
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        found.extend(inside if path.is_dir() else [path])
    if not found:
        raise FileNotFoundError(
            f"no pictures in {', '.join(map(str, paths))}; pictures end in {', '.join(SUFFIXES)}"
        )
    return found


def read_picture(source: Path | bytes, *, name: str = "", max_pixels: int = MAX_PIXELS) -> Tensor:
    """Reads any picture as upright 8-bit RGB.

    Grey is replicated, an alpha channel is dropped, CMYK and palettes are converted, 16 bits are scaled
    to 8, and the EXIF orientation is applied.

    Args:
        source: a file, or its bytes.
        name: how errors call it; the path by default.
        max_pixels: larger pictures are refused before they are decoded.

    Returns:
        uint8 ``(3, H, W)``.

    Raises:
        PictureError: empty, not a picture, truncated, or too large.
    """
    name = name or str(source if isinstance(source, Path) else "picture")
    return torch.from_numpy(_to_rgb8(_open(source, name, max_pixels))).permute(2, 0, 1).contiguous()


def read_grey_or_rgb(path: Path) -> Tensor:
    """As ``read_picture``, but a grey file stays one channel: ``(1, H, W)`` or ``(3, H, W)``.

    The papers' protocol compares grey pictures as they are and colour pictures by their luma.
    """
    picture = _open(path, str(path), MAX_PIXELS)
    rgb = torch.from_numpy(_to_rgb8(picture)).permute(2, 0, 1).contiguous()
    return rgb[:1] if picture.mode in ("1", "L", "LA", "F") or picture.mode[0] == "I" else rgb


def _open(source: Path | bytes, name: str, max_pixels: int) -> Image.Image:
    """The decoded picture, upright."""
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            _check_size(opened, name, max_pixels)
            upright = ImageOps.exif_transpose(opened)
            upright.load()
            return upright
    except UnidentifiedImageError as error:
        raise PictureError(
            f"{name} is not a picture that can be read; replace or remove it"
        ) from error
    except (OSError, SyntaxError, EOFError, ValueError) as error:
        if isinstance(error, PictureError | FileNotFoundError | PermissionError):
            raise
        raise PictureError(f"{name} is damaged ({error}); replace or remove it") from error


def _check_size(opened: Image.Image, name: str, max_pixels: int) -> None:
    width, height = opened.size
    if width * height > max_pixels:
        raise PictureError(
            f"{name} has {width} x {height} = {width * height / 1e6:.0f} megapixels, more than the limit of "
            f"{max_pixels / 1e6:.0f}; cut it into pieces or raise --max_pixels"
        )


def _to_rgb8(picture: Image.Image) -> np.ndarray:
    if picture.mode.startswith("I") or picture.mode == "F":
        # Pillow clips 16-bit values at 255 when it converts them; scale them instead.
        deep = np.asarray(picture, dtype=np.float64)
        top = 65535.0 if deep.max(initial=0.0) > 255 or picture.mode.startswith("I;16") else 255.0
        grey = np.clip(np.rint(deep * (255.0 / top)), 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.array(picture.convert("RGB"))


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


def to_uint8(picture: Tensor) -> Tensor:
    """Float [0, 1] to uint8, rounded to nearest; uint8 passes."""
    if picture.dtype == torch.uint8:
        return picture
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8)


def to_float(picture: Tensor) -> Tensor:
    """uint8 to float32 in [0, 1]; float passes."""
    return picture.float().div(255) if picture.dtype == torch.uint8 else picture
