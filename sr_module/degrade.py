"""How a low-resolution picture comes about: blur, reduction, noise, JPEG.

With nothing but a scale this is ``imresize`` alone, the papers' low resolution. The other steps are
for networks that must face real pictures; their order is that of the camera (Zhang et al. 2021,
arXiv:2103.14006, section 3).
"""

import functools
import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from sr_module.resize import imresize

_MAX_BLUR = 32.0
_MAX_NOISE = 255.0


@dataclass(frozen=True)
class Degradation:
    """Makes ``lr`` of ``hr``; the same picture gives the same ``lr`` alone and in any batch.

    The result consists of 8-bit levels, as if it came out of a file.
    """

    scale: int
    """Reduction of both sides."""
    blur_sigma: float = 0.0
    """Standard deviation of the Gaussian blur in high-resolution pixels, 0 to 32; 0 is none."""
    noise_sigma: float = 0.0
    """Standard deviation of the noise in 8-bit levels, 0 to 255; 0 is none."""
    jpeg_quality: int | None = None
    """libjpeg's quality, 1 to 100, chroma halved as cameras do; None is no JPEG."""

    def __post_init__(self) -> None:
        if self.scale < 1:
            raise ValueError(f"degradation scale must be 1 or more, got {self.scale}")
        if not 0 <= self.blur_sigma <= _MAX_BLUR:
            raise ValueError(f"blur_sigma must be 0 to {_MAX_BLUR:g} px, got {self.blur_sigma}")
        if not 0 <= self.noise_sigma <= _MAX_NOISE:
            raise ValueError(f"noise_sigma must be 0 to {_MAX_NOISE:g}, got {self.noise_sigma}")
        if self.jpeg_quality is not None and not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"jpeg_quality must be 1 to 100 or null, got {self.jpeg_quality}")

    @torch.no_grad()
    def __call__(self, hr: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Low-resolution pictures of ``hr``.

        Args:
            hr: ``(B, 3, H, W)`` or ``(3, H, W)``, floating point in [0, 1]; sides divisible by the
                scale.
            generator: source of the noise; it is drawn picture after picture.

        Returns:
            ``(B, 3, H / scale, W / scale)``, or without B, on the device of ``hr``.

        Raises:
            ValueError: sides that the scale does not divide.
        """
        height, width = hr.shape[-2:]
        if height % self.scale or width % self.scale:
            raise ValueError(
                f"sides of {height}x{width} are not divisible by the scale {self.scale}; "
                "use crop_to_multiple first"
            )
        lr = _blur(hr, self.blur_sigma) if self.blur_sigma else hr
        lr = imresize(lr, Fraction(1, self.scale))
        if self.noise_sigma:
            lr = _add_noise(lr, self.noise_sigma / 255, generator)
        return lr if self.jpeg_quality is None else _jpeg(lr, self.jpeg_quality)


def _blur(image: Tensor, sigma: float) -> Tensor:
    """Separable Gaussian, cut at three sigma, border pixels repeated."""
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


def _add_noise(image: Tensor, sigma: float, generator: torch.Generator | None) -> Tensor:
    """White Gaussian noise, drawn per picture so that a batch equals its pictures one by one."""
    device = image.device if generator is None else generator.device
    noise = torch.empty(image.shape, dtype=image.dtype, device=device)
    for picture in noise.view(-1, *image.shape[-3:]):
        picture.normal_(std=sigma, generator=generator)
    noisy = image + noise.to(image.device)
    return noisy.clamp_(0, 1).mul_(255).round_().div_(255)


def _jpeg(image: Tensor, quality: int) -> Tensor:
    """Through libjpeg and back, on the CPU: the very artefacts that files have."""
    from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg

    levels = image.mul(255).round().to("cpu", torch.uint8).reshape(-1, *image.shape[-3:])
    decoded = [
        decode_jpeg(encode_jpeg(picture, quality), mode=ImageReadMode.RGB) for picture in levels
    ]
    return torch.stack(decoded).view(image.shape).to(image).div_(255)
