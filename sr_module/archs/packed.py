"""Convolutions prepared for inference on a CPU, and the pixels that they make brought into place.

Small networks spend most of their time on everything but multiplications, which this file takes
away: activations computed in passes of their own, weights laid out anew for every call, and pixels
moved one by one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": torch.relu,
    "tanh": torch.tanh,
}
"""By oneDNN's names."""

_RUNS = {4: torch.float32, 8: torch.float64, 16: torch.complex128}
"""Types as wide as that many bytes."""


@dataclass(frozen=True)
class Convolution:
    """A convolution and what follows it."""

    weight: Tensor
    bias: Tensor
    activation: str = "none"
    slopes: Tensor | None = None
    """Of a PReLU that follows, one a channel."""
    step: int = 1
    """Stride."""
    margin: int = 0
    """Zeros around the picture, on each side."""

    @classmethod
    def of(
        cls, conv: nn.Module, activation: str = "none", slopes: Tensor | None = None
    ) -> "Convolution":
        """With the weights and the margin of an ``nn.Conv2d``, padded alike on all sides."""
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        return cls(conv.weight, conv.bias, activation, slopes, margin=int(conv.padding[0]))

    def __call__(self, x: Tensor) -> Tensor:
        """``(B, C, H, W) -> (B, outputs, H', W')``."""
        x = F.conv2d(x, self.weight, self.bias, stride=self.step, padding=self.margin)
        x = _ACTIVATIONS[self.activation](x)
        return x if self.slopes is None else F.prelu(x, self.slopes)


class Packed:
    """A ``Convolution`` in oneDNN's own layout, its activation computed where it is in registers.

    The operators are those that torch's own compiler ends in when it freezes a network.
    """

    def __init__(self, layer: Convolution, dtype: torch.dtype) -> None:
        def cast(x: Tensor) -> Tensor:
            return x.detach().to(dtype).contiguous()  # the operators read strides of one

        self.dtype = dtype
        self.geometry = [layer.margin] * 2, [layer.step] * 2, [1, 1], 1  # and dilation, groups
        weight, slopes = cast(layer.weight), layer.slopes
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *self.geometry)
        # the weight is kept: one that needs no other order may be lent to oneDNN, not copied
        self.layer = replace(layer, weight=weight, bias=cast(layer.bias))
        self.prelu = None if slopes is None else _PReLU(cast(slopes))

    def __call__(self, x: Tensor) -> Tensor:
        """As the convolution's, in channels-last layout and the type that this was packed for."""
        x = x.to(self.dtype).contiguous(memory_format=torch.channels_last)
        made: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x,
            self.weight,
            self.layer.bias,
            *self.geometry,
            self.layer.activation,
            [],
            "",
        )
        return made if self.prelu is None else self.prelu(made)


class _PReLU:
    """PReLU of channels-last pixels, a row of the picture at a time.

    Torch takes one pixel's channels at a time, which is ten times slower for 12 or 56 of them.
    """

    def __init__(self, slopes: Tensor) -> None:
        self.slopes = self.of_row = slopes

    def __call__(self, x: Tensor) -> Tensor:
        """``(B, C, H, W) -> (B, C, H, W)``."""
        batch, channels, height, width = x.shape
        if len(self.of_row) != width * channels:
            self.of_row = self.slopes.repeat(width)
        rows = x.permute(0, 2, 3, 1).reshape(-1, width * channels)
        made = F.prelu(rows, self.of_row)
        return made.view(batch, height, width, channels).permute(0, 3, 1, 2)


def can_pack(dtype: torch.dtype) -> bool:
    """Whether this build of torch and this machine have oneDNN, and bf16 in it."""
    here = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not (here and hasattr(torch.ops.mkldnn, "_reorder_convolution_weight")):
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def block_of(factor: int) -> int:
    """Pixels each way whose ``factor^2`` outputs are made at once, to fill a vector register."""
    return {1: 4, 2: 2}.get(factor, 1)


def shuffled(x: Tensor, side: int) -> Tensor:
    """``F.pixel_shuffle`` to one channel, for inference: ``(B, side^2, H, W) -> (B, 1, ...)``."""
    batch, _, height, width = x.shape
    made = x.new_empty(batch, 1, height * side, width * side)
    shuffle_into(made, x, side)
    return made


def shuffle_into(plane: Tensor, x: Tensor, side: int) -> None:
    """Puts ``(B, side^2, H, W)`` into a plane or whole rows of it, ``(B, 1, side H, side W)``.

    The ``side`` pixels of a row that come of one move as one number of their width, where there is
    such a type: five times as fast as pixel by pixel.
    """
    batch, _, height, width = x.shape
    runs = x.permute(0, 2, 3, 1).contiguous().view(batch, height, width, side, side)
    places = plane.view(batch, height, side, width, side)
    wide = _RUNS.get(side * x.element_size())
    if wide is not None:
        runs, places = runs.view(wide), places.view(wide)
    places.copy_(runs.transpose(2, 3))
