"""FSRCNN: SRCNN made fast by working at low resolution and enlarging last.

Dong et al. 2016, "Accelerating the Super-Resolution Convolutional Neural Network",
arXiv:1608.00367, section 3: feature extraction, shrinking, ``mapping`` convolutions, expanding, one
9x9 transposed convolution. FSRCNN is (56, 12, 4), FSRCNN-s is (32, 5, 1).

The picture is continued by its border pixels once, before the first layer, so that small training
crops do not teach the network what zeros beyond the border look like.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from sr_module.archs.luma import LumaNet

_BESIDE = 2
"""Low-resolution neighbours on each side that the 9x9 transposed convolution gathers, at most."""


class FSRCNN(LumaNet):
    """FSRCNN(d, s, m) with d ``features``, s ``shrunk`` and m ``mapping``."""

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
        self.radius = 2 + mapping + _BESIDE
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

    def luma_sr(self, y: Tensor) -> Tensor:
        """``(B, 1, H, W) -> (B, 1, scale * H, scale * W)``."""
        x = self.body(F.pad(y, [self.radius] * 4, mode="replicate"))
        sr: Tensor = self.deconv(x)
        return sr
