"""Convolutions in 8-bit integers: unsigned numbers times signed weights, summed in 32 bits.

Processors with VNNI multiply four times as many of them as 32-bit floats. They come in pairs: a
layer that makes numbers and the layer that reads them, in which nearly all multiplications of a
small stack are. The rest computes in bfloat16. What numbers stand for follows from the range of
luma, of tanh, or from a chart of full contrast, and never from the picture, so that a tile is
quantised as the whole picture is.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_module.archs.packed import Convolution, Packed, RowPReLU, can_pack
from sr_module.archs.prelu_split import without_prelu

_DARKEST, _BRIGHTEST = 16 / 255, 235 / 255
"""Of luma in studio range."""
_OVERSHOOT = 9 / 32
"""Of that range on either side, at most: a bicubic enlargement's weights sum to 25 / 16 by size."""
_MIDDLE = 128
"""The number of 0 where values have both signs, and about that of mid-grey."""
_STRONGEST = 127
_CHART = 40
"""Side in pixels: a multiple of eight, and wider than what a small stack reads around one."""
_FUSED = ("none", "relu")
"""Activations that the operator of 8-bit convolutions computes itself."""

Layer = Callable[[Tensor], Tensor]


class Grid(NamedTuple):
    """What unsigned 8-bit numbers stand for: ``low + step * number``, one of each a channel."""

    low: Tensor
    step: Tensor

    @classmethod
    def between(cls, low: Tensor, high: Tensor) -> "Grid":
        """All numbers from the lowest value to the highest."""
        return cls(low, (high - low).clamp(min=1e-6) / 255)

    @classmethod
    def around_zero(cls, most: Tensor) -> "Grid":
        """For values of both signs."""
        step = most.clamp(min=1e-6) / _STRONGEST
        return cls(-_MIDDLE * step, step)

    @classmethod
    def of_luma(cls, *, enlarged: bool) -> "Grid":
        """For a picture, or for its bicubic enlargement, which overshoots at edges."""
        more = _OVERSHOOT * (_BRIGHTEST - _DARKEST) if enlarged else 0.0
        return cls.between(torch.tensor([_DARKEST - more]), torch.tensor([_BRIGHTEST + more]))

    def number(self, value: Tensor) -> Tensor:
        """Not rounded."""
        return (value - self.low) / self.step


def can_quantise() -> bool:
    """Whether this processor multiplies 8-bit integers, and this build of torch knows how."""
    known = can_pack(torch.bfloat16) and hasattr(torch.ops.onednn, "qconv_pointwise")
    return known and bool(torch.cpu._is_vnni_supported())


def quantised(layers: Sequence[Convolution], *, enlarged: bool) -> tuple[Layer, ...]:
    """A stack on luma for inference, its first two layers in 8 bits.

    Its last two as well where a PReLU lies between a 1 x 1 layer and the last, as in FSRCNN.

    Args:
        layers: three or more.
        enlarged: whether the luma is that of a picture's bicubic enlargement.

    Raises:
        FloatingPointError: a weight is not a number.
    """
    plain = [_plain(layer) for layer in layers]
    luma = Grid.of_luma(enlarged=enlarged)
    grey = luma.low + _MIDDLE * luma.step
    made = [*_pair(plain[0], plain[1], luma, grey, Unfolded)]
    others = plain[2:]
    tail: tuple[Layer, ...] = ()
    if len(others) > 2 and others[-2].slopes is not None and others[-2].weight.shape[-1] == 1:
        *others, first, last = others
        seen = _through(plain[:-2], _chart(luma, grey))
        values = Grid.around_zero(seen.abs().amax((0, 2, 3)))
        tail = _pair(first, last, values, seen[0, :, 0, 0], Repeated, seen)
        others[-1] = _scaled(others[-1], 1 / values.step)
    return (*made, *(Packed(layer, torch.bfloat16) for layer in others), *tail)


def _pair(
    first: Convolution,
    second: Convolution,
    inputs: Grid,
    grey: Tensor,
    opening: "type[Unfolded] | type[Repeated]",
    seen: Tensor | None = None,
) -> tuple[Layer, ...]:
    """Two layers with 8-bit numbers between them.

    Args:
        first: the layer that makes the numbers.
        second: the layer that reads them.
        inputs: what the first layer's numbers stand for.
        grey: the inputs, a channel each, for which rounded weights give what exact ones give.
        opening: the kind of the first layer.
        seen: inputs whose range stands for that of all; None reckons with all that there can be.
    """
    linear = 0
    if first.slopes is not None:
        first, second, linear = without_prelu(first, second)
    outputs = _range_of(first, inputs, linear, seen)
    opened = opening(first, inputs, outputs, grey)
    side = first.weight.shape[-1]
    value = first(grey.view(1, -1, 1, 1).expand(1, -1, side, side)).flatten()
    if linear:
        value = value.clamp(min=0).where(torch.arange(len(value)) < len(value) - linear, value)
    made: tuple[Layer, ...] = (opened, Quantised(second, outputs, value))
    return made if second.activation in _FUSED else (*made, _Activation(second))


