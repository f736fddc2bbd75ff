"""FSRCNN: SRCNN made fast by working at low resolution and enlarging last.

Dong et al. 2016, "Accelerating the Super-Resolution Convolutional Neural Network",
arXiv:1608.00367, section 3: feature extraction, shrinking, ``mapping`` convolutions, expanding, one
9x9 transposed convolution. FSRCNN is (56, 12, 4), FSRCNN-s is (32, 5, 1).

The picture is continued by its border pixels once, before the first layer, so that small training
crops do not teach the network what zeros beyond the border look like. The transposed convolution is
computed as the ordinary one that it equals, with a pixel shuffle behind it: three times as fast.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_module.archs.packed import Convolution
from sr_module.archs.stack import Stack, StackNet, stack

_BESIDE = 2
"""Low-resolution neighbours on each side that the 9x9 transposed convolution gathers, at most."""


class FSRCNN(StackNet):
    """FSRCNN(d, s, m) with d ``features``, s ``shrunk`` and m ``mapping``."""

    taps: Tensor

    def __init__(
        self, scale: int, *, features: int = 56, shrunk: int = 12, mapping: int = 4
    ) -> None:
        super().__init__()
        self.scale = scale
        layers: list[nn.Module] = [nn.Conv2d(1, features, 5), nn.PReLU(features)]
        layers += [nn.Conv2d(features, shrunk, 1), nn.PReLU(shrunk)]
        for _ in range(mapping):
            layers += [nn.Conv2d(shrunk, shrunk, 3), nn.PReLU(shrunk)]
        layers += [nn.Conv2d(shrunk, features, 1), nn.PReLU(features)]
        self.body = nn.Sequential(*layers)
        self.deconv = nn.ConvTranspose2d(
            features, 1, 9, stride=scale, padding=4 + _BESIDE * scale, output_padding=scale - 1
        )
        self.register_buffer("taps", _taps(scale), persistent=False)
        self.overlap = 2 + mapping + (scale + 3) // scale
        self._initialise()

    def _initialise(self) -> None:
        """As in section 3.3: He's start for PReLU, a near-zero deconvolution."""
        for layer in self.body:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, a=0.25)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        nn.init.normal_(self.deconv.weight, std=0.001)
        assert self.deconv.bias is not None
        nn.init.zeros_(self.deconv.bias)

    def stack(self) -> Stack:
        """The convolutions with their PReLUs, and the transposed one."""
        pairs = zip(self.body[::2], self.body[1::2], strict=True)
        layers = [
            Convolution.of(conv, slopes=prelu.get_parameter("weight")) for conv, prelu in pairs
        ]
        last = Convolution(self._subpixel_kernel(), self._bias())
        return stack([*layers, last], factor=self.scale)

    def _subpixel_kernel(self) -> Tensor:
        """The deconvolution's weights ``(features, 1, 9, 9)`` as ``(scale**2, features, 5, 5)``."""
        around = F.pad(self.deconv.weight[:, 0], [_MARGIN] * 4)
        both = around.index_select(1, self.taps).index_select(2, self.taps)
        side = 2 * _BESIDE + 1
        kernel = both.view(-1, self.scale, side, self.scale, side)
        return kernel.permute(1, 3, 0, 2, 4).flatten(0, 1)  # (row, column) phase, feature, taps

    def _bias(self) -> Tensor:
        assert self.deconv.bias is not None
        return self.deconv.bias.expand(self.scale**2)


_MARGIN = 8


def _taps(scale: int) -> Tensor:
    """Which of the nine weights, counted with the margin, each output phase gives each neighbour.

    Output ``scale * j + phase`` hears input ``j + d`` through weight ``phase + 4 - scale * d``.
    """
    phase = torch.arange(scale).unsqueeze(1)
    neighbour = torch.arange(-_BESIDE, _BESIDE + 1)
    return (phase + 4 - scale * neighbour + _MARGIN).flatten()
