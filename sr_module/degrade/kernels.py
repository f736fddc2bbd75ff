"""The blur kernels of Real-ESRGAN: seven shapes, drawn one a picture.

Wang et al. 2021, "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic
Data", arXiv:2107.10833, sections 3.1 and 3.3. Computed in float64 on the CPU: they are tiny.
"""

import math
import random
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_module.degrade.draws import draw

SHAPES = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")
"""Gaussian, generalised Gaussian and plateau, each round or stretched and turned."""


def draw_blur(
    rng: random.Random,
    *,
    sizes: tuple[int, int],
    weights: Sequence[float],
    sigma: tuple[float, float],
    generalized_beta: tuple[float, float],
    plateau_beta: tuple[float, float],
) -> Tensor:
    """One of ``SHAPES`` by its weight, ``(k, k)`` with the sum 1."""
    side, shape = draw_side(rng, sizes), rng.choices(SHAPES, weights)[0]
    along = draw(rng, sigma)
    across, angle = along, 0.0
    if not shape.endswith("_iso") and shape != "iso":
        across, angle = draw(rng, sigma), rng.uniform(-math.pi, math.pi)
    distance = _mahalanobis(side, along, across, angle)
    if shape.startswith("generalized"):
        kernel = torch.exp(-0.5 * distance.pow(_draw_beta(rng, generalized_beta)))
    elif shape.startswith("plateau"):
        kernel = 1 / (distance.pow(_draw_beta(rng, plateau_beta)) + 1)
    else:
        kernel = torch.exp(-0.5 * distance)
    return kernel / kernel.sum()


def draw_sinc(rng: random.Random, sizes: tuple[int, int], *, wide_from: int | None = 13) -> Tensor:
    """A low-pass filter with its ringing, ``(k, k)`` with the sum 1.

    Args:
        rng: source of the draws.
        sizes: smallest and largest side.
        wide_from: side from which the cutoff may fall to a fifth of the full band; it ends at a
            third elsewhere.
    """
    side = draw_side(rng, sizes)
    wide = wide_from is not None and side >= wide_from
    return sinc(rng.uniform(math.pi / (5 if wide else 3), math.pi), side)


def sinc(cutoff: float, side: int) -> Tensor:
    """The ideal circular low-pass filter of section 3.3, cut to ``(side, side)``."""
    axis = torch.arange(side, dtype=torch.float64) - side // 2
    radius = torch.hypot(axis.unsqueeze(1), axis)
    kernel = cutoff * torch.special.bessel_j1(cutoff * radius) / (2 * math.pi * radius)
    kernel[side // 2, side // 2] = cutoff**2 / (4 * math.pi)  # its limit
    normalised: Tensor = kernel / kernel.sum()
    return normalised


def draw_side(rng: random.Random, sizes: tuple[int, int]) -> int:
    """An odd side between the two odd bounds."""
    return rng.randrange(sizes[0], sizes[1] + 1, 2)


def _draw_beta(rng: random.Random, bounds: tuple[float, float]) -> float:
    """Below 1 and above it with the same probability, as the authors' code draws it."""
    return rng.uniform(bounds[0], 1) if rng.random() < 0.5 else rng.uniform(1, bounds[1])


def _mahalanobis(side: int, along: float, across: float, angle: float) -> Tensor:
    """Squared distance from the centre in units of the two sigmas, ``(side, side)``."""
    axis = torch.arange(side, dtype=torch.float64) - side // 2
    y, x = axis.unsqueeze(1), axis
    cos, sin = math.cos(angle), math.sin(angle)
    return ((cos * x + sin * y) / along).square() + ((cos * y - sin * x) / across).square()


def filtered(pictures: Tensor, kernels: Sequence[Tensor]) -> Tensor:
    """Every picture through its own point-symmetric kernel, border reflected.

    By Fourier transform: a kernel of 21 x 21 has 441 taps, and one of its own for each picture
    leaves a convolution nothing to share.

    Args:
        pictures: ``(B, C, H, W)``.
        kernels: of odd sides, on the CPU.
    """
    reach = max(len(kernel) for kernel in kernels) // 2
    stacked = torch.stack([F.pad(k, [reach - len(k) // 2] * 4) for k in kernels])
    height, width = pictures.shape[-2:]
    mode = "reflect" if reach < min(height, width) else "replicate"
    around = F.pad(pictures, [reach] * 4, mode=mode)
    size = [_quick(side) for side in around.shape[-2:]]
    spectrum = torch.fft.rfft2(stacked.to(pictures), s=size).unsqueeze(1)
    result: Tensor = torch.fft.irfft2(torch.fft.rfft2(around, s=size) * spectrum, s=size)
    # A kernel that starts in the corner moves the picture by its reach; twice: its own and ours.
    return result[..., 2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width]


def _quick(length: int) -> int:
    """The next length that is a product of 2, 3 and 5, which transforms are fast for."""
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1