class Unfolded:
    """A first layer, as a product of every pixel's neighbourhood: luma to 8-bit numbers."""

    def __init__(self, layer: Convolution, inputs: Grid, outputs: Grid, grey: Tensor) -> None:
        self.low, self.step = float(inputs.low), float(inputs.step)
        self.side = layer.weight.shape[-1]
        taps = layer.weight[:, 0].transpose(1, 2).flatten(1)  # column by column
        spread = Grid(*(each.expand(taps.shape[1]) for each in inputs))
        flat = replace(layer, weight=taps)
        self.product = _Product(flat, spread, outputs, grey.expand(taps.shape[1]))

    def __call__(self, y: Tensor) -> Tensor:
        """``(B, 1, H, W) -> (B, outputs, H - side + 1, W)``; the last columns mean nothing."""
        batch, _, height, width = y.shape
        side, rows = self.side, height - self.side + 1
        rounded = (y - (self.low - self.step / 2)).div_(self.step)
        numbers = rounded.clamp_(0, 255).to(torch.uint8)
        # all columns of a neighbourhood's height one after another: each neighbourhood is a run
        count = batch * rows * width
        columns = numbers.new_zeros((count + side - 1) * side)
        shape, strides = (batch, rows, width, side), (height * width, width, 1, width)
        columns[: count * side].view(shape).copy_(numbers.as_strided(shape, strides))
        runs = columns.as_strided((count, side**2), (side, 1)).contiguous()
        return self.product(runs).view(batch, rows, width, -1).permute(0, 3, 1, 2)


class Repeated:
    """A 1 x 1 layer within a stack, whose inputs come in steps of their grid."""

    def __init__(self, layer: Convolution, inputs: Grid, outputs: Grid, grey: Tensor) -> None:
        self.product = _Product(
            replace(layer, weight=layer.weight.flatten(1)), inputs, outputs, grey
        )

    def __call__(self, x: Tensor) -> Tensor:
        """``(B, C, H, W) -> (B, outputs, H, W)``, both channels last."""
        batch, channels, height, width = x.shape
        numbers = x.float().add_(_MIDDLE + 0.5).clamp_(0, 255).to(torch.uint8)
        made = self.product(numbers.permute(0, 2, 3, 1).reshape(-1, channels))
        return made.view(batch, height, width, -1).permute(0, 3, 1, 2)


class _Product:
    """Numbers to numbers by one matrix; below the lowest value of the outputs all are 0."""

    def __init__(self, layer: Convolution, inputs: Grid, outputs: Grid, grey: Tensor) -> None:
        numbers, steps = _rounded(layer.weight * inputs.step)
        bias = layer.bias + layer.weight @ grey - steps * (numbers @ inputs.number(grey))
        self.activation, self.scale, self.zero = "tanh", 1 / _STRONGEST, _MIDDLE
        if layer.activation != "tanh":  # what is below 0 of a ReLU is out of range
            self.activation, self.scale, self.zero = "none", 1.0, 0
            steps, bias = steps / outputs.step, (bias - outputs.low) / outputs.step
        self.steps, self.bias = steps, bias
        self.weight = torch.ops.onednn.qlinear_prepack(numbers.to(torch.int8), None)
        self.zeros = torch.zeros(len(numbers), dtype=torch.int64)

    def __call__(self, x: Tensor) -> Tensor:
        """``(N, inputs) -> (N, outputs)``, unsigned 8-bit numbers."""
        out = (self.scale, self.zero, torch.uint8)
        known = (self.weight, self.steps, self.zeros, self.bias)
        made: Tensor = torch.ops.onednn.qlinear_pointwise(
            x, 1.0, 0, *known, *out, self.activation, [], ""
        )
        return made


