"""JPEG as arithmetic on tensors: on accelerators, and where a gradient must pass.

Libjpeg's own integers step by step: ITU-T T.81's tables, 4:2:0 chroma by the mean of four, the
"slow" cosine transform with 13 bits after the point (Loeffler et al. 1989), triangular enlargement
of chroma. Float64 holds them all, so the result is libjpeg's to the last bit. A transform that
rounds elsewhere is not a level off but a quantisation step, wherever a frequency lies near the
border of two. Where libjpeg rounds, the gradient passes as if it did not.
"""

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

_TO_YCC = ((19595, 38470, 7471), (-11059, -21709, 32768), (32768, -27439, -5329))
"""JFIF's colours, times 2 ** 16."""
_RED, _BLUE, _GREEN = 91881, 116130, (-22554, -46802)
"""And back: of red chroma, of blue chroma, of blue and red chroma."""

_FREQUENCIES = (
    (8192, 8192, 8192, 8192), (11363, 9633, 6437, 2260), (10703, 4433, -4433, -10703),
    (9633, -2259, -11362, -6436), (8192, -8192, -8192, 8192), (6437, -11362, 2261, 9633),
    (4433, -10704, 10704, -4433), (2260, -6436, 9633, -11363),
)  # fmt: skip
"""Half of each row of the cosine transform, times sqrt(8) * 2 ** 13; odd rows change sign."""


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
    tables = torch.stack([quantisation_tables(quality) for quality in qualities])
    tables = tables.to(pictures.device, torch.float64)
    with torch.autocast(pictures.device.type, enabled=False):
        exact = (pictures.clamp(0, 1) * 255).double()
        planes = _to_ycc(exact + (exact.round() - exact).detach())
        luma = _coded(planes[:, :1], tables[:, :1])
        chroma = _coded(_halved(planes[:, 1:]), tables[:, 1:])[..., : (width + 1) // 2]
        levels = _to_rgb(luma[:, 0], _doubled(chroma)[..., :height, :width] - 128)
    return levels.clamp(0, 255).to(pictures.dtype) / 255


class _Floor(torch.autograd.Function):
    """Rounds down; its gradient is that of doing nothing."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.floor()

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return gradients[0]


def _floor(x: Tensor) -> Tensor:
    floored: Tensor = _Floor.apply(x)
    return floored


def _rounded(x: Tensor) -> Tensor:
    """To whole numbers; halves go up."""
    return _floor(x + 0.5)


def _to_ycc(rgb: Tensor) -> Tensor:
    """Full-range YCbCr in whole levels; halves of luma go up, of chroma down."""
    matrix = rgb.new_tensor(_TO_YCC)
    offset = rgb.new_tensor([0.5, 128.5 - 2**-16, 128.5 - 2**-16]).view(-1, 1, 1)
    return _floor(torch.einsum("oc,bchw->bohw", matrix, rgb) / 2**16 + offset)


def _to_rgb(luma: Tensor, chroma: Tensor) -> Tensor:
    blue, red = chroma.unbind(1)
    green = _rounded((_GREEN[0] * blue + _GREEN[1] * red) / 2**16)
    red, blue = _rounded(_RED * red / 2**16), _rounded(_BLUE * blue / 2**16)
    return torch.stack([luma + red, luma + green, luma + blue], 1)


def _halved(chroma: Tensor) -> Tensor:
    """Means of four pixels; their halves fall down and up in turn from column to column."""
    height, width = chroma.shape[-2:]
    blocks = -(-width // 16)  # libjpeg fills whole blocks to the right before it reduces
    around = F.pad(chroma, [0, 16 * blocks - width, 0, height % 2], mode="replicate")
    bias = chroma.new_tensor([0.25, 0.5]).repeat(4 * blocks)
    return _floor(F.avg_pool2d(around, 2) + bias)


def _coded(plane: Tensor, tables: Tensor) -> Tensor:
    """Planes ``(B, C, H, W)`` by blocks of 8: transformed, quantised, and back."""
    height, width = plane.shape[-2:]
    around = F.pad(plane, [0, -width % 8, 0, -height % 8], mode="replicate") - 128
    rows, columns = around.shape[-2] // 8, around.shape[-1] // 8
    shape = (*around.shape[:-2], rows, 8, columns, 8)
    blocks = around.reshape(shape).transpose(-3, -2)
    forth, steps = _cosines(plane.device), tables[:, :, None, None]
    # Two bits after the point are kept between the passes, and eighths in front of quantisation.
    eighths = _rounded(forth @ _rounded(blocks @ forth.T / 2**11) / 2**15)
    sign = eighths.detach().sign()  # halves go away from zero
    frequencies = sign * _rounded(sign * eighths / (8 * steps)) * steps
    blocks = _rounded(_rounded(forth.T @ frequencies / 2**11) @ forth / 2**18)
    whole = blocks.transpose(-3, -2).flatten(-4, -3).flatten(-2)
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
def _cosines(device: torch.device) -> Tensor:
    """The cosine transform of eight values in libjpeg's integers; its inverse is its transpose."""
    half = torch.tensor(_FREQUENCIES, dtype=torch.float64)
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(4).unsqueeze(1)
    return torch.cat((half, signs * half.flip(1)), 1).to(device)
