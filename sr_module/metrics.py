"""PSNR, SSIM, RMSE and consistency, each with the protocol it was measured by.

The same pictures score two decibels apart under different conventions (colour space, border,
rounding), so a number is printed beside its ``Protocol`` or not at all. Metrics that need trained
weights or a fitted model have files of their own: ``lpips``, ``dists``, ``niqe``.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_module.resize import imresize

LOWER_IS_BETTER = frozenset({"blockiness", "dists", "lpips", "niqe", "rmse"})
"""Metrics whose best value is the smallest; of all others the largest is the best."""

_WINDOW = 11
_SIGMA = 1.5
_PEAK = 255.0
_PIRM_REGIONS = {"region 1": 11.5, "region 2": 12.5, "region 3": 16.0}  # largest RMSE of each


@dataclass(frozen=True)
class Protocol:
    """How two pictures are compared; ``str(protocol)`` is what to print beside the number."""

    name: str
    """Short name for tables and metric keys, such as ``matlab_y``."""
    channels: Literal["y", "rgb"]
    """``y``: BT.601 luma in studio range, 16 to 235; grey pictures as they are. ``rgb``: all."""
    shave: int
    """Pixels left out on each side."""

    def __post_init__(self) -> None:
        if self.channels not in ("y", "rgb"):
            raise ValueError(f"protocol channels must be 'y' or 'rgb', got {self.channels!r}")
        if self.shave < 0:
            raise ValueError(f"protocol shave must be 0 pixels or more, got {self.shave}")

    def __str__(self) -> str:
        colour = "Y of BT.601, 16-235" if self.channels == "y" else "RGB"
        return f"{self.name}: {colour}, {self.shave} px shaved, 8-bit rounding, mean over pictures"


def matlab_y(scale: int) -> Protocol:
    """The protocol of the papers' tables: luma, ``scale`` pixels shaved."""
    return Protocol("matlab_y", channels="y", shave=scale)


def ntire_rgb(scale: int) -> Protocol:
    """The protocol of the first NTIRE challenges, for the tables made on DIV2K: all of RGB.

    ``6 + scale`` pixels are shaved. It is that of the bicubic track of 2017 (Timofte et al. 2017,
    "NTIRE 2017 Challenge on Single Image Super-Resolution: Methods and Results"), which the
    winner's paper took over for DIV2K (Lim et al. 2017, EDSR, arXiv:1707.02921). The later x4
    tracks count otherwise: ``ntire_y``.
    """
    return Protocol("ntire_rgb", channels="rgb", shave=6 + scale)


def ntire_y(scale: int) -> Protocol:
    """The protocol of the later NTIRE x4 bicubic tracks: luma, ``scale`` pixels shaved.

    Chen et al. 2025, "NTIRE 2025 Challenge on Image Super-Resolution (x4): Methods and Results",
    arXiv:2504.14582: luma without a rim of 4 pixels ranks the restoration track. The numbers are
    those of ``matlab_y``; the name says whose table they belong to.
    """
    return Protocol("ntire_y", channels="y", shave=scale)


_PIRM_SHAVE = 4  # pixels; the challenge has one scale, 4


def pirm() -> Protocol:
    """The protocol of the PIRM 2018 challenge (x4), for ``rmse`` and its regions.

    Luma, 4 px shaved.

    Blau et al. 2018, "The 2018 PIRM Challenge on Perceptual Image Super-resolution",
    arXiv:1809.07517, and its evaluation code, which also rounds the luma to 8 bits; here it stays
    exact, which changes an RMSE near 11.5 by less than 0.01. NIQE is half of the challenge's
    perceptual index; the other half, the metric of Ma et al. 2017, is not here because its model
    is free for research only, and so is no perceptual index.
    """
    return Protocol("pirm", channels="y", shave=_PIRM_SHAVE)


def pirm_region(rmse: float) -> str | None:
    """The region of the PIRM 2018 challenge an RMSE falls into; None when it is above them all.

    Each region, ``region 1`` to 11.5, ``region 2`` to 12.5 and ``region 3`` to 16 levels, had a
    ranking of its own, by perceptual quality.

    Args:
        rmse: of the whole set by ``pirm``; see ``rmse`` for how it is averaged.
    """
    return next((name for name, limit in _PIRM_REGIONS.items() if rmse <= limit), None)


def psnr(sr: Tensor, hr: Tensor, protocol: Protocol) -> Tensor:
    """Peak signal-to-noise ratio of each picture in dB; infinite for identical pictures.

    ``10 log10(255**2 / MSE)`` over the 8-bit levels that ``protocol`` selects. Average it over
    pictures; a mean taken over pooled squared errors is another quantity.

    Args:
        sr: ``(B, 3, H, W)``, or ``(B, 1, H, W)`` for grey pictures, which the papers compare in
            full range; floating point in [0, 1], values outside are clamped.
        hr: the true pictures, of the same shape.
        protocol: what is compared.

    Returns:
        ``(B,)`` float64.

    Raises:
        ValueError: unequal or unfit shapes, or integer pictures.
    """
    return 10 * torch.log10(_PEAK**2 / _mse(sr, hr, protocol))


def rmse(sr: Tensor, hr: Tensor, protocol: Protocol) -> Tensor:
    """Root of the mean squared error of each picture in 8-bit levels, 0 for identical pictures.

    Over a set, PIRM takes the root of the mean square, ``rmse(...).square().mean().sqrt()``, and
    not the mean of the roots.

    Args and errors are those of ``psnr``.

    Returns:
        ``(B,)`` float64.
    """
    return _mse(sr, hr, protocol).sqrt()


