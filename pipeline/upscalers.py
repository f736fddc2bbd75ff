"""What enlarges pictures, by the word a person types: a resampling kernel or a network's file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_module.checkpoint import load_net
from sr_module.resize import imresize
from sr_module.upscale import upscale

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Upscaler:
    """A named enlargement ``(B, 3, h, w) -> (B, 3, scale * h, scale * w)``, floats in [0, 1]."""

    name: str
    scale: int
    parameters: int
    run: Callable[[Tensor], Tensor]

    def __call__(self, lr: Tensor) -> Tensor:
        """The enlarged pictures."""
        return self.run(lr)


def bicubic(lr: Tensor, scale: int) -> Tensor:
    """MATLAB's bicubic enlargement, not rounded to 8 bits, as no network's output is."""
    return imresize(lr, scale, quantize=False).clamp(0, 1)


def bilinear(lr: Tensor, scale: int) -> Tensor:
    """Bilinear enlargement with pixel centres kept in place."""
    return F.interpolate(lr, scale_factor=scale, mode="bilinear", align_corners=False)


def nearest(lr: Tensor, scale: int) -> Tensor:
    """Every pixel becomes a square."""
    return F.interpolate(lr, scale_factor=scale, mode="nearest")


KERNELS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "bicubic": bicubic,
    "bilinear": bilinear,
    "nearest": nearest,
}


def open_upscaler(
    model: str,
    *,
    scale: int | None = None,
    precision: Precision = "fp32",
    device: str | None = None,
    tile: int | None = None,
) -> Upscaler:
    """The enlargement that ``model`` names.

    Args:
        model: "bicubic", "bilinear", "nearest", or a file of weights (ours, or a published one).
        scale: needed for a kernel; must agree with a network's.
        precision: in which a network computes.
        device: where a network runs; None takes cuda where there is one.
        tile: low-resolution side of the pieces of large pictures; None chooses.

    Raises:
        ValueError: no scale for a kernel, or another scale than the network's.
        FileNotFoundError: neither a kernel's name nor a file.
    """
    if model in KERNELS:
        if not scale or scale < 1:
            raise ValueError(f"{model} needs a scale of 1 or more, got {scale}; add --scale 4")
        kernel, factor = KERNELS[model], scale
        return Upscaler(model, factor, 0, lambda lr: kernel(lr, factor))
    path = Path(model)
    if not path.exists():
        raise FileNotFoundError(f"'{model}' is neither a file nor one of {', '.join(KERNELS)}")
    net = load_net(path)
    if scale and scale != net.scale:
        raise ValueError(
            f"{model} enlarges {net.scale} times, --scale says {scale}; leave --scale out"
        )
    net.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    parameters = sum(p.numel() for p in net.parameters())
    # Every run calls its network "net": the run's folder tells them apart.
    name = path.resolve().parent.name if path.stem == "net" else path.stem
    return Upscaler(
        name,
        net.scale,
        parameters,
        lambda lr: upscale(net, lr, tile=tile, precision=precision),
    )
