"""Plain stacks of valid convolutions on luma: SRCNN, FSRCNN and ESPCN are such stacks."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_module.archs.bands import Banded, Bands
from sr_module.archs.luma import LumaNet, enlarge, enlarge_around, luma
from sr_module.archs.packed import Convolution, Packed, block_of, can_pack, shuffled
from sr_module.archs.quantised import quantised
from sr_module.net import finished


class Stack(NamedTuple):
    """Convolutions one after another, the last of which makes ``factor^2`` pixels of one."""

    layers: tuple[Callable[[Tensor], Tensor], ...]
    radius: int
    factor: int
    block: int

    def __call__(self, y: Tensor) -> Tensor:
        """``(B, 1, H, W) -> (B, 1, factor * H, factor * W)``; the border pixels continue it."""
        height, width = y.shape[-2:]
        shuffle = shuffled if torch.is_inference_mode_enabled() else F.pixel_shuffle
        sr = shuffle(self.blocks(y), self.factor * self.block)
        return sr[..., : self.factor * height, : self.factor * width]

    def blocks(self, y: Tensor) -> Tensor:
        """The pixels that a block of ``y``'s makes in one place, as the last layer leaves them."""
        height, width = y.shape[-2:]
        right, below = self.radius + -width % self.block, self.radius + -height % self.block
        x = F.pad(y, [self.radius, right, self.radius, below], mode="replicate")
        for layer in self.layers:
            x = layer(x)
        return x

    def packed(self, dtype: torch.dtype) -> "Stack":
        """The same, for inference."""
        layers = [Banded.of(layer, Packed(layer, dtype)) for layer in self._convolutions()]
        return self._replace(layers=(Bands(layers, dtype.itemsize),))

    def quantised(self, *, enlarged: bool) -> "Stack":
        """The same in 8-bit integers, for inference on luma, a picture's or its enlargement's."""
        layers = quantised(self._convolutions(), enlarged=enlarged)
        return self._replace(layers=(Bands(layers, torch.bfloat16.itemsize),))

    def _convolutions(self) -> list[Convolution]:
        return [layer for layer in self.layers if isinstance(layer, Convolution)]


def stack(layers: list[Convolution], *, factor: int = 1) -> Stack:
    """A stack whose last layer has ``factor^2`` outputs, row by row of the pixels they make.

    One or four outputs leave most of a vector register idle. So the last layer is computed for
    blocks of 4 x 4 or 2 x 2 pixels at once: a larger kernel with mostly zeros added, but sixteen
    outputs, in a third to a fifth of the time.
    """
    exporting = torch.compiler.is_exporting()  # blocks would tie the sides to multiples
    block = 1 if exporting else block_of(factor)
    radius = sum(layer.weight.shape[-1] // 2 for layer in layers)
    *first, last = layers
    return Stack((*first, _in_blocks(last, factor, block)), radius, factor, block)


def _in_blocks(layer: Convolution, factor: int, block: int) -> Convolution:
    """The layer with an output for every pixel that a block of its inputs makes."""
    if block == 1:
        return layer
    kernels = torch.stack(
        [
            F.pad(layer.weight, [x, block - 1 - x, y, block - 1 - y])
            for y in range(block)
            for x in range(block)
        ]
    )
    places = kernels.view(block, block, factor, factor, *kernels.shape[2:])
    weight = places.transpose(1, 2).flatten(0, 3)  # row of block, row, column of block, column
    bias = layer.bias.view(1, factor, 1, factor).expand(block, factor, block, factor).flatten()
    return replace(layer, weight=weight, bias=bias, step=block)


class StackNet(LumaNet):
    """A network whose luma passes one stack of convolutions."""

    banded = True
    enlarges_first = False
    """Whether the stack works on the bicubic enlargement."""

    def stack(self) -> Stack:
        """The network's layers as they are now."""
        raise NotImplementedError

    def luma_sr(self, y: Tensor) -> Tensor:
        """``(B, 1, H, W) -> (B, 1, scale * H, scale * W)``."""
        return self.stack()(enlarge(y, self.scale) if self.enlarges_first else y)

    def prepared(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """``forward`` and ``finished``, everything prepared that does not depend on the picture."""
        if dtype == torch.int8:
            stack = self.stack().quantised(enlarged=self.enlarges_first)
        elif can_pack(dtype):
            stack = self.stack().packed(dtype)
        else:
            return super().prepared(dtype)

        def run(lr: Tensor) -> Tensor:
            lr = lr.contiguous()  # planes are read one by one
            if self.enlarges_first:
                up = enlarge(lr, self.scale)
                return finished(self.with_luma(up, stack(luma(up))))
            y = luma(lr)
            return enlarge_around(lr, y, stack.blocks(y), self.scale)

        return run
