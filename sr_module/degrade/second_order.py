"""The second-order degradation of Real-ESRGAN, drawn for each picture of a batch.

Wang et al. 2021, "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic
Data", arXiv:2107.10833, section 3: blur, resizing, noise and JPEG, all of them twice, the second
time with a final ringing filter before or after JPEG. The constants are those that the authors
published with their code.

They draw most choices once a batch and mix batches in a pool of 180 pairs to hide it. Here every
picture has its own draws, so there is no pool. On the CPU JPEG is libjpeg's; on accelerators it is
``differentiable_jpeg``, and nothing is waited for there.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_module.degrade.classical import check_sides
from sr_module.degrade.codecs import through_jpeg
from sr_module.degrade.draws import check_range, draw, draw_frames, draw_quality
from sr_module.degrade.kernels import draw_blur, draw_sinc, filtered
from sr_module.degrade.noise import gaussian_noise, poisson_noise
from sr_module.degrade.sharpen import sharpen

_Mode = Literal["area", "bilinear", "bicubic"]
_MODES: tuple[_Mode, ...] = ("area", "bilinear", "bicubic")


@dataclass(frozen=True)
class Stage:
    """Blur, resizing, noise and JPEG, once; the defaults are those of the first time.

    Attributes:
        blur: probability of a blur.
        sinc: share of the blurs that are ringing low-pass filters.
        shapes: weights of the other kernels: Gaussian, generalised and plateau, each round and
            stretched.
        sigma: of the kernels, in pixels.
        generalized_beta: exponent of the generalised Gaussians.
        plateau_beta: exponent of the plateaus.
        resize: weights of enlarging, reducing and keeping the size.
        resize_range: smallest and largest factor.
        gaussian: share of Gaussian noise; the rest is Poisson's.
        noise_sigma: of Gaussian noise, in 8-bit levels.
        poisson_scale: factor of Poisson noise.
        grey: share of noise that is equal in the three colours.
        jpeg_quality: bounds of libjpeg's quality.
    """

    blur: float = 1.0
    sinc: float = 0.1
    shapes: tuple[float, float, float, float, float, float] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    sigma: tuple[float, float] = (0.2, 3.0)
    generalized_beta: tuple[float, float] = (0.5, 4.0)
    plateau_beta: tuple[float, float] = (1.0, 2.0)
    resize: tuple[float, float, float] = (0.2, 0.7, 0.1)
    resize_range: tuple[float, float] = (0.15, 1.5)
    gaussian: float = 0.5
    noise_sigma: tuple[float, float] = (1.0, 30.0)
    poisson_scale: tuple[float, float] = (0.05, 3.0)
    grey: float = 0.4
    jpeg_quality: tuple[int, int] = (30, 95)

    def __post_init__(self) -> None:
        for name in ("blur", "sinc", "gaussian", "grey"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a share from 0 to 1, got {getattr(self, name)}")
        for name in ("shapes", "resize"):
            weights = getattr(self, name)
            if min(weights) < 0 or not sum(weights) > 0:
                raise ValueError(f"{name} must be weights, not all 0, got {list(weights)}")
        check_range("sigma", self.sigma, 0.01, 32, " px")
        for name, low, high in (("generalized_beta", 0.1, 16), ("plateau_beta", 0.1, 16)):
            check_range(name, getattr(self, name), low, high)
        check_range("resize_range", self.resize_range, 0.01, 8)
        check_range("noise_sigma", self.noise_sigma, 0, 255)
        check_range("poisson_scale", self.poisson_scale, 0, 100)
        check_range("jpeg_quality", self.jpeg_quality, 1, 100)


def _second() -> Stage:
    return Stage(
        blur=0.8,
        sigma=(0.2, 1.5),
        resize=(0.3, 0.4, 0.3),
        resize_range=(0.3, 1.2),
        noise_sigma=(1.0, 25.0),
        poisson_scale=(0.05, 2.5),
    )


class _StageDraw(NamedTuple):
    """What one picture is put through in one stage."""

    kernel: Tensor | None
    factor: float
    mode: _Mode
    gaussian: bool
    noise: float
    grey: bool
    quality: int


class _Drawn(NamedTuple):
    """What one picture is put through."""

    seed: int
    first: _StageDraw
    second: _StageDraw
    mode: _Mode
    ringing: Tensor | None
    jpeg_last: bool


@dataclass(frozen=True)
class SecondOrder:
    """Makes ``lr`` of ``hr``; the same seed gives the same picture alone and in any batch."""

    scale: int
    """Reduction of both sides."""
    sharpened: bool = True
    """Whether ``hr`` is sharpened first, as the targets are (``sharpen``)."""
    kernel_sizes: tuple[int, int] = (7, 21)
    """Smallest and largest side of the kernels; odd numbers."""
    first: Stage = field(default_factory=Stage)
    """The first time."""
    second: Stage = field(default_factory=_second)
    """The second time."""
    final_sinc: float = 0.8
    """Share of pictures that get the final ringing filter."""

    def __post_init__(self) -> None:
        if self.scale < 1:
            raise ValueError(f"degradation scale must be 1 or more, got {self.scale}")
        low, high = self.kernel_sizes
        if not (3 <= low <= high <= 101 and low % 2 and high % 2):
            raise ValueError(
                f"kernel_sizes must be two odd numbers from 3 to 101, the smaller one first; got "
                f"{list(self.kernel_sizes)}"
            )
        if not 0 <= self.final_sinc <= 1:
            raise ValueError(f"final_sinc must be a share from 0 to 1, got {self.final_sinc}")

    @property
    def reach(self) -> int | None:
        """None: every pixel depends on the whole picture, as with all that is drawn."""
        return None

    @torch.no_grad()
    def __call__(self, hr: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Low-resolution pictures of ``hr``.

        Args:
            hr: ``(B, 3, H, W)`` or ``(3, H, W)``, or clips ``(B, T, 3, H, W)``, whose frames share
                all that is drawn but the noise itself; floating point in [0, 1], sides divisible by
                the scale.
            generator: gives each picture or clip its seed, one after the other.

        Returns:
            ``(B, 3, H / scale, W / scale)``, or without B or with T, in 8-bit levels, on the device
            of ``hr``.

        Raises:
            ValueError: sides that the scale does not divide.
        """
        check_sides(hr, self.scale)
        pictures = hr.reshape(-1, *hr.shape[-3:])
        drawn = draw_frames(self._draw, hr, generator)
        if self.sharpened:
            pictures = sharpen(pictures)
        pictures = _blur(pictures, [each.first.kernel for each in drawn])
        size = hr.shape[-2] // self.scale, hr.shape[-1] // self.scale
        lr = torch.stack(
            [_degrade(picture, each, size) for picture, each in zip(pictures, drawn, strict=True)]
        )
        return lr.clamp_(0, 1).mul_(255).round_().div_(255).view(*hr.shape[:-2], *size)

    def _draw(self, seed: int) -> _Drawn:
        rng = random.Random(seed)
        first, second = self._draw_stage(rng, self.first), self._draw_stage(rng, self.second)
        mode = rng.choice(_MODES)
        rings = rng.random() < self.final_sinc
        ringing = draw_sinc(rng, self.kernel_sizes, wide_from=None) if rings else None
        return _Drawn(seed, first, second, mode, ringing, rng.random() < 0.5)

    def _draw_stage(self, rng: random.Random, stage: Stage) -> _StageDraw:
        kernel = self._draw_kernel(rng, stage) if rng.random() < stage.blur else None
        way = rng.choices(("up", "down", "keep"), stage.resize)[0]
        low, high = stage.resize_range
        bounds = {"up": (1.0, max(1.0, high)), "down": (min(1.0, low), 1.0), "keep": (1.0, 1.0)}
        gaussian = rng.random() < stage.gaussian
        return _StageDraw(
            kernel,
            draw(rng, bounds[way]),
            rng.choice(_MODES),
            gaussian,
            draw(rng, stage.noise_sigma if gaussian else stage.poisson_scale),
            rng.random() < stage.grey,
            draw_quality(rng, stage.jpeg_quality),
        )

    def _draw_kernel(self, rng: random.Random, stage: Stage) -> Tensor:
        if rng.random() < stage.sinc:
            return draw_sinc(rng, self.kernel_sizes)
        return draw_blur(
            rng,
            sizes=self.kernel_sizes,
            weights=stage.shapes,
            sigma=stage.sigma,
            generalized_beta=stage.generalized_beta,
            plateau_beta=stage.plateau_beta,
        )


