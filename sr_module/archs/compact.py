"""The compact network of Real-ESRGAN.

Wang et al. 2021, "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic
Data", arXiv:2107.10833, released with its code as the small model for video: a plain VGG-like
stack at low resolution, one pixel shuffle, and the nearest enlargement of the input added.
Parameter names are those of the published files. Departure: weights start by He's rule for PReLU,
where the published code leaves them as torch does; a signal would fade to nothing in the stack.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_module.archs.layers import conv3x3
from sr_module.archs.packed import Convolution, Packed, can_pack
from sr_module.net import SRNet, finished


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
        return self._enlarged(lr, self.body(lr))

    def _enlarged(self, lr: Tensor, detail: Tensor) -> Tensor:
        """The nearest enlargement and what the stack adds to every pixel that one becomes."""
        return F.pixel_shuffle(detail + lr.repeat_interleave(self.scale**2, dim=1), self.scale)

    def prepared(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """``forward`` and ``finished``, a row of a picture's PReLUs at once."""
        if not can_pack(dtype):
            return super().prepared(dtype)
        convs, slopes = self.body[::2], [each.get_parameter("weight") for each in self.body[1::2]]
        layers = [
            Packed(Convolution.of(conv, slopes=its), dtype)
            for conv, its in zip(convs, [*slopes, None], strict=True)
        ]

        def run(lr: Tensor) -> Tensor:
            x = lr
            for layer in layers:
                x = layer(x)
            return finished(self._enlarged(lr, x))

        return run
