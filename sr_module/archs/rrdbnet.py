"""RRDBNet, the generator of ESRGAN and Real-ESRGAN.

Wang et al. 2018, "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks",
arXiv:1809.00219, section 3.1: residual-in-residual dense blocks without normalisation, nearest
enlargement followed by convolutions. Enlargements below 4 put a pixel-unshuffle in front of the
same network (Wang et al. 2021, arXiv:2107.10833, section 3.4). Parameter names are those of the
published Real-ESRGAN files. No departure.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sr_module.archs.layers import CONTEXT, conv3x3, scaled_kaiming_
from sr_module.net import SRNet

_RESIDUAL_SCALE = 0.2  # ESRGAN, section 3.1


class _DenseBlock(nn.Module):
    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(features, growth)
        self.conv2 = conv3x3(features + growth, growth)
        self.conv3 = conv3x3(features + 2 * growth, growth)
        self.conv4 = conv3x3(features + 3 * growth, growth)
        self.conv5 = conv3x3(features + 4 * growth, features)
        scaled_kaiming_(self, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen = torch.cat((seen, _rectify(conv(seen))), dim=1)
        y: Tensor = self.conv5(seen)
        return x + y * _RESIDUAL_SCALE


class _RRDB(nn.Module):
    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = _DenseBlock(features, growth)
        self.rdb2 = _DenseBlock(features, growth)
        self.rdb3 = _DenseBlock(features, growth)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.rdb3(self.rdb2(self.rdb1(x)))
        return x + y * _RESIDUAL_SCALE


class RRDBNet(SRNet):
    """ESRGAN's generator; 23 blocks as published, 6 in the small "anime" one.

    ``recompute`` drops the inner activations of every block during training and computes them again
    in the backward pass: far less memory for about a third more time, the same gradients.
    """

    scales = (1, 2, 4)

    def __init__(
        self,
        scale: int,
        *,
        features: int = 64,
        blocks: int = 23,
        growth: int = 32,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.recompute = recompute
        self.multiple_of = 4 // scale  # pixel-unshuffle factor in front of the x4 network
        self.conv_first = conv3x3(3 * self.multiple_of**2, features)
        self.body = nn.Sequential(*(_RRDB(features, growth) for _ in range(blocks)))
        self.conv_body = conv3x3(features, features)
        self.conv_up1 = conv3x3(features, features)
        self.conv_up2 = conv3x3(features, features)
        self.conv_hr = conv3x3(features, features)
        self.conv_last = conv3x3(features, 3)
        radius = math.ceil(2 + 15 * blocks + 1 / 2 + 1 / 4 + 2 / 4)
        self.overlap = self.multiple_of * min(CONTEXT, radius)

    def forward(self, lr: Tensor) -> Tensor:
        """``(B, 3, H, W) -> (B, 3, scale * H, scale * W)``; sides divisible by ``multiple_of``."""
        shallow = self.conv_first(F.pixel_unshuffle(lr, self.multiple_of))
        x = shallow + self.conv_body(self._trunk(shallow))
        for conv in (self.conv_up1, self.conv_up2):
            x = _rectify(conv(F.interpolate(x, scale_factor=2, mode="nearest")))
        sr: Tensor = self.conv_last(_rectify(self.conv_hr(x)))
        return sr

    def _trunk(self, x: Tensor) -> Tensor:
        for block in self.body:
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x


def _rectify(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2, inplace=True)
