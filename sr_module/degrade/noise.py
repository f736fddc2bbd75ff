"""Sensor noise of one picture: Gaussian, or Poisson as of counted photons; coloured or grey."""

import torch
from torch import Tensor

_GREY = (0.2989, 0.587, 0.114)  # torchvision's, as the authors of Real-ESRGAN use it


def gaussian_noise(picture: Tensor, sigma: float, *, grey: bool, source: torch.Generator) -> Tensor:
    """``(3, H, W)`` in [0, 1] with white noise of ``sigma`` levels, clamped."""
    shape = (1, *picture.shape[1:]) if grey else picture.shape
    noise = torch.empty(shape, dtype=picture.dtype, device=picture.device)
    noise.normal_(std=sigma / 255, generator=source)
    return (picture + noise).clamp_(0, 1)


def poisson_noise(picture: Tensor, scale: float, *, grey: bool, source: torch.Generator) -> Tensor:
    """``(3, H, W)`` in [0, 1] with noise as of counting light, times ``scale``, clamped.

    As many photons make white as the picture has levels, rounded up to a power of two.
    """
    seen = _grey(picture) if grey else picture
    levels = (seen.clamp(0, 1) * 255).round_()
    photons = _count_levels(levels).log2().ceil().exp2()
    light = levels / 255
    noise = torch.poisson(light * photons, generator=source).div_(photons).sub_(light)
    return (picture + noise.mul_(scale)).clamp_(0, 1)


def _grey(picture: Tensor) -> Tensor:
    weights = torch.tensor(_GREY, dtype=picture.dtype, device=picture.device)
    return (weights.view(3, 1, 1) * picture).sum(0, keepdim=True)


def _count_levels(levels: Tensor) -> Tensor:
    """How many of the 256 levels occur; nothing is waited for."""
    seen = torch.zeros(256, dtype=levels.dtype, device=levels.device)
    return seen.index_fill_(0, levels.flatten().long(), 1).sum()
