"""JPEG as arithmetic on tensors: on accelerators, and where a gradient must pass.

Written after libjpeg step by step (ITU-T T.81; its integer tables, 4:2:0 chroma by the mean of
four, triangular enlargement of chroma), so that it differs from libjpeg's own result by a level
here and there. Where libjpeg rounds, the gradient passes as if it did not.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

# ITU-T T.81, tables K.1 and K.2, row by row
_LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
_CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
) + (99,) * 32  # fmt: skip

_TIE = 1e-3
"""What decides halves, which float32 hits by chance; other values lie farther from them."""


def quantisation_tables(quality: int) -> Tensor:
    """The tables ``(2, 8, 8)`` of luma and chroma that libjpeg makes of a quality, 1 to 100."""
    if not 1 <= quality <= 100:
        raise ValueError(f"JPEG quality must be 1 to 100, got {quality}")
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    base = torch.tensor([_LUMA, _CHROMA]).view(2, 8, 8)
    return ((base * percent + 50) // 100).clamp(1, 255)


def differentiable_jpeg(pictures: Tensor, qualities: Sequence[int]) -> Tensor:
    """Pictures through JPEG and back, each by its own quality, on their own device.

    Args:
        pictures: ``(B, 3, H, W)`` in [0, 1], five pixels a side or more.
        qualities: libjpeg's, 1 to 100, one a picture.

    Returns:
        The same shape, in 8-bit levels.
    """
    height, width = pictures.shape[-2:]
    tables = torch.stack([quantisation_tables(quality) for quality in qualities]).to(pictures)
    luma, blue, red = _to_ycc(_round(pictures.clamp(0, 1) * 255)).unbind(1)
    chroma = _halved(torch.stack([blue, red], 1))
    luma = _coded(luma.unsqueeze(1), tables[:, :1])
    chroma = _coded(chroma, tables[:, 1:])
    enlarged = _doubled(chroma)[..., :height, :width]
    return _to_rgb(luma, enlarged).clamp(0, 255) / 255


class _Round(torch.autograd.Function):
    """Rounds; its gradient is that of doing nothing."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return gradients[0]


def _round(x: Tensor) -> Tensor:
    rounded: Tensor = _Round.apply(x)
    return rounded


def _away_from_zero(x: Tensor) -> Tensor:
    """Rounds; halves go away from zero."""
    return _round(x + torch.sign(x.detach()) * _TIE)


def _floor(x: Tensor) -> Tensor:
    """Of multiples of 1/16, as integer shifts do it."""
    return _round(x - 15 / 32)


def _to_ycc(rgb: Tensor) -> Tensor:
    """JFIF's full-range YCbCr, in whole levels."""
    red, green, blue = rgb.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return _round(torch.stack([luma, (blue - luma) / 1.772 + 128, (red - luma) / 1.402 + 128], 1))


def _to_rgb(luma: Tensor, chroma: Tensor) -> Tensor:
    y, blue, red = luma[:, 0], chroma[:, 0] - 128, chroma[:, 1] - 128
    green = y - _round(0.344136 * blue + 0.714136 * red)
    return torch.stack([y + _round(1.402 * red), green, y + _round(1.772 * blue)], 1)


def _halved(chroma: Tensor) -> Tensor:
    """Means of four pixels; their halves fall down and up in turn from column to column."""
    height, width = chroma.shape[-2:]
    blocks = -(-width // 16)  # libjpeg fills whole blocks to the right before it reduces
    around = F.pad(chroma, [0, 16 * blocks - width, 0, height % 2], mode="replicate")
    bias = torch.tensor([0.25, 0.5], device=chroma.device).repeat(4 * blocks)
    return _floor(F.avg_pool2d(around, 2) + bias)


def _coded(plane: Tensor, tables: Tensor) -> Tensor:
    """Planes ``(B, C, H, W)`` by blocks of 8: transformed, quantised, and back."""
    height, width = plane.shape[-2:]
    around = F.pad(plane, [0, -width % 8, 0, -height % 8], mode="replicate") - 128
    rows, columns = around.shape[-2] // 8, around.shape[-1] // 8
    shape = (*around.shape[:-2], rows, 8, columns, 8)
    blocks = around.reshape(shape).transpose(-3, -2)
    cosines = _cosines(plane.dtype, plane.device)
    steps = tables[:, :, None, None]
    with torch.autocast(plane.device.type, enabled=False):
        eighths = _round(8 * (cosines @ blocks @ cosines.T))  # as whole numbers, ties are its ties
        frequencies = _away_from_zero(eighths / (8 * steps)) * steps
        blocks = cosines.T @ frequencies @ cosines
    whole = blocks.transpose(-3, -2).flatten(-4, -3).flatten(-2)
    whole = _round(whole + _TIE)  # halves go up
    return (whole + 128).clamp(0, 255)[..., :height, :width]


def _doubled(chroma: Tensor) -> Tensor:
    """The "fancy" enlargement of libjpeg: three parts of the nearer sample, one of the farther."""
    near = F.pad(chroma, [1, 1, 1, 1], mode="replicate")
    rows = torch.stack([3 * near[..., 1:-1, :] + near[..., :-2, :],
                        3 * near[..., 1:-1, :] + near[..., 2:, :]], -2).flatten(-3, -2)  # fmt: skip
    left = (3 * rows[..., 1:-1] + rows[..., :-2] + 8) / 16
    right = (3 * rows[..., 1:-1] + rows[..., 2:] + 7) / 16
    return _floor(torch.stack([left, right], -1).flatten(-2))


@lru_cache(maxsize=8)
@torch.inference_mode(mode=False)
def _cosines(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The orthonormal discrete cosine transform of eight values."""
    place = torch.arange(8, dtype=torch.float64)
    matrix = torch.cos((2 * place + 1) * place.unsqueeze(1) * math.pi / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix.to(device, dtype)
