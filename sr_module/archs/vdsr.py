"""VDSR: a very deep network that adds what bicubic interpolation lost.

Kim et al. 2016, "Accurate Image Super-Resolution Using Very Deep Convolutional Networks",
arXiv:1511.04587, sections 3.1 and 3.3: twenty 3x3 convolutions on the enlarged luma, one global
residual, and one set of weights for several scales.

The mixed scales are drawn from the batch itself: equal parts of it are reduced by each of them.
Parts other than the network's own scale know the bicubic reduction alone.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_module.archs.layers import conv3x3
from sr_module.archs.luma import LumaNet, enlarge, interpolated_radius, luma
from sr_module.net import Criterion
from sr_module.resize import crop_to_multiple, imresize


class VDSR(LumaNet):
    """VDSR; with ``mixed`` it is trained for, and serves, x2, x3 and x4 with the same weights."""

    def __init__(
        self, scale: int, *, features: int = 64, convs: int = 20, mixed: bool = True
    ) -> None:
        super().__init__()
        if convs < 2:
            raise ValueError(f"vdsr: convs must be 2 or more, got {convs}")
        self.scale = scale
        self.serves = self.scales if mixed else (scale,)
        layers: list[nn.Module] = [conv3x3(1, features), nn.ReLU(inplace=True)]
        for _ in range(convs - 2):
            layers += [conv3x3(features, features), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers, conv3x3(features, 1))
        self.overlap = interpolated_radius(convs, scale)
        for layer in self.body:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)  # section 5.2
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def luma_sr(self, y: Tensor) -> Tensor:
        """``(B, 1, H, W) -> (B, 1, scale * H, scale * W)``."""
        return self._add_detail(enlarge(y, self.scale))

    def loss(self, lr: Tensor, hr: Tensor, criterion: Criterion) -> Tensor:
        """The criterion between lumas, over parts of the batch at each of the scales served."""
        others = [scale for scale in self.serves if scale != self.scale]
        if not others or len(hr) <= len(others):
            return super().loss(lr, hr, criterion)
        share = len(hr) // (len(others) + 1)
        inputs = [enlarge(luma(lr[: len(hr) - share * len(others)]), self.scale)]
        for part, scale in zip(torch.split(hr[len(inputs[0]) :], share), others, strict=True):
            inputs.append(_reduced_and_enlarged(part, scale))
        blurred = torch.cat(inputs)
        return criterion(self._add_detail(blurred).float(), luma(hr))

    def _add_detail(self, enlarged: Tensor) -> Tensor:
        residual: Tensor = self.body(enlarged)
        return enlarged + residual


def _reduced_and_enlarged(hr: Tensor, scale: int) -> Tensor:
    """Luma of ``hr`` reduced by ``scale`` and enlarged to its old size."""
    height, width = hr.shape[-2:]
    low = luma(imresize(crop_to_multiple(hr, scale), 1 / scale))
    missing = height % scale, width % scale
    return F.pad(enlarge(low, scale), (0, missing[1], 0, missing[0]), mode="replicate")
