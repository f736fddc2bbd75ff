"""EDSR.

Lim et al. 2017, "Enhanced Deep Residual Networks for Single Image Super-Resolution",
arXiv:1707.02921, section 3 and table 1: SRResNet without batch normalisation; the wide network
scales its residual branches by 0.1 to stay stable. Parameter names are those of the widely used
re-implementations (``conv_first``, ``body.N.conv1``, ``conv_after_body``, ``upsample``,
``conv_last``). No departure.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_module.archs.layers import CONTEXT, conv3x3, subpixel, subpixel_radius
from sr_module.net import SRNet

_DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
_LEVELS = 255.0  # the paper works on 0..255, which sets the size of its initial residuals


class _Block(nn.Module):
    def __init__(self, features: int, residual_scale: float) -> None:
        super().__init__()
        self.residual_scale = residual_scale
        self.conv1 = conv3x3(features, features)
        self.conv2 = conv3x3(features, features)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(F.relu(self.conv1(x), inplace=True))
        return x + y * self.residual_scale


class EDSR(SRNet):
    """EDSR-baseline by default; the paper's full network is 256 features, 32 blocks, scale 0.1."""

    scales = (2, 3, 4, 8)

    mean: Tensor

    def __init__(
        self,
        scale: int,
        *,
        features: int = 64,
        blocks: int = 16,
        residual_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.scale = scale
        # A constant of the paper, not a learned value: absent from published files, so not saved.
        mean = torch.tensor(_DIV2K_MEAN).view(1, 3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.conv_first = conv3x3(3, features)
        self.body = nn.Sequential(*(_Block(features, residual_scale) for _ in range(blocks)))
        self.conv_after_body = conv3x3(features, features)
        self.upsample = subpixel(features, scale)
        self.conv_last = conv3x3(features, 3)
        radius = 2 + 2 * blocks + subpixel_radius(scale) + 1 / scale
        self.overlap = min(CONTEXT, math.ceil(radius))

    def forward(self, lr: Tensor) -> Tensor:
        """``(B, 3, H, W) -> (B, 3, scale * H, scale * W)``."""
        shallow = self.conv_first((lr - self.mean) * _LEVELS)
        deep = shallow + self.conv_after_body(self.body(shallow))
        sr: Tensor = self.conv_last(self.upsample(deep)) / _LEVELS + self.mean
        return sr
