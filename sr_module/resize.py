"""The one definition of low resolution: MATLAB's antialiased bicubic ``imresize``.

Every published super-resolution table on "bicubic" pictures was made with it. Keys' cubic kernel
(Keys 1981, "Cubic Convolution Interpolation for Digital Image Processing", a = -0.5), stretched by
the reduction factor when reducing, symmetric continuation at the border, rows first and then
columns, and for 8-bit pictures rounding after each of the two passes.

Torch's own ``interpolate(mode="bicubic")`` has a = -0.75 and, by default, no antialiasing: pictures
reduced with it are not those of any paper.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from sr_module.choice import unknown

Kernel = Literal["cubic", "lanczos3"]


def crop_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """``image`` ``(..., H, W)`` without the last rows and columns that exceed a multiple.

    The papers crop the high-resolution picture so before they reduce it.
    """
    height, width = image.shape[-2:]
    if height < multiple or width < multiple:
        raise ValueError(f"a picture of {height}x{width} has no multiple of {multiple} in it")
    return image[..., : height - height % multiple, : width - width % multiple]


def imresize(
    image: Tensor,
    scale: float | Fraction,
    *,
    quantize: bool = True,
    kernel: Kernel = "cubic",
) -> Tensor:
    """``image`` resized by ``scale`` as MATLAB's ``imresize(image, scale, 'bicubic')`` does.

    uint8 pictures are computed in float64 and equal MATLAB's bit for bit. Floating-point pictures
    are computed in their own precision and are differentiable when not quantised; in float32 they
    equal the uint8 result except where a value falls midway between two levels.

    Args:
        image: ``(..., H, W)``, uint8 or floating point in [0, 1].
        scale: factor on both sides; the new sides are ``ceil(scale * side)``. A ``Fraction`` where
            a float is not exact.
        quantize: round to 8-bit levels after each pass, as MATLAB does for uint8 pictures. Without
            it floating-point pictures are neither rounded nor clamped, and uint8 pictures are
            rounded once, at the end.
        kernel: ``cubic``, or ``lanczos3``, the sinc windowed by its own main lobe, three pixels to
            each side (MATLAB's ``'lanczos3'``; Duchon 1979, "Lanczos Filtering in One and Two
            Dimensions").

    Returns:
        ``(..., ceil(scale * H), ceil(scale * W))`` of the same dtype.

    Raises:
        ValueError: a scale that is not positive, an empty picture, another dtype, or an
            unknown kernel.
    """
    if not (image.dtype == torch.uint8 or image.is_floating_point()):
        raise ValueError(f"imresize takes uint8 or floating-point pictures, got {image.dtype}")
    if image.ndim < 2 or 0 in image.shape[-2:]:
        raise ValueError(f"imresize takes pictures (..., H, W), got shape {tuple(image.shape)}")
    if not 0 < scale < math.inf:
        raise ValueError(f"the scale of imresize must be positive, got {scale}")
    if kernel not in _KERNELS:
        raise unknown("kernel of imresize:", kernel, _KERNELS)
    if image.dtype == torch.uint8:
        rows = _resize_rows(image, scale, kernel, dtype=torch.float64)
        both = _resize_columns(_to_levels(rows) if quantize else rows, scale, kernel)
        return _to_levels(both).to(torch.uint8)
    if not quantize:
        return _resize_columns(_resize_rows(image, scale, kernel), scale, kernel)
    # In levels, where the weights of halving and quartering are exact, so even ties fall alike.
    rows = _to_levels(_resize_rows(image * 255, scale, kernel))
    return _to_levels(_resize_columns(rows, scale, kernel)).div_(255)


def _to_levels(image: Tensor) -> Tensor:
    """Nearest of the levels 0..255, halves upwards as in MATLAB (``round`` would go to even)."""
    return (image + 0.5).floor_().clamp_(0, 255)


def _resize_columns(image: Tensor, scale: float | Fraction, kernel: Kernel) -> Tensor:
    # Picking whole rows of the transposed picture is several times faster than picking columns.
    return _resize_rows(image.mT.contiguous(), scale, kernel).mT.contiguous()


def _resize_rows(
    image: Tensor, scale: float | Fraction, kernel: Kernel, *, dtype: torch.dtype | None = None
) -> Tensor:
    """One pass: each new row is a weighted sum of ``taps`` old ones.

    Taps are accumulated one at a time, so memory stays at a few results, not ``taps`` of them.
    """
    dtype = dtype or image.dtype
    indices, weights = _taps(image.shape[-2], scale, kernel, dtype, image.device)
    weights = weights.unsqueeze(-1)  # (taps, new length, 1)
    result = image.index_select(-2, indices[0]).to(dtype) * weights[0]
    for index, weight in zip(indices[1:], weights[1:], strict=True):
        result = result.addcmul_(image.index_select(-2, index).to(dtype), weight)
    return result


@lru_cache(maxsize=128)
@torch.inference_mode(mode=False)  # a cached inference tensor could never be used in training
def _taps(
    length: int,
    scale: float | Fraction,
    kernel: Kernel,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Source indices and weights, both ``(taps, new length)``, of one axis."""
    factor = float(scale)
    stretch = min(factor, 1.0)  # antialiasing: a wider kernel when reducing
    weigh, width = _KERNELS[kernel]
    support = width / stretch
    position = torch.arange(math.ceil(scale * length), dtype=torch.float64) + 0.5
    centre = position / factor - 0.5  # of each new sample, in old samples
    first = torch.floor(centre - support / 2)
    index = first + torch.arange(math.ceil(support) + 2, dtype=torch.float64).unsqueeze(1)
    weight = weigh((centre - index) * stretch)
    weight = weight / weight.sum(0)
    used = weight.ne(0).any(1)
    mirrored = index[used].long() % (2 * length)  # symmetric: ... 1 0 | 0 1 ... n-1 | n-1 n-2 ...
    mirrored = torch.minimum(mirrored, 2 * length - 1 - mirrored)
    return mirrored.to(device), weight[used].to(device, dtype)


def _cubic(x: Tensor) -> Tensor:
    """Keys' kernel with a = -0.5."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x.square() + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x <= 1, near, torch.where(x <= 2, far, torch.zeros_like(x)))


def _lanczos3(x: Tensor) -> Tensor:
    return torch.where(x.abs() < 3, x.sinc() * (x / 3).sinc(), torch.zeros_like(x))


_KERNELS: dict[Kernel, tuple[Callable[[Tensor], Tensor], int]] = {
    "cubic": (_cubic, 4),
    "lanczos3": (_lanczos3, 6),
}
"""Each kernel and how many pixels wide it is."""
