"""Convolutions prepared for inference, and the pixels that they make brought into place."""

import pytest
import torch
from torch.nn import functional as F

from sr_module.archs.packed import Convolution, Packed, shuffled


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("side", [1, 2, 3, 4, 8])
def test_pixels_that_move_in_runs_come_where_a_pixel_shuffle_puts_them(side, dtype):
    x = torch.randn(2, side**2, 5, 7).to(dtype)
    x[0, 0, 0, 0] = torch.nan  # as numbers of another type, values are not touched
    for layout in (torch.contiguous_format, torch.channels_last):
        made = shuffled(x.contiguous(memory_format=layout), side)
        assert torch.equal(made.nan_to_num(9), F.pixel_shuffle(x, side).nan_to_num(9))


def test_a_bias_that_is_one_value_seen_many_times_is_packed_as_many():
    layer = Convolution(torch.rand(16, 2, 3, 3), torch.rand(1).expand(16))
    x = torch.rand(1, 2, 9, 9)
    with torch.inference_mode():
        assert torch.allclose(Packed(layer, torch.float32)(x), layer(x), atol=1e-6)
