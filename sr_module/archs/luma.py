"""What the networks of the Y channel share (SRCNN, FSRCNN, ESPCN, VDSR, DRCN, VESPCN).

Their papers enlarge the luma of a picture and leave the two colour channels to bicubic
interpolation. The change of colour space is linear, and luma enters red, green and blue with one
factor, so the whole of it is the bicubic enlargement plus that factor times what the network adds
to its luma: no picture is ever converted there and back.
"""

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_module.archs.packed import (
    Convolution,
    Packed,
    block_of,
    can_pack,
    shuffle_into,
    shuffled,
)
from sr_module.net import Criterion, SRNet, check_finite, finished

_GAIN = 255 / 219  # studio-range luma spans 16 to 235 (BT.601)
_RED, _GREEN, _BLUE = 65.481, 128.553, 24.966
_BAND = 2**20
"""Bytes of enlarged rows made at a time. Measured by itself, a third of it costs a third more time,
three times it a tenth less, but leaves less of a cache to the network beside it."""


class LumaNet(SRNet):
    """A network that enlarges luma; colour follows by bicubic interpolation."""

    def luma_sr(self, y: Tensor) -> Tensor:
        """The network proper: luma ``(B, 1, H, W)`` -> ``(B, 1, scale * H, scale * W)``."""
        raise NotImplementedError

    def forward(self, lr: Tensor) -> Tensor:
        """``(B, 3, H, W) -> (B, 3, scale * H, scale * W)``."""
        return self.with_luma(enlarge(lr, self.scale), self.luma_sr(luma(lr)))

    def with_luma(self, up: Tensor, y: Tensor) -> Tensor:
        """The enlarged picture ``(B, 3, H, W)`` with the luma ``(B, 1, H, W)`` in place of its."""
        return up + _GAIN * (y - luma(up))

    def loss(self, lr: Tensor, hr: Tensor, criterion: Criterion) -> Tensor:
        """The criterion between lumas, as in the papers."""
        return criterion(self.luma_sr(luma(lr)).float(), luma(hr))


def luma(image: Tensor) -> Tensor:
    """BT.601 luma in studio range: ``(B, 3, H, W)`` in [0, 1] -> ``(B, 1, H, W)``.

    Sums rather than a 1x1 convolution: autocast would round that to bfloat16.
    """
    red, green, blue = image[:, 0:1], image[:, 1:2], image[:, 2:3]
    return (_RED * red + _GREEN * green + _BLUE * blue + 16) / 255


def enlarge_around(lr: Tensor, y: Tensor, blocks: Tensor, scale: int) -> Tensor:
    """The bicubic enlargement of ``lr`` with other luma: that of ``lr`` less its luma, and the new.

    Args:
        lr: ``(B, 3, H, W)``.
        y: its luma, ``(B, 1, H, W)``.
        blocks: the new luma, all the pixels that a block of ``y``'s makes in one place:
            ``(B, side^2, H', W')`` or larger, ``side`` being ``scale * block_of(scale)``.
        scale: how many times as large the picture gets.

    Returns:
        ``(B, 3, scale * H, scale * W)``, ``finished``.
    """
    if _convolves(lr):
        padded, inside = _frame(lr, scale)
        torch.sub(lr, y, alpha=_GAIN, out=inside)
        return _enlarged_at_once(padded, lr.shape[-2:], scale, onto=blocks)
    colour = torch.sub(lr, y, alpha=_GAIN)
    size = [scale * side for side in lr.shape[-2:]]
    sr_y = shuffled(blocks, scale * block_of(scale))[..., : size[0], : size[1]]
    return finished(enlarge(colour, scale) + _GAIN * sr_y.to(lr.dtype))


def enlarge(image: Tensor, scale: int) -> Tensor:
    """MATLAB's bicubic enlargement, as ``sr_module.resize`` defines it.

    Torch's antialiased form has Keys' a = -0.5; the border is continued symmetrically here, which
    it does not do. For inference on a CPU a convolution that makes many pixels at once takes its
    place, in a quarter of the time.
    """
    if _convolves(image):
        padded, inside = _frame(image, scale)
        inside.copy_(image)
        return _enlarged_at_once(padded, image.shape[-2:], scale)
    padded = _continued(_continued(image, -1), -2)
    height, width = padded.shape[-2:]
    size = [scale * height, scale * width]
    up = F.interpolate(padded, size=size, mode="bicubic", antialias=True)
    edge = 2 * scale
    return up[..., edge:-edge, edge:-edge]


