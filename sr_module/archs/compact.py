"""The compact network of Real-ESRGAN.

Wang et al. 2021, "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic
Data", arXiv:2107.10833, released with its code as the small model for video: a plain VGG-like
stack at low resolution, one pixel shuffle, and the nearest enlargement of the input added.
Parameter names are those of the published files. Departure: weights start by He's rule for PReLU,
where the published code leaves them as torch does; a signal would fade to nothing in the stack.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from sr_module.archs.layers import conv3x3
from sr_module.net import SRNet


class SRVGGNetCompact(SRNet):
    """A stack of ``convs`` + 2 convolutions with PReLU; 16 as published for video, else 32."""

    scales = (1, 2, 3, 4)

    def __init__(self, scale: int, *, features: int = 64, convs: int = 16) -> None:
        super().__init__()
        self.scale = scale
        layers: list[nn.Module] = [conv3x3(3, features), nn.PReLU(features)]
        for _ in range(convs):
            layers += [conv3x3(features, features), nn.PReLU(features)]
        self.body = nn.Sequential(*layers, conv3x3(features, 3 * scale**2))
        self.overlap = convs + 2
        self._initialise()

    def _initialise(self) -> None:
        """He et al. 2015, arXiv:1502.01852, section 2.2; the result starts near the nearest one."""
        *inner, last = (layer for layer in self.body if isinstance(layer, nn.Conv2d))
        for layer in (*inner, last):
            nn.init.kaiming_normal_(layer.weight, a=0.25)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        last.weight.data.mul_(0.1)

    def forward(self, lr: Tensor) -> Tensor:
        """``(B, 3, H, W) -> (B, 3, scale * H, scale * W)``."""
        nearest = F.interpolate(lr, scale_factor=self.scale, mode="nearest")
        sr: Tensor = F.pixel_shuffle(self.body(lr), self.scale) + nearest
        return sr
