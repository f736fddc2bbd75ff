"""Gaussian blur of pictures, each by its own sigma."""

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor


def gaussian_blur(pictures: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Separable Gaussians, cut at three sigma, border pixels repeated; sigma 0 leaves a picture.

    Args:
        pictures: ``(B, C, H, W)``.
        sigmas: of each picture, in its pixels.
    """
    if len(set(sigmas)) == 1:
        return _blur(pictures, sigmas[0])
    blurred = (
        _blur(picture, sigma) for picture, sigma in zip(pictures[:, None], sigmas, strict=True)
    )
    return torch.cat(list(blurred))


def _blur(image: Tensor, sigma: float) -> Tensor:
    if not sigma:
        return image
    radius = math.ceil(3 * sigma)
    offset = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    window = torch.exp(-offset.square() / (2 * sigma**2))
    window = window / window.sum()
    for dim in (-2, -1):
        length = image.shape[dim]
        place = torch.arange(length, device=image.device)
        # Shifted sums, as in imresize: convolutions on accelerators may round to ten bits.
        shifted = (
            weight * image.index_select(dim, (place + shift).clamp(0, length - 1))
            for shift, weight in enumerate(window, -radius)
        )
        image = functools.reduce(Tensor.add_, shifted)
    return image
