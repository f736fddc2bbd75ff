"""Pixel-recursive super-resolution: each pixel is drawn, given low resolution and those before it.

Dahl et al. 2017, "Pixel Recursive Super Resolution", arXiv:1702.00783, section 3: a conditioning
network sees the low-resolution picture, a PixelCNN the pixels above and to the left of the result,
and the sum of their logits is a softmax over the 256 levels of a channel. The loss is the
cross-entropy of the sum plus that of the conditioning network alone, which would otherwise be
ignored.

The PixelCNN is ``pixel_cnn.py``. Departure: no batch normalisation.

``forward`` gives the mean of the conditioning network's distribution, for pictures of any size;
``sample`` draws pictures, no larger than ``side``, which the PixelCNN was trained on.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_module.archs.layers import conv3x3
from sr_module.archs.pixel_cnn import LEVELS, Prior, Rows
from sr_module.net import Criterion, Progress, SRNet


class PixelRecursive(SRNet):
    """A conditioning network and a PixelCNN prior."""

    scales = (2, 4)
    score_names = ("bits_per_dim", "bits_per_dim_conditioning")

    def __init__(
        self,
        scale: int,
        *,
        side: int = 32,
        features: int = 32,
        blocks: int = 6,
        prior_features: int = 64,
        prior_layers: int = 20,
        hidden: int = 1024,
    ) -> None:
        super().__init__()
        self.scale, self.side = scale, side
        self.conditioning = Conditioning(scale, features, blocks)
        self.prior = Prior(prior_features, prior_layers, hidden)
        self.overlap = self.conditioning.radius

    def forward(self, lr: Tensor) -> Tensor:
        """The expected picture ``(B, 3, scale * H, scale * W)`` of the conditioning network."""
        x = self.conditioning.features(lr)
        levels = torch.arange(LEVELS, device=lr.device).view(1, -1, 1, 1) / (LEVELS - 1)
        heads = (conv(x).float() for conv in self.conditioning.heads)
        return torch.cat([(y.softmax(1) * levels).sum(1, keepdim=True) for y in heads], 1)

    def loss(self, lr: Tensor, hr: Tensor, criterion: Criterion) -> Tensor:
        """Both cross-entropies in nats a value; a likelihood has no use for the criterion."""
        whole, alone = self._cross_entropies(lr, hr)
        return whole.mean() + alone.mean()

    def scores(self, lr: Tensor, hr: Tensor) -> Tensor:
        """Bits a value (pixel and channel) of the whole and of the conditioning network alone."""
        means = [each.mean((1, 2, 3)) for each in self._cross_entropies(lr, hr)]
        return torch.stack(means) / math.log(2)

    def _cross_entropies(self, lr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor]:
        levels = (hr * (LEVELS - 1)).round().long()
        alone = self.conditioning(lr).float()
        whole = alone + self.prior(_centred(levels)).float()
        return (
            F.cross_entropy(whole.transpose(1, 2), levels, reduction="none"),
            F.cross_entropy(alone.transpose(1, 2), levels, reduction="none"),
        )

    @torch.no_grad()
    def sample(
        self,
        lr: Tensor,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
        cached: bool = True,
    ) -> Tensor:
        """Draws pictures ``(B, 3, scale * H, scale * W)``, pixel by pixel.

        Args:
            lr: ``(B, 3, H, W)`` in [0, 1].
            temperature: logits are divided by it; 0 takes the likeliest level.
            generator: of the random numbers.
            progress: called with the rows done and the rows in all, after each.
            cached: compute what is new for each pixel; otherwise the whole PixelCNN is run again,
                with the same result.

        Raises:
            ValueError: a picture larger than the network's, or a negative temperature.
        """
        self._check(lr, temperature)
        logits = self.conditioning(lr).float()
        batch, _, _, height, width = logits.shape
        levels = torch.zeros(batch, 3, height, width, dtype=torch.long, device=lr.device)
        steps = self._cached(levels) if cached else self._naive(levels)
        for place, (channel, y, x, more) in enumerate(steps, 1):
            chosen = logits[:, channel, :, y, x] + more.float()
            levels[:, channel, y, x] = _drawn(chosen, temperature, generator)
            if progress is not None and place % (3 * width) == 0:
                progress(y + 1, height)
        return levels.float() / (LEVELS - 1)

    def _check(self, lr: Tensor, temperature: float) -> None:
        height, width = (self.scale * side for side in lr.shape[-2:])
        if max(height, width) > self.side:
            most = self.side // self.scale
            raise ValueError(
                f"a result of {width} x {height} pixels is larger than the {self.side} x "
                f"{self.side} that this network was made for; give pictures of {most} x {most} "
                "pixels at most, such as pieces of this one"
            )
        if not 0 <= temperature < math.inf:
            raise ValueError(f"temperature must be 0 or more, got {temperature}")

    def _naive(self, levels: Tensor) -> Iterator[tuple[int, int, int, Tensor]]:
        """Logits of the prior for each value in turn, from all pixels so far."""
        height, width = levels.shape[-2:]
        for y in range(height):
            for x in range(width):
                for channel in range(3):
                    yield channel, y, x, self.prior(_centred(levels))[:, channel, :, y, x]

    def _cached(self, levels: Tensor) -> Iterator[tuple[int, int, int, Tensor]]:
        """The same; every feature of the prior is computed once, when what it reads is known."""
        height, width = levels.shape[-2:]
        rows = Rows(self.prior, levels.shape[0], height, width, levels.device)
        for y in range(height):
            rows.begin(y)
            for x in range(width):
                h = rows.features(x)
                for channel in range(3):
                    seen = _centred(levels[:, :channel, y, x])
                    yield channel, y, x, self.prior.logits_at(h, seen, channel)
                rows.put(y, x, _centred(levels[:, :, y, x]))


class Conditioning(nn.Module):
    """Residual blocks and transposed convolutions (table 1 of the paper)."""

    def __init__(self, scale: int, features: int, blocks: int) -> None:
        super().__init__()
        doublings = scale.bit_length() - 1
        layers: list[nn.Module] = [nn.Conv2d(3, features, 1)]
        for _ in range(doublings):
            layers += [_Residual(features) for _ in range(blocks)]
            layers += [
                nn.ConvTranspose2d(features, features, 3, 2, padding=1, output_padding=1),
                nn.ReLU(inplace=True),
            ]
        layers += [_Residual(features) for _ in range(blocks)]
        self.body = nn.Sequential(*layers)
        self.heads = nn.ModuleList(nn.Conv2d(features, LEVELS, 1) for _ in range(3))
        reach = sum(2 * blocks / 2**k for k in range(doublings + 1))
        self.radius = math.ceil(reach + sum(1 / 2**k for k in range(doublings)))

    def features(self, lr: Tensor) -> Tensor:
        """``(B, 3, H, W) -> (B, features, scale * H, scale * W)``."""
        x: Tensor = self.body(lr - 0.5)
        return x

    def forward(self, lr: Tensor) -> Tensor:
        """Logits ``(B, 3, 256, scale * H, scale * W)``."""
        x = self.features(lr)
        return torch.stack([head(x) for head in self.heads], 1)


class _Residual(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv3x3(features, features), conv3x3(features, features)

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.conv2(F.relu(self.conv1(x)))
        return F.relu(x + changed)


def _centred(levels: Tensor) -> Tensor:
    """Levels as values in [-1, 1]."""
    return levels.float() * (2 / (LEVELS - 1)) - 1


def _drawn(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    """One level for each row of ``(B, 256)``."""
    if temperature == 0:
        return logits.argmax(1)
    shares = (logits.double() / temperature).softmax(1).cumsum(1)
    device = generator.device if generator is not None else logits.device
    drawn = torch.rand(len(logits), 1, dtype=torch.double, device=device, generator=generator)
    return torch.searchsorted(shares, drawn.to(logits.device)).clamp_max(LEVELS - 1).squeeze(1)
