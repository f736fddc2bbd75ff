"""SRCNN, the first convolutional network for super-resolution.

Dong et al. 2014, "Image Super-Resolution Using Deep Convolutional Networks", arXiv:1501.00092,
sections 3.1 and 4.3: patch extraction, non-linear mapping and reconstruction on the
bicubic-enlarged luma. ``middle`` 1 is the network "9-1-5", 5 is "9-5-5" (SRCNN-Ex).

As in the authors' test code the picture is continued by its border pixels, once and before the
first layer; training, too, then yields outputs as large as its targets.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from sr_module.archs.luma import LumaNet, enlarge, interpolated_radius


class SRCNN(LumaNet):
    """SRCNN 9-1-5 by default."""

    def __init__(
        self, scale: int, *, features: int = 64, mapping: int = 32, middle: int = 1
    ) -> None:
        super().__init__()
        if middle % 2 == 0:
            raise ValueError(f"srcnn: middle must be odd, got {middle}")
        self.scale = scale
        self.conv1 = nn.Conv2d(1, features, 9)
        self.conv2 = nn.Conv2d(features, mapping, middle)
        self.conv3 = nn.Conv2d(mapping, 1, 5)
        self.radius = 4 + middle // 2 + 2
        self.overlap = interpolated_radius(self.radius, scale)
        for conv in (self.conv1, self.conv2, self.conv3):
            nn.init.normal_(conv.weight, std=0.001)  # section 4.1
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)

    def luma_sr(self, y: Tensor) -> Tensor:
        """``(B, 1, H, W) -> (B, 1, scale * H, scale * W)``."""
        x = F.pad(enlarge(y, self.scale), [self.radius] * 4, mode="replicate")
        x = F.relu(self.conv1(x), inplace=True)
        x = F.relu(self.conv2(x), inplace=True)
        sr: Tensor = self.conv3(x)
        return sr