def _convolves(image: Tensor) -> bool:
    on_cpu = image.device.type == "cpu" and image.dtype == torch.float32
    return on_cpu and torch.is_inference_mode_enabled() and can_pack(torch.float32)


def _frame(image: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """Room for ``image`` in whole blocks with two pixels around, and the part that it takes."""
    block = block_of(scale)
    height, width = image.shape[-2:]
    sides = [side + -side % block + 4 for side in (height, width)]
    padded = image.new_zeros(*image.shape[:-2], *sides)
    return padded, padded[..., 2 : 2 + height, 2 : 2 + width]


def _enlarged_at_once(
    padded: Tensor, size: Sequence[int], scale: int, onto: Tensor | None = None
) -> Tensor:
    """Blocks of pixels, 16 or more outputs of one convolution, brought into place.

    Plane by plane in bands of rows that stay in the processor's cache.

    Args:
        padded: ``(B, C, ...)``: a picture in its ``_frame``, which is filled here.
        size: height and width of the picture.
        scale: how many times as large it gets.
        onto: luma to add to every channel, in such blocks; the sum is ``finished``.
    """
    block = block_of(scale)
    side = scale * block
    batch, channels = padded.shape[:2]
    down, across = ((length - 4) // block for length in padded.shape[-2:])
    _continue_symmetrically(padded, size)
    sr = padded.new_empty(batch, channels, side * down, side * across)
    rows = max(1, _BAND // (batch * across * side**2 * padded.element_size()))
    for top in range(0, down, rows):
        stop = min(top + rows, down)
        light = None
        if onto is not None:
            light = onto[:, :, top:stop, :across].to(padded.dtype) * _GAIN
            check_finite(light)
        for channel in range(channels):
            plane = padded[:, channel : channel + 1, block * top : block * stop + 4]
            made = _bicubic(scale, block)(plane)
            if light is not None:
                made.add_(light).clamp_(0, 1)
            shuffle_into(sr[:, channel : channel + 1, side * top : side * stop], made, side)
    return sr[..., : scale * size[0], : scale * size[1]]


@functools.cache
def _bicubic(scale: int, block: int) -> Packed:
    """Enlarges ``block`` x ``block`` pixels, of which it reads two more on each side."""
    with torch.inference_mode(False):
        # what every pixel of a strip gives the enlarged ones: torch's own weights
        reads = block + 4
        strip = torch.eye(reads, dtype=torch.float64).view(reads, 1, 1, reads)
        size = [scale, scale * reads]
        taps = F.interpolate(strip, size=size, mode="bicubic", antialias=True)[:, 0, 0]
        taps = taps[:, 2 * scale : -2 * scale].T  # (outputs of the block, reads)
        weight = torch.einsum("yi,xj->yxij", taps, taps).flatten(0, 1).unsqueeze(1)
        return Packed(Convolution(weight, weight.new_zeros(len(weight)), step=block), torch.float32)


def _continue_symmetrically(padded: Tensor, size: Sequence[int]) -> None:
    """Fills two pixels on all sides of a picture of that size, whose first is at (2, 2)."""
    for dim, length in ((-1, size[1]), (-2, size[0])):
        for place, source in zip((0, 1, length + 2, length + 3), _beside(length), strict=True):
            padded.select(dim, place).copy_(padded.select(dim, 2 + source))


def _continued(image: Tensor, dim: int) -> Tensor:
    """Two pixels more on both sides of one axis: ``1 0 | 0 1 ... n-1 | n-1 n-2``."""
    order = torch.tensor(_beside(image.shape[dim]), device=image.device)
    before, after = image.index_select(dim, order).tensor_split(2, dim)
    return torch.cat((before, image, after), dim)


def _beside(length: int) -> tuple[int, int, int, int]:
    """Which pixels of an axis stand in for the two before it and the two behind it."""
    inner = min(1, length - 1)  # a single one continues itself
    return inner, 0, length - 1, length - 1 - inner


def interpolated_radius(radius: int, scale: int) -> int:
    """Tile context in input pixels of a network that reads ``radius`` enlarged pixels around."""
    return math.ceil((radius + (scale - 1) / 2) / scale) + 1  # the bicubic kernel reaches one on


def with_detail(up: Tensor, detail: Tensor) -> Tensor:
    """The enlarged picture ``(B, 3, H, W)`` with ``detail`` ``(B, 1, H, W)`` added to its luma."""
    return up + _GAIN * detail
