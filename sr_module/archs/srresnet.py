"""SRResNet, and the normalisation-free form of it that is trained today.

Ledig et al. 2017, "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial
Network", arXiv:1609.04802, section 2.1 and figure 4: sixteen residual blocks at low resolution,
one long skip, sub-pixel enlargement at the end.

Departure of ``SRResNet``: the output is in [0, 1] like every picture here, not in [-1, 1]; the last
convolution learns the difference.

``MSRResNet`` is the "modified SRResNet" of the ESRGAN authors (Wang et al. 2018, arXiv:1809.00219):
no batch normalisation, 3x3 everywhere, the enlarged input added at the end, a small start. Its
parameter names are those of the published files.
"""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from sr_module.archs.layers import (
    CONTEXT,
    conv3x3,
    scaled_kaiming_,
    subpixel,
    subpixel_radius,
    subpixel_stages,
)
from sr_module.net import SRNet


class _NormalisedBlock(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            conv3x3(features, features),
            nn.BatchNorm2d(features),
            nn.PReLU(),
            conv3x3(features, features),
            nn.BatchNorm2d(features),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.branch(x)
        return y


class SRResNet(SRNet):
    """SRResNet as in the paper: batch normalisation, PReLU, 9x9 first and last convolution."""

    scales = (2, 3, 4, 8)

    def __init__(self, scale: int, *, features: int = 64, blocks: int = 16) -> None:
        super().__init__()
        self.scale = scale
        self.head = nn.Sequential(nn.Conv2d(3, features, 9, padding=4), nn.PReLU())
        self.body = nn.Sequential(
            *(_NormalisedBlock(features) for _ in range(blocks)),
            conv3x3(features, features),
            nn.BatchNorm2d(features),
        )
        self.upsample = subpixel(features, scale, nn.PReLU)
        self.tail = nn.Conv2d(features, 3, 9, padding=4)
        radius = 4 + 2 * blocks + 1 + subpixel_radius(scale) + 4 / scale
        self.overlap = min(CONTEXT, math.ceil(radius))

    def forward(self, lr: Tensor) -> Tensor:
        """``(B, 3, H, W) -> (B, 3, scale * H, scale * W)``."""
        shallow = self.head(lr)
        sr: Tensor = self.tail(self.upsample(shallow + self.body(shallow)))
        return sr


class _Block(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(features, features)
        self.conv2 = conv3x3(features, features)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.conv2(F.relu(self.conv1(x), inplace=True))
        return y


class MSRResNet(SRNet):
    """SRResNet without batch normalisation, added to the bilinear enlargement of its input."""

    def __init__(self, scale: int, *, features: int = 64, blocks: int = 16) -> None:
        super().__init__()
        self.scale = scale
        stages = subpixel_stages(scale)
        self.conv_first = conv3x3(3, features)
        self.body = nn.Sequential(*(_Block(features) for _ in range(blocks)))
        self.upconv1 = conv3x3(features, features * stages[0] ** 2)
        if len(stages) == 2:
            self.upconv2 = conv3x3(features, features * stages[1] ** 2)
        self.conv_hr = conv3x3(features, features)
        self.conv_last = conv3x3(features, 3)
        scaled_kaiming_(self, 0.1)
        radius = 1 + 2 * blocks + subpixel_radius(scale) + 2 / scale
        self.overlap = min(CONTEXT, math.ceil(radius))

    def forward(self, lr: Tensor) -> Tensor:
        """``(B, 3, H, W) -> (B, 3, scale * H, scale * W)``."""
        x = self.body(_rectify(self.conv_first(lr)))
        stages = subpixel_stages(self.scale)
        x = _rectify(F.pixel_shuffle(self.upconv1(x), stages[0]))
        if len(stages) == 2:
            x = _rectify(F.pixel_shuffle(self.upconv2(x), stages[1]))
        x = self.conv_last(_rectify(self.conv_hr(x)))
        skip = F.interpolate(lr, scale_factor=self.scale, mode="bilinear", align_corners=False)
        sr: Tensor = x + skip
        return sr


def _rectify(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.1, inplace=True)
