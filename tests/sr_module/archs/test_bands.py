"""Layers over bands of rows: what they make is what they make of the whole picture."""

import pytest
import torch

from sr_module.archs import bands
from sr_module.archs.bands import Banded, Bands
from sr_module.archs.packed import Convolution, Packed
from sr_module.tiles import best_tile

SHAPES = [(1, 6, 5, 1), (6, 3, 1, 1), (3, 3, 3, 1), (3, 8, 1, 1), (8, 16, 6, 2)]
"""Inputs, outputs, side and stride, as FSRCNN has them."""


def _layers(dtype: torch.dtype) -> list[Banded]:
    convolutions = [
        Convolution(torch.randn(o, i, side, side) / side, torch.randn(o), step=stride)
        for i, o, side, stride in SHAPES
    ]
    return [Banded.of(layer, Packed(layer, dtype)) for layer in convolutions]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 7, 16, 1000])
@pytest.mark.parametrize("batch", [1, 2])
def test_bands_of_any_height_make_what_the_whole_picture_makes(monkeypatch, dtype, rows, batch):
    layers, x = _layers(dtype), torch.randn(batch, 1, 36, 20)
    monkeypatch.setattr(bands, "_BYTES", rows * batch * 20 * 16 * dtype.itemsize)
    heights = []

    def watched(x: torch.Tensor) -> torch.Tensor:
        heights.append(x.shape[2])
        return layers[0].run(x)

    with torch.inference_mode():
        whole = x
        for layer in layers:
            whole = layer.run(whole)
        made = Bands([layers[0]._replace(run=watched), *layers[1:]], dtype.itemsize)(x)
    assert torch.equal(made, whole)
    assert max(heights) <= rows + 4  # of a 5 x 5 kernel four rows are read again
    assert len(heights) == 1 or rows < 36


def test_rows_are_kept_where_they_have_the_fewest_channels():
    layers = _layers(torch.float32)
    kept = [(group[0].inputs, [layer.side for layer in group]) for group in bands._grouped(layers)]
    assert kept == [(1, [5, 1]), (3, [3]), (3, [1, 6])]


def test_no_row_is_computed_twice(monkeypatch):
    layers, rows = _layers(torch.float32), []
    monkeypatch.setattr(bands, "_BYTES", 7 * 20 * 16 * 4)
    counted = [
        layer._replace(
            run=lambda x, layer=layer: (made := layer.run(x), rows.append(len(made[0, 0])))[0]
        )
        for layer in layers[:3]
    ]
    with torch.inference_mode():
        Bands(counted, 4)(torch.randn(1, 1, 36, 20))
    assert sum(rows) == 32 + 32 + 30


def test_a_network_that_takes_bands_is_not_cut_into_small_tiles():
    assert best_tile(540, 960, "cpu", overlap=8, banded=True) == 960
    assert best_tile(540, 960, "cpu", overlap=8) == 320
    assert best_tile(2000, 3000, "cpu", overlap=8, banded=True) == 640
    assert best_tile(540, 960, "cuda", overlap=8, banded=True) == 960  # as every network's there
