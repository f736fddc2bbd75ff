"""SRCNN, the first convolutional network for super-resolution.

Dong et al. 2014, "Image Super-Resolution Using Deep Convolutional Networks", arXiv:1501.00092,
sections 3.1 and 4.3: patch extraction, non-linear mapping and reconstruction on the
bicubic-enlarged luma. ``middle`` 1 is the network "9-1-5", 5 is "9-5-5" (SRCNN-Ex).

As in the authors' test code the picture is continued by its border pixels, once and before the
first layer; training, too, then yields outputs as large as its targets.
"""

from torch import nn

from sr_module.archs.luma import interpolated_radius
from sr_module.archs.packed import Convolution
from sr_module.archs.stack import Stack, StackNet, stack


class SRCNN(StackNet):
    """SRCNN 9-1-5 by default."""

    enlarges_first = True
    has_int8 = True

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
        self.overlap = interpolated_radius(4 + middle // 2 + 2, scale)
        for conv in (self.conv1, self.conv2, self.conv3):
            nn.init.normal_(conv.weight, std=0.001)  # section 4.1
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)

    def stack(self) -> Stack:
        """The three layers."""
        convs = ((self.conv1, "relu"), (self.conv2, "relu"), (self.conv3, "none"))
        return stack([Convolution.of(c, activation) for c, activation in convs])
