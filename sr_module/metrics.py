"""PSNR and SSIM, each with the protocol it was measured by.

The same pictures score two decibels apart under different conventions (colour space, border,
rounding), so a number is printed beside its ``Protocol`` or not at all.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

_WINDOW = 11
_SIGMA = 1.5
_PEAK = 255.0


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
    a, b = _levels(sr, hr, protocol)
    mse = (a - b).square().mean((1, 2, 3))
    return 10 * torch.log10(_PEAK**2 / mse)


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
    mean_a, mean_b = _blur(a), _blur(b)
    var_a = _blur(a * a) - mean_a.square()
    var_b = _blur(b * b) - mean_b.square()
    covariance = _blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * _PEAK) ** 2, (0.03 * _PEAK) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
    structure = (2 * covariance + c2) / (var_a + var_b + c2)
    return (luminance * structure).mean((1, 2, 3))


def luma(image: Tensor) -> Tensor:
    """BT.601 luma in 8-bit levels as a picture, ``(B, 3, H, W)`` -> ``(B, 1, H, W)`` in [0, 1].

    The papers' bicubic rows are made on it: reduced and enlarged without further rounding.
    """
    return _luma(image * 255).round() / 255


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
