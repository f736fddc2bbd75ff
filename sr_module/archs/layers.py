"""Layers that several papers share."""

import math
from collections.abc import Callable

import torch
from torch import nn

CONTEXT = 32
"""Feature pixels of tile context for deep networks, whose full receptive field is far wider.

A residual network's response to one pixel fades long before the edge of its receptive field: at 32
pixels the tiled and the untiled result differ by less than one 8-bit level.
"""


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps height and width."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def subpixel_stages(scale: int) -> list[int]:
    """Factors of the sub-pixel steps that make ``scale``: twos while they divide, then the rest."""
    stages = []
    while scale % 2 == 0:
        stages.append(2)
        scale //= 2
    return [*stages, scale] if scale > 1 else stages


def subpixel(
    features: int, scale: int, activation: Callable[[], nn.Module] | None = None
) -> nn.Sequential:
    """Convolution, pixel shuffle and ``activation``, repeated until ``scale`` is reached.

    Source: Shi et al. 2016, arXiv:1609.05158, section 2.1.
    """
    layers: list[nn.Module] = []
    for factor in subpixel_stages(scale):
        layers += [conv3x3(features, features * factor**2), nn.PixelShuffle(factor)]
        if activation is not None:
            layers.append(activation())
    return nn.Sequential(*layers)


def subpixel_radius(scale: int) -> float:
    """Receptive radius of ``subpixel`` in pixels of its input."""
    stages = subpixel_stages(scale)
    return sum(1 / math.prod(stages[:i]) for i in range(len(stages)))


@torch.no_grad()
def scaled_kaiming_(module: nn.Module, factor: float) -> None:
    """Kaiming-normal weights times ``factor`` and zero biases in every convolution of ``module``.

    A small factor makes residual branches start near zero, which deep networks without batch
    normalisation need (Wang et al. 2018, arXiv:1809.00219, section 3.1).
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            layer.weight.mul_(factor)
            if layer.bias is not None:
                layer.bias.zero_()
