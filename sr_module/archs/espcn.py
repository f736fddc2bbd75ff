"""ESPCN: convolutions at low resolution, then one sub-pixel rearrangement.

Shi et al. 2016, "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
Convolutional Neural Network", arXiv:1609.05158, section 2: 5-3-3 kernels, 64 and 32 features, tanh,
nothing after the last convolution.

The picture is continued by its border pixels once, before the first layer, so that small training
crops do not teach the network what zeros beyond the border look like. Low resolution is the bicubic
one that all of this project trains on, where the paper blurs and subsamples.
"""

from torch import nn

from sr_module.archs.packed import Convolution
from sr_module.archs.stack import Stack, StackNet, stack


class ESPCN(StackNet):
    """ESPCN with tanh, the paper's better activation."""

    scales = (2, 3, 4, 8)
    has_int8 = True

    def __init__(self, scale: int, *, features: int = 64, mapping: int = 32) -> None:
        super().__init__()
        self.scale = scale
        self.conv1 = nn.Conv2d(1, features, 5)
        self.conv2 = nn.Conv2d(features, mapping, 3)
        self.conv3 = nn.Conv2d(mapping, scale**2, 3)
        self.overlap = 4  # of 5-3-3 kernels

    def stack(self) -> Stack:
        """The three layers."""
        convs = ((self.conv1, "tanh"), (self.conv2, "tanh"), (self.conv3, "none"))
        layers = [Convolution.of(c, activation) for c, activation in convs]
        return stack(layers, factor=self.scale)