_NOTHING = torch.ones(1, 1, dtype=torch.float64)


def _blur(pictures: Tensor, kernels: Sequence[Tensor | None]) -> Tensor:
    """Equal pictures at once."""
    if all(kernel is None for kernel in kernels):
        return pictures
    return filtered(pictures, [_NOTHING if kernel is None else kernel for kernel in kernels])


def _degrade(picture: Tensor, drawn: _Drawn, size: tuple[int, int]) -> Tensor:
    """One blurred picture ``(3, H, W)`` through all that follows, to ``(3, *size)``."""
    source = torch.Generator(picture.device).manual_seed(drawn.seed)
    first, second = drawn.first, drawn.second
    sides = _times(picture.shape[-2:], first.factor)
    picture = _noisy(_resized(picture, sides, first.mode), first, source)
    picture = through_jpeg(picture, first.quality)
    if second.kernel is not None:
        picture = filtered(picture[None], [second.kernel])[0]
    picture = _noisy(_resized(picture, _times(size, second.factor), second.mode), second, source)
    if drawn.jpeg_last:
        return through_jpeg(_ringing(_resized(picture, size, drawn.mode), drawn), second.quality)
    return _ringing(_resized(through_jpeg(picture, second.quality), size, drawn.mode), drawn)


def _times(sides: Sequence[int], factor: float) -> tuple[int, int]:
    """Libjpeg's arithmetic needs some pixels to work on."""
    return max(5, int(sides[0] * factor)), max(5, int(sides[1] * factor))


def _resized(picture: Tensor, sides: tuple[int, int], mode: _Mode) -> Tensor:
    """Without antialiasing, as published."""
    if tuple(picture.shape[-2:]) == sides:
        return picture
    return F.interpolate(picture[None], size=sides, mode=mode)[0]


def _noisy(picture: Tensor, drawn: _StageDraw, source: torch.Generator) -> Tensor:
    add = gaussian_noise if drawn.gaussian else poisson_noise
    return add(picture, drawn.noise, grey=drawn.grey, source=source)


def _ringing(picture: Tensor, drawn: _Drawn) -> Tensor:
    return picture if drawn.ringing is None else filtered(picture[None], [drawn.ringing])[0]
