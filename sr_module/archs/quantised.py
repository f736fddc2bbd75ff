"""Convolutions in 8-bit integers: unsigned numbers times signed weights, summed in 32 bits.

Processors with VNNI multiply four times as many of them as 32-bit floats. The first layer of a
small stack makes numbers and the second reads them: nearly all multiplications are theirs. The rest
computes in bfloat16. What numbers stand for follows from the range of luma, of tanh, or of a ReLU
whatever the luma is, and never from a picture: nothing is cut off, and a tile is quantised as the
whole picture is.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from sr_module.archs.bands import Banded
from sr_module.archs.packed import Convolution, Packed, can_pack

_DARKEST, _BRIGHTEST = 16 / 255, 235 / 255
"""Of luma in studio range."""
_OVERSHOOT = 9 / 32
"""Of that range on either side, at most: a bicubic enlargement's weights sum to 25 / 16 by size."""
_MIDDLE = 128
"""The number of 0 where values have both signs, and about that of mid-grey."""
_STRONGEST = 127
_FUSED = ("none", "relu")
"""Activations that the operator of 8-bit convolutions computes itself."""


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


def quantised(layers: Sequence[Convolution], *, enlarged: bool) -> list[Banded]:
    """A stack on luma for inference, its first two layers in 8 bits.

    Args:
        layers: two or more, the first with relu or tanh, none with a PReLU: its range, layers deep,
            is ten times what photographs need, and less would cut off lines of text.
        enlarged: whether the luma is that of a picture's bicubic enlargement.

    Raises:
        FloatingPointError: a weight is not a number.
    """
    first, second, *others = (_plain(layer) for layer in layers)
    luma = Grid.of_luma(enlarged=enlarged)
    outputs = _range_of(first, luma)
    grey = luma.low + _MIDDLE * luma.step
    still = first(grey.expand(1, 1, *first.weight.shape[-2:])).flatten()
    made = [
        Banded.of(first, Unfolded(first, luma, outputs, grey)),
        Banded.of(second, Quantised(second, outputs, still)),
    ]
    if second.activation not in _FUSED:
        channels = len(second.weight)
        made.append(Banded(_Activation(second), channels, channels))
    return [*made, *(Banded.of(layer, Packed(layer, torch.bfloat16)) for layer in others)]


class Unfolded:
    """A first layer, as a product of every pixel's neighbourhood: luma to 8-bit numbers.

    Args:
        layer: a convolution of one channel.
        luma: what the numbers of its inputs stand for.
        outputs: what those of its outputs stand for; the lowest is that of all lower values.
        grey: the luma for which rounded weights give what exact ones give.
    """

    def __init__(self, layer: Convolution, luma: Grid, outputs: Grid, grey: Tensor) -> None:
        self.low, self.step, self.side = float(luma.low), float(luma.step), layer.weight.shape[-1]
        taps = layer.weight[:, 0].transpose(1, 2).flatten(1)  # column by column
        numbers, steps = _rounded(taps * luma.step)
        bias = layer.bias + taps.sum(1) * grey - steps * numbers.sum(1) * luma.number(grey)
        self.activation, self.out = "tanh", (1 / _STRONGEST, _MIDDLE, torch.uint8)
        if layer.activation != "tanh":  # what is below 0 of a ReLU is out of range
            self.activation, self.out = "none", (1.0, 0, torch.uint8)
            steps, bias = steps / outputs.step, (bias - outputs.low) / outputs.step
        weight = torch.ops.onednn.qlinear_prepack(numbers.to(torch.int8), None)
        self.known = (weight, steps, torch.zeros(len(numbers), dtype=torch.int64), bias)

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
        made: Tensor = torch.ops.onednn.qlinear_pointwise(
            runs, 1.0, 0, *self.known, *self.out, self.activation, [], ""
        )
        return made.view(batch, rows, width, -1).permute(0, 3, 1, 2)


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

    def __call__(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` unsigned, channels last ``-> (B, outputs, H', W')`` bfloat16."""
        known = (self.weight, self.steps, self.zeros, self.bias)
        out = (1.0, 0, torch.bfloat16)
        made: Tensor = torch.ops.onednn.qconv_pointwise(
            x, 1.0, 0, *known, *self.window, *out, self.activation, [], ""
        )
        return made


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
    assert layer.slopes is None
    weight, bias = layer.weight.detach().float(), layer.bias.detach().float()
    if not (weight.isfinite().all() and bias.isfinite().all()):
        raise FloatingPointError("a weight of the network is not a number (NaN or infinite)")
    return replace(layer, weight=weight, bias=bias)


def _rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers up to 127 and the step ``(outputs,)`` of each output's."""
    flat = weight.flatten(1)
    steps = (flat.abs().amax(1) / _STRONGEST).clamp(min=1e-12)
    return (flat / steps.unsqueeze(1)).round().view_as(weight), steps


def _range_of(layer: Convolution, inputs: Grid) -> Grid:
    """What the outputs can be, whatever the inputs are: of tanh, or of a ReLU."""
    if layer.activation == "tanh":
        return Grid.around_zero(torch.ones(len(layer.weight)))
    assert layer.activation == "relu"
    low, high = inputs.low, inputs.low + 255 * inputs.step
    up, down = (part.sum((2, 3)) for part in (layer.weight.relu(), -(-layer.weight).relu()))
    highest = layer.bias + up @ high + down @ low
    return Grid.between(torch.zeros_like(highest), highest)
