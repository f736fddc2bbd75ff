"""Plain stacks of valid convolutions on luma, and the same prepared for inference on a CPU.

SRCNN, FSRCNN and ESPCN are such stacks. They are so small that most of their time goes into
everything but multiplications, which this file takes away: activations computed in passes of their
own, weights laid out anew for every call, and last layers whose few outputs fill a fraction of a
vector register.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_module.archs.luma import LumaNet, enlarge, enlarge_around, luma

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": torch.relu,
    "tanh": torch.tanh,
}
"""By oneDNN's names."""


@dataclass(frozen=True)
class Convolution:
    """A valid convolution and what follows it."""

    weight: Tensor
    bias: Tensor
    activation: str = "none"
    slopes: Tensor | None = None
    """Of a PReLU that follows, one a channel."""
    step: int = 1
    """Stride."""

    @classmethod
    def of(
        cls, conv: nn.Module, activation: str = "none", slopes: Tensor | None = None
    ) -> "Convolution":
        """With the weights of an ``nn.Conv2d``."""
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        return cls(conv.weight, conv.bias, activation, slopes)

    def __call__(self, x: Tensor) -> Tensor:
        """``(B, C, H, W) -> (B, outputs, H', W')``."""
        x = F.conv2d(x, self.weight, self.bias, stride=self.step)
        x = _ACTIVATIONS[self.activation](x)
        return x if self.slopes is None else F.prelu(x, self.slopes)


class Packed:
    """A ``Convolution`` in oneDNN's own layout, its activation computed where it is in registers.

    The operators are those that torch's own compiler ends in when it freezes a network.
    """

    def __init__(self, layer: Convolution, dtype: torch.dtype) -> None:
        def cast(x: Tensor) -> Tensor:
            return x.detach().to(dtype).contiguous()  # the operators read strides of one

        self.dtype, self.step = dtype, layer.step
        weight, slopes = cast(layer.weight), layer.slopes
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(
            weight, [0, 0], [layer.step] * 2, [1, 1], 1
        )
        # the weight is kept: one that needs no other order may be lent to oneDNN, not copied
        self.layer = replace(
            layer,
            weight=weight,
            bias=cast(layer.bias),
            slopes=None if slopes is None else cast(slopes),
        )

    def __call__(self, x: Tensor) -> Tensor:
        """As the convolution's; the result is of the type that this was packed for."""
        x = x.to(self.dtype).contiguous(memory_format=torch.channels_last)
        made: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x,
            self.weight,
            self.layer.bias,
            [0, 0],
            [self.step] * 2,
            [1, 1],
            1,
            self.layer.activation,
            [],
            "",
        )
        return made if self.layer.slopes is None else _prelu(made, self.layer.slopes)


def _prelu(x: Tensor, slopes: Tensor) -> Tensor:
    """PReLU of channels-last pixels, a row of the picture at a time.

    Torch takes one pixel's channels at a time, which is ten times slower for 12 or 56 of them.
    """
    batch, channels, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(-1, width * channels)
    made = F.prelu(rows, slopes.repeat(width))
    return made.view(batch, height, width, channels).permute(0, 3, 1, 2)


class Stack(NamedTuple):
    """Convolutions one after another, the last of which makes ``factor^2`` pixels of one."""

    layers: tuple[Callable[[Tensor], Tensor], ...]
    radius: int
    factor: int
    block: int

    def __call__(self, y: Tensor) -> Tensor:
        """``(B, 1, H, W) -> (B, 1, factor * H, factor * W)``; the border pixels continue it."""
        height, width = y.shape[-2:]
        right, below = self.radius + -width % self.block, self.radius + -height % self.block
        x = F.pad(y, [self.radius, right, self.radius, below], mode="replicate")
        for layer in self.layers:
            x = layer(x)
        sr = F.pixel_shuffle(x, self.factor * self.block)
        return sr[..., : self.factor * height, : self.factor * width]

    def packed(self, dtype: torch.dtype) -> "Stack":
        """The same, for inference."""
        layers = [Packed(x, dtype) if isinstance(x, Convolution) else x for x in self.layers]
        return self._replace(layers=tuple(layers))


def stack(layers: list[Convolution], *, factor: int = 1) -> Stack:
    """A stack whose last layer has ``factor^2`` outputs, row by row of the pixels they make.

    One or four outputs leave most of a vector register idle. So the last layer is computed for
    blocks of 4 x 4 or 2 x 2 pixels at once: a larger kernel with mostly zeros added, but sixteen
    outputs, in a third to a fifth of the time.
    """
    exporting = torch.compiler.is_exporting()  # blocks would tie the sides to multiples
    block = 1 if exporting else {1: 4, 2: 2}.get(factor, 1)
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

    enlarges_first = False
    """Whether the stack works on the bicubic enlargement."""

    def stack(self) -> Stack:
        """The network's layers as they are now."""
        raise NotImplementedError

    def luma_sr(self, y: Tensor) -> Tensor:
        """``(B, 1, H, W) -> (B, 1, scale * H, scale * W)``."""
        return self.stack()(enlarge(y, self.scale) if self.enlarges_first else y)

    def prepared(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """``forward`` on a CPU with everything prepared that does not depend on the picture."""
        if not _can_pack(dtype):
            return self
        stack = self.stack().packed(dtype)

        def run(lr: Tensor) -> Tensor:
            if self.enlarges_first:
                up = enlarge(lr, self.scale)
                return self.with_luma(up, stack(luma(up)))
            y = luma(lr)
            return enlarge_around(lr, y, stack(y))

        return run


def _can_pack(dtype: torch.dtype) -> bool:
    """Whether this build of torch and this machine have oneDNN, and bf16 in it."""
    here = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not (here and hasattr(torch.ops.mkldnn, "_reorder_convolution_weight")):
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
