"""DRCN: one convolution applied again and again, supervised after every application.

Kim et al. 2016, "Deeply-Recursive Convolutional Network for Image Super-Resolution",
arXiv:1511.04491, sections 3 and 4: embedding, a shared convolution applied sixteen times, a shared
reconstruction of every depth with the enlarged input added, and a learned weighted sum of the
sixteen predictions.

The paper lowers the share ``alpha`` of the intermediate predictions in the loss as training goes
on without saying how; here it falls in a straight line from 0.9 to 0 over ``supervised`` batches.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_module.archs.layers import conv3x3
from sr_module.archs.luma import LumaNet, enlarge, interpolated_radius, luma
from sr_module.net import Criterion

_FIRST_ALPHA = 0.9


class DRCN(LumaNet):
    """DRCN with sixteen recursions."""

    batches: Tensor

    def __init__(
        self, scale: int, *, features: int = 256, recursions: int = 16, supervised: int = 100_000
    ) -> None:
        super().__init__()
        self.scale = scale
        self.recursions, self.supervised = recursions, supervised
        self.embed = nn.Sequential(
            conv3x3(1, features), nn.ReLU(), conv3x3(features, features), nn.ReLU()
        )
        self.recurse = conv3x3(features, features)
        self.reconstruct = nn.Sequential(conv3x3(features, features), conv3x3(features, 1))
        self.ensemble = nn.Parameter(torch.full((recursions,), 1 / recursions))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))
        self.overlap = interpolated_radius(recursions + 4, scale)
        self._initialise()

    def _initialise(self) -> None:
        """As in section 5.2: the recursion begins as the identity, the rest as He's."""
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.kaiming_normal_(conv.weight)
                assert conv.bias is not None
                nn.init.zeros_(conv.bias)
        nn.init.dirac_(self.recurse.weight)

    def luma_sr(self, y: Tensor) -> Tensor:
        """``(B, 1, H, W) -> (B, 1, scale * H, scale * W)``.

        The reconstruction has no activation, so the weighted sum of what it makes of every depth is
        what it makes of the weighted sum: half of the operations, the same picture.
        """
        enlarged = enlarge(y, self.scale)
        weights, depths = self.ensemble.unbind(), self._depths(enlarged)
        mixed = torch.zeros_like(enlarged)
        for weight, x in zip(weights, depths, strict=True):
            mixed = mixed + weight * x
        share = self.ensemble.sum()
        for conv in self.reconstruct:
            assert isinstance(conv, nn.Conv2d)
            assert conv.bias is not None
            mixed = F.conv2d(mixed, conv.weight, share * conv.bias, padding=1)
        return share * enlarged + mixed

    def loss(self, lr: Tensor, hr: Tensor, criterion: Criterion) -> Tensor:
        """``alpha`` times the mean loss of all depths plus the rest of the ensemble's (eq. 7)."""
        target = luma(hr)
        predictions = [p.float() for p in self._predictions(enlarge(luma(lr), self.scale))]
        each = torch.stack([criterion(prediction, target) for prediction in predictions]).mean()
        alpha = _FIRST_ALPHA * (1 - self.batches / self.supervised).clamp_min(0)
        if self.training:
            self.batches += 1
        return alpha * each + (1 - alpha) * criterion(self._ensemble(predictions), target)

    def _predictions(self, enlarged: Tensor) -> list[Tensor]:
        return [enlarged + self.reconstruct(x) for x in self._depths(enlarged)]

    def _depths(self, enlarged: Tensor) -> Iterator[Tensor]:
        x = self.embed(enlarged)
        for _ in range(self.recursions):
            x = F.relu(self.recurse(x))
            yield x

    def _ensemble(self, predictions: list[Tensor]) -> Tensor:
        weighted = [w * p for w, p in zip(self.ensemble.unbind(), predictions, strict=True)]
        return torch.stack(weighted).sum(0)