class Quantised:
    """A layer that reads 8-bit numbers and makes bfloat16.

    Args:
        layer: the convolution; tanh is left to the caller.
        inputs: what the numbers stand for.
        grey: inputs ``(channels,)`` for which rounded weights give what exact ones give.
    """

    def __init__(self, layer: Convolution, inputs: Grid, grey: Tensor) -> None:
        numbers, self.steps = _rounded(layer.weight * inputs.step.view(-1, 1, 1))
        exact, read = layer.weight.sum((2, 3)) @ grey, numbers.sum((2, 3)) @ inputs.number(grey)
        self.bias = layer.bias + exact - self.steps * read
        self.activation = layer.activation if layer.activation in _FUSED else "none"
        self.window = ([layer.step] * 2, [0, 0], [1, 1], 1)
        self.weight = torch.ops.onednn.qconv_prepack(
            numbers.to(torch.int8), self.steps, 1.0, 0, *self.window, None
        )
        self.zeros = torch.zeros(len(numbers), dtype=torch.int64)
        slopes = layer.slopes
        self.prelu = None if slopes is None else RowPReLU(slopes.to(torch.bfloat16))

    def __call__(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` unsigned, channels last ``-> (B, outputs, H', W')`` bfloat16."""
        known = (self.weight, self.steps, self.zeros, self.bias)
        out = (1.0, 0, torch.bfloat16)
        made: Tensor = torch.ops.onednn.qconv_pointwise(
            x, 1.0, 0, *known, *self.window, *out, self.activation, [], ""
        )
        return made if self.prelu is None else self.prelu(made)


class _Activation:
    """An activation alone: oneDNN's, behind a multiplication of each channel by one.

    Three times as fast as torch's.
    """

    def __init__(self, layer: Convolution) -> None:
        self.name, self.channels = layer.activation, len(layer.weight)
        ones = torch.ones(self.channels, 1, 1, 1, dtype=torch.bfloat16)
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(
            ones, [0, 0], [1, 1], [1, 1], self.channels
        )
        self.kept = ones  # the weight may be lent to oneDNN, not copied

    def __call__(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` bfloat16, channels last ``->`` the same."""
        made: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, None, [0, 0], [1, 1], [1, 1], self.channels, self.name, [], ""
        )
        return made


def _plain(layer: Convolution) -> Convolution:
    """The layer without gradients; integers could not show what is not a number."""
    weight, bias = layer.weight.detach().float(), layer.bias.detach().float()
    slopes = None if layer.slopes is None else layer.slopes.detach().float()
    if not all(each.isfinite().all() for each in (weight, bias, slopes) if each is not None):
        raise FloatingPointError("a weight of the network is not a number (NaN or infinite)")
    return replace(layer, weight=weight, bias=bias, slopes=slopes)


def _rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers up to 127 and the step ``(outputs,)`` of each output's."""
    flat = weight.flatten(1)
    steps = (flat.abs().amax(1) / _STRONGEST).clamp(min=1e-12)
    return (flat / steps.unsqueeze(1)).round().view_as(weight), steps


def _range_of(layer: Convolution, inputs: Grid, linear: int, seen: Tensor | None) -> Grid:
    """What the outputs can be: of tanh, of the layer for what was seen, or for whatever can come.

    But for the last ``linear`` channels, a ReLU takes what is below 0.
    """
    if layer.activation == "tanh":
        return Grid.around_zero(torch.ones(len(layer.weight)))
    if seen is None:
        low, high = inputs.low, inputs.low + 255 * inputs.step
        up, down = (part.sum((2, 3)) for part in (layer.weight.relu(), -(-layer.weight).relu()))
        lowest, highest = (layer.bias + up @ a + down @ b for a, b in ((low, high), (high, low)))
    else:
        made = layer(seen)
        lowest, highest = made.amin((0, 2, 3)), made.amax((0, 2, 3))
    lowest[: len(lowest) - linear] = 0
    return Grid.between(lowest, highest)


def _chart(luma: Grid, grey: Tensor) -> Tensor:
    """Grey; black and white at random in patches of 2, 4 and 8 pixels: ``(4, 1, side, side)``."""
    seeded = torch.Generator().manual_seed(0)
    patches = [torch.rand(1, 1, *[_CHART // n] * 2, generator=seeded).round() for n in (2, 4, 8)]
    chart = torch.cat([F.interpolate(each, _CHART, mode="nearest") for each in patches])
    flat = grey.expand(1, 1, _CHART, _CHART)
    return torch.cat([flat, luma.low + chart * 255 * luma.step])


def _through(layers: Sequence[Convolution], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def _scaled(layer: Convolution, factors: Tensor) -> Convolution:
    """The layer with its outputs multiplied by positive factors, which a PReLU lets pass."""
    weight = layer.weight * factors.view(-1, 1, 1, 1)
    return replace(layer, weight=weight, bias=layer.bias * factors)
