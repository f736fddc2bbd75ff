"""Gated PixelCNN: the likelihood of each pixel, given those above and to the left of it.

van den Oord et al. 2016, "Conditional Image Generation with PixelCNN Decoders", arXiv:1606.05328,
section 2: a vertical stack sees the rows above, a horizontal one the pixels to the left, and
together they leave no blind spot. Departure: the dependence of green on red, and of blue on both,
enters in the last hidden layer rather than through masks in all.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 256


class Prior(nn.Module):
    """A gated PixelCNN: logits of each value from the pixels above and to the left of it."""

    def __init__(self, features: int, layers: int, hidden: int) -> None:
        super().__init__()
        first = GatedLayer(3, features, 7, first=True)
        rest = [GatedLayer(features, features, 5) for _ in range(layers)]
        self.layers = nn.ModuleList([first, *rest])
        self.features = features
        self.hidden = nn.Conv2d(features, hidden, 1)
        # Red is known to green, red and green are known to blue.
        self.seen = nn.ModuleList(nn.Conv2d(known, hidden, 1, bias=False) for known in (1, 2))
        self.heads = nn.ModuleList(nn.Conv2d(hidden, LEVELS, 1) for _ in range(3))

    def forward(self, y: Tensor) -> Tensor:
        """Values ``(B, 3, H, W)`` in [-1, 1] -> logits ``(B, 3, 256, H, W)``."""
        v, h = y, y
        for layer in self.layers:
            v, h = layer(v, h)
        return torch.stack([self.logits(h, y[:, :channel], channel) for channel in range(3)], 1)

    def logits(self, h: Tensor, seen: Tensor, channel: int) -> Tensor:
        """Logits ``(B, 256, H, W)`` of a channel, from features and the channels before it."""
        x = self.hidden(F.relu(h))
        if channel:
            x = x + self.seen[channel - 1](seen)
        made: Tensor = self.heads[channel](F.relu(x))
        return made

    def logits_at(self, h: Tensor, seen: Tensor, channel: int) -> Tensor:
        """The same of one pixel: ``(B, features)``, ``(B, channel)`` -> ``(B, 256)``."""
        return self.logits(h[..., None, None], seen[..., None, None], channel)[..., 0, 0]


class GatedLayer(nn.Module):
    """One layer of both stacks; the first neither sees the row nor the pixel itself."""

    def __init__(self, inputs: int, features: int, kernel: int, *, first: bool = False) -> None:
        super().__init__()
        self.first, self.reach = first, kernel // 2
        tall, wide = self.reach + (not first), self.reach + (not first)
        self.vertical = nn.Conv2d(inputs, 2 * features, (tall, kernel))
        self.horizontal = nn.Conv2d(inputs, 2 * features, (1, wide))
        self.link = nn.Conv2d(2 * features, 2 * features, 1)
        self.mix = nn.Conv2d(features, features, 1)

    def forward(self, v: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Both stacks ``(B, C, H, W)``: what is known from the rows above, and from the row."""
        height, width = v.shape[-2:]
        above = F.pad(v, (self.reach, self.reach, self.reach, 0))
        down = self.vertical(above)[..., :height, :]
        across = self.horizontal(F.pad(h, (self.reach, 0)))[..., :width]
        mixed = self.mix(_gated(across + self.link(down)))
        return _gated(down), mixed if self.first else h + mixed


class Rows:
    """What the prior has computed so far of a picture, one row and one pixel at a time."""

    def __init__(
        self, prior: Prior, batch: int, height: int, width: int, device: torch.device
    ) -> None:
        self.layers = [layer for layer in prior.layers if isinstance(layer, GatedLayer)]
        self.width = width
        inputs = [3, *[prior.features] * (len(self.layers) - 1)]
        reaches = [layer.reach for layer in self.layers]
        # Inputs of each layer's vertical stack with the zeros around them, and of its row.
        self.above = [
            torch.zeros(batch, n, height + r, width + 2 * r, device=device)
            for n, r in zip(inputs, reaches, strict=True)
        ]
        self.row = [
            torch.zeros(batch, n, width + r, device=device)
            for n, r in zip(inputs, reaches, strict=True)
        ]
        self.taps = [layer.horizontal.weight.flatten(1).T.contiguous() for layer in self.layers]
        self.mixes = [layer.mix.weight.flatten(1).T.contiguous() for layer in self.layers]
        self.links: list[Tensor] = []

    def begin(self, y: int) -> None:
        """Computes what a row inherits from those above it, in all layers."""
        self.links = []
        for place, layer in enumerate(self.layers):
            tall = layer.vertical.kernel_size[0]
            down = layer.vertical(self.above[place][:, :, y : y + tall])
            if place + 1 < len(self.layers):
                later = self.layers[place + 1].reach
                kept = self.above[place + 1][:, :, y + later, later : later + self.width]
                kept.copy_(_gated(down)[:, :, 0])
            bias = layer.horizontal.bias
            assert bias is not None
            linked = layer.link(down)[:, :, 0] + bias.unsqueeze(-1)
            self.links.append(linked.transpose(1, 2).contiguous())
            self.row[place].zero_()

    def features(self, x: int) -> Tensor:
        """The last layer's features ``(B, C)`` of a pixel."""
        h = torch.empty(0)
        for place, layer in enumerate(self.layers):
            if place:
                self.row[place][:, :, x + layer.reach] = h
            read = self.row[place][:, :, x : x + layer.horizontal.kernel_size[1]].flatten(1)
            across = torch.addmm(self.links[place][:, x], read, self.taps[place])
            assert layer.mix.bias is not None
            mixed = torch.addmm(layer.mix.bias, _gated(across), self.mixes[place])
            h = mixed if layer.first else h + mixed
        return h

    def put(self, y: int, x: int, values: Tensor) -> None:
        """Makes a pixel's values ``(B, 3)`` known."""
        reach = self.layers[0].reach
        self.row[0][:, :, x + reach] = values
        self.above[0][:, :, y + reach, x + reach] = values


def _gated(x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    return a.tanh() * b.sigmoid()