def consistency(sr: Tensor, lr: Tensor, scale: int) -> Tensor:
    """How well each result, reduced again, gives back the picture it was made from: PSNR in dB.

    A network that invents details keeps it high when the details average out to what was seen;
    Lugmayr et al. 2021, "NTIRE 2021 Learning the Super-Resolution Space Challenge", call it LR-PSNR
    and ask for 45 dB. ``sr`` is rounded to 8 bits as when saved, reduced by ``imresize`` to 8 bits,
    and compared with ``lr`` over all channels up to the border.

    Args:
        sr: ``(B, 3 or 1, scale * h, scale * w)`` in [0, 1], values outside are clamped.
        lr: ``(B, 3 or 1, h, w)`` in [0, 1].
        scale: the factor between them.

    Returns:
        ``(B,)`` float64; infinite where the reduced result equals ``lr``.

    Raises:
        ValueError: shapes that do not fit each other and the scale, or integer pictures.
    """
    expected = (*lr.shape[:-2], *(scale * side for side in lr.shape[-2:]))
    if tuple(sr.shape) != expected:
        raise ValueError(
            f"an lr of shape {tuple(lr.shape)} at scale {scale} has an sr of {expected}, "
            f"got {tuple(sr.shape)}"
        )
    everything = Protocol("consistency", channels="rgb", shave=0)
    saved = _select(sr, everything).to(torch.uint8)
    return psnr(imresize(saved, Fraction(1, scale)).double() / _PEAK, lr, everything)


def ssim(sr: Tensor, hr: Tensor, protocol: Protocol) -> Tensor:
    """Structural similarity of each picture, at most 1.

    Source: Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural
    Similarity": Gaussian window of 11 pixels and sigma 1.5, K = 0.01 and 0.03, only windows that
    lie wholly inside; the mean over channels where there are three.

    Args and errors are those of ``psnr``; after shaving, sides must be 11 pixels or more.

    Returns:
        ``(B,)`` float64.
    """
    a, b = _levels(sr, hr, protocol)
    if min(a.shape[-2:]) < _WINDOW:
        side = "x".join(map(str, a.shape[-2:]))
        raise ValueError(f"SSIM needs {_WINDOW} pixels a side after shaving, got {side}")
    return structural_similarity(a, b, peak=_PEAK)


def structural_similarity(a: Tensor, b: Tensor, *, peak: float) -> Tensor:
    """``ssim`` of values from 0 to ``peak`` as they are: ``(B, C, H, W)`` twice -> ``(B,)``."""
    mean_a, mean_b = _blur(a), _blur(b)
    var_a = _blur(a * a) - mean_a.square()
    var_b = _blur(b * b) - mean_b.square()
    covariance = _blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
    structure = (2 * covariance + c2) / (var_a + var_b + c2)
    return (luminance * structure).mean((1, 2, 3))


def luma(image: Tensor) -> Tensor:
    """BT.601 luma in 8-bit levels as a picture, ``(B, 3, H, W)`` -> ``(B, 1, H, W)`` in [0, 1].

    The papers' bicubic rows are made on it: reduced and enlarged without further rounding.
    """
    return _luma(image * 255).round() / 255


def _mse(sr: Tensor, hr: Tensor, protocol: Protocol) -> Tensor:
    a, b = _levels(sr, hr, protocol)
    return (a - b).square().mean((1, 2, 3))


def _levels(sr: Tensor, hr: Tensor, protocol: Protocol) -> tuple[Tensor, Tensor]:
    """Both pictures as float64 levels 0..255, in the protocol's channels, shaved."""
    if sr.shape != hr.shape:
        raise ValueError(
            f"pictures to compare must have one shape, got sr {tuple(sr.shape)} and hr "
            f"{tuple(hr.shape)}; crop hr to a multiple of the scale before reducing it"
        )
    if sr.ndim != 4 or sr.shape[1] not in (1, 3):
        raise ValueError(f"pictures must be (B, 3 or 1, H, W), got {tuple(sr.shape)}")
    if min(sr.shape[-2:]) <= 2 * protocol.shave:
        side = "x".join(map(str, sr.shape[-2:]))
        raise ValueError(f"nothing is left of {side} pixels after shaving {protocol.shave} a side")
    return _select(sr, protocol), _select(hr, protocol)


def _select(image: Tensor, protocol: Protocol) -> Tensor:
    if not image.is_floating_point():
        raise ValueError(f"pictures must be floating point in [0, 1], got {image.dtype}")
    levels = (image.double().clamp(0, 1) * 255).round()
    if protocol.channels == "y" and levels.shape[1] == 3:
        levels = _luma(levels)
    height, width = levels.shape[-2:]
    s = protocol.shave
    return levels[..., s : height - s, s : width - s]


def _luma(levels: Tensor) -> Tensor:
    """BT.601 luma in studio range: ``(B, 3, H, W)`` 0..255 -> ``(B, 1, H, W)`` 16..235."""
    red, green, blue = levels[:, 0:1], levels[:, 1:2], levels[:, 2:3]
    return 16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255


def _blur(image: Tensor) -> Tensor:
    """Gaussian window over the valid part; separable, since the 2-D window is an outer product."""
    offset = torch.arange(_WINDOW, dtype=image.dtype, device=image.device) - _WINDOW // 2
    window = torch.exp(-offset.square() / (2 * _SIGMA**2))
    window = window / window.sum()
    channels = image.shape[1]
    rows = window.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    image = F.conv2d(image, rows, groups=channels)
    return F.conv2d(image, rows.transpose(2, 3), groups=channels)
