"""Blur, reduction, noise and a codec, once each.

With nothing but a scale this is ``imresize`` alone, the papers' low resolution. The other steps are
for networks that must face real pictures; their order is that of the camera (Zhang et al. 2021,
arXiv:2103.14006, section 3).
"""

import math
import random
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sr_module.degrade.blur import gaussian_blur
from sr_module.degrade.codecs import through_jpeg, through_webp
from sr_module.degrade.draws import (
    Quality,
    check_range,
    draw,
    draw_frames,
    draw_quality,
)
from sr_module.resize import imresize

_MAX_BLUR = 32.0
_MAX_NOISE = 255.0


class _Drawn(NamedTuple):
    """What one picture is put through."""

    seed: int
    blur: float
    noise: float
    codec: Literal["jpeg", "webp"] | None
    quality: int


@dataclass(frozen=True)
class Degradation:
    """Makes ``lr`` of ``hr``; the same picture gives the same ``lr`` alone and in any batch.

    Where two bounds stand for a value, each picture draws its own between them. The result consists
    of 8-bit levels, as if it came out of a file.
    """

    scale: int
    """Reduction of both sides."""
    blur_sigma: float | tuple[float, float] = 0.0
    """Standard deviation of the Gaussian blur in high-resolution pixels, 0 to 32; 0 is none."""
    noise_sigma: float | tuple[float, float] = 0.0
    """Standard deviation of the noise in 8-bit levels, 0 to 255; 0 is none."""
    jpeg_quality: int | tuple[int, int] | None = None
    """libjpeg's quality, 1 to 100, chroma halved as cameras do; null is no JPEG."""
    webp_quality: int | tuple[int, int] | None = None
    """libwebp's quality, 0 to 100; null is no WebP. With JPEG beside it each picture gets one."""
    compressed: float = 1.0
    """Share of the pictures that a codec gets, where there is one; the others stay clean."""

    def __post_init__(self) -> None:
        if self.scale < 1:
            raise ValueError(f"degradation scale must be 1 or more, got {self.scale}")
        check_range("blur_sigma", self.blur_sigma, 0, _MAX_BLUR, " px")
        check_range("noise_sigma", self.noise_sigma, 0, _MAX_NOISE)
        check_range("jpeg_quality", self.jpeg_quality, 1, 100)
        check_range("webp_quality", self.webp_quality, 0, 100)
        if not 0 <= self.compressed <= 1:
            raise ValueError(f"compressed must be a share from 0 to 1, got {self.compressed}")

    @property
    def reach(self) -> int | None:
        """High-resolution pixels of blur around a pixel; None where it depends on the whole."""
        codecs = self.jpeg_quality is not None or self.webp_quality is not None
        if codecs or self.noise_sigma or isinstance(self.blur_sigma, tuple):
            return None
        return math.ceil(3 * self.blur_sigma)

    @torch.no_grad()
    def __call__(self, hr: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Low-resolution pictures of ``hr``.

        Args:
            hr: ``(B, 3, H, W)`` or ``(3, H, W)``, or clips ``(B, T, 3, H, W)``, whose frames share
                all that is drawn but the noise itself; floating point in [0, 1], sides divisible by
                the scale.
            generator: gives each picture or clip its seed, one after the other; one on the CPU is
                not waited for.

        Returns:
            ``(B, 3, H / scale, W / scale)``, or without B or with T, on the device of ``hr``.

        Raises:
            ValueError: sides that the scale does not divide.
        """
        check_sides(hr, self.scale)
        pictures = hr.reshape(-1, *hr.shape[-3:])
        drawn = draw_frames(self._draw, hr, generator)
        lr = gaussian_blur(pictures, [each.blur for each in drawn])
        lr = imresize(lr, Fraction(1, self.scale))
        lr = _compress(_add_noise(lr, drawn), drawn)
        return lr.view(*hr.shape[:-2], *lr.shape[-2:])

    def _draw(self, seed: int) -> _Drawn:
        rng = random.Random(seed)
        blur, noise = draw(rng, self.blur_sigma), draw(rng, self.noise_sigma)
        codecs: list[tuple[Literal["jpeg", "webp"], Quality]]
        codecs = [("jpeg", self.jpeg_quality), ("webp", self.webp_quality)]
        offered = [(name, quality) for name, quality in codecs if quality is not None]
        if not offered or rng.random() >= self.compressed:
            return _Drawn(seed, blur, noise, None, 0)
        codec, quality = rng.choice(offered)
        return _Drawn(seed, blur, noise, codec, draw_quality(rng, quality))


def check_sides(hr: Tensor, scale: int) -> None:
    """Refuses pictures whose sides the scale does not divide."""
    height, width = hr.shape[-2:]
    if height % scale or width % scale:
        raise ValueError(
            f"sides of {height}x{width} are not divisible by the scale {scale}; "
            "use crop_to_multiple first"
        )


def _add_noise(lr: Tensor, drawn: list[_Drawn]) -> Tensor:
    """White Gaussian noise, of each picture's own seed, in 8-bit levels."""
    if not any(each.noise for each in drawn):
        return lr
    noise = torch.zeros_like(lr, memory_format=torch.contiguous_format)
    for picture, each in zip(noise, drawn, strict=True):
        source = torch.Generator(lr.device).manual_seed(each.seed)
        picture.normal_(std=each.noise / 255, generator=source)
    return noise.add_(lr).clamp_(0, 1).mul_(255).round_().div_(255)


def _compress(lr: Tensor, drawn: list[_Drawn]) -> Tensor:
    if all(each.codec is None for each in drawn):
        return lr
    through = {"jpeg": through_jpeg, "webp": through_webp}
    return torch.stack(
        [
            picture if each.codec is None else through[each.codec](picture, each.quality)
            for picture, each in zip(lr, drawn, strict=True)
        ]
    )
