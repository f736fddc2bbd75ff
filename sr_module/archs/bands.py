"""Layers run one behind another over bands of rows that stay in the processor's cache.

What a layer makes of a band is read by the next one while it is there; whole pictures would go out
to memory and back between any two layers. Rows that a layer reads again for the next band are kept,
so nothing is computed twice, and the result is that of the whole picture to the last bit.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sr_module.archs.packed import Convolution

_BYTES = 4 * 2**20
"""Of the widest layer's rows in a band. Measured: half and twice as many cost up to a tenth."""

Layer = Callable[[Tensor], Tensor]


class Banded(NamedTuple):
    """A layer of valid convolution, prepared, and what bands need to know of it."""

    run: Layer
    inputs: int
    outputs: int
    side: int = 1
    stride: int = 1

    @classmethod
    def of(cls, layer: Convolution, run: Layer) -> "Banded":
        """What was prepared from a convolution."""
        outputs, inputs, side, _ = layer.weight.shape
        return cls(run, inputs, outputs, side, layer.step)


class Bands:
    """Runs layers over ``(B, C, H, W)``.

    Args:
        layers: in their order.
        width: bytes of a value between layers.
    """

    def __init__(self, layers: Sequence[Banded], width: int) -> None:
        self.groups = _grouped(layers)
        self.bytes = width * max(max(layer.inputs, layer.outputs) for layer in layers)

    def __call__(self, x: Tensor) -> Tensor:
        """All layers, one band after another."""
        kept: list[Tensor | None] = [None] * len(self.groups)
        batch, _, height, width = x.shape
        rows = max(1, _BYTES // (batch * width * self.bytes))
        made = [self._of_band(x[:, :, top : top + rows], kept) for top in range(0, height, rows)]
        return torch.cat([band for band in made if band is not None], dim=2)

    def _of_band(self, x: Tensor, kept: list[Tensor | None]) -> Tensor | None:
        """What can be made now; None while a layer has fewer rows than its kernel."""
        for number, group in enumerate(self.groups):
            side = max(layer.side for layer in group)
            stride = max(layer.stride for layer in group)
            before = kept[number]
            if before is not None:
                x = torch.cat((before, x), dim=2)
            count = max(0, (x.shape[2] - side) // stride + 1)
            kept[number] = x[:, :, count * stride :].clone()
            if not count:
                return None
            x = x[:, :, : (count - 1) * stride + side]
            for layer in group:
                x = layer.run(x)
        return x


def _grouped(layers: Sequence[Banded]) -> list[list[Banded]]:
    """Layers with one kernel larger than a pixel each; rows are kept in front of each group.

    Layers of single pixels go where the fewest channels are kept: those that add channels in front
    of the next kernel, others behind the last.
    """
    groups: list[list[Banded]] = []
    waiting = False  # the last group has no kernel yet
    for layer in layers:
        widens = layer.side == 1 and layer.outputs > layer.inputs
        if groups and (waiting or (layer.side == 1 and not widens)):
            groups[-1].append(layer)
            waiting = waiting and layer.side == 1
        else:
            groups.append([layer])
            waiting = layer.side == 1
    return groups
