"""ESPCN: convolutions at low resolution, then one sub-pixel rearrangement.

Shi et al. 2016, "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
Convolutional Neural Network", arXiv:1609.05158, section 2: 5-3-3 kernels, 64 and 32 features, tanh,
nothing after the last convolution.

The picture is continued by its border pixels once, before the first layer, so that small training
crops do not teach the network what zeros beyond the border look like. Low resolution is the bicubic
one that all of this project trains on, where the paper blurs and subsamples.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from sr_module.archs.luma import LumaNet

_RADIUS = 4  # of 5-3-3 kernels


class ESPCN(LumaNet):
    """ESPCN with tanh, the paper's better activation."""

    scales = (2, 3, 4, 8)

    def __init__(self, scale: int, *, features: int = 64, mapping: int = 32) -> None:
        super().__init__()
        self.scale = scale
        self.conv1 = nn.Conv2d(1, features, 5)
        self.conv2 = nn.Conv2d(features, mapping, 3)
        self.conv3 = nn.Conv2d(mapping, scale**2, 3)
        self.overlap = _RADIUS

    def luma_sr(self, y: Tensor) -> Tensor:
        """``(B, 1, H, W) -> (B, 1, scale * H, scale * W)``."""
        x = F.pad(y, [_RADIUS] * 4, mode="replicate")
        x = self.conv2(self.conv1(x).tanh()).tanh()
        return F.pixel_shuffle(self.conv3(x), self.scale)
