"""A PReLU between two convolutions, and the same as a ReLU."""

import pytest
import torch

from sr_module.archs.packed import Convolution
from sr_module.archs.prelu_split import without_prelu


@pytest.mark.parametrize(
    ("first", "second", "linear"), [((12, 1, 5), (4, 12, 1), 4), ((12, 5, 1), (16, 12, 6), 5)]
)
def test_a_relu_and_a_few_linear_channels_make_what_a_prelu_makes(first, second, linear):
    def layer(outputs: int, inputs: int, side: int, **more: object) -> Convolution:
        return Convolution(torch.randn(outputs, inputs, side, side), torch.randn(outputs), **more)

    lead, rest = layer(*first, slopes=torch.randn(12)), layer(*second)
    x = torch.randn(2, first[1], 9, 11)
    expected = rest(lead(x))
    lead, rest, count = without_prelu(lead, rest)
    made = lead(x)
    assert (count, lead.slopes) == (linear, None)
    assert torch.allclose(
        rest(torch.cat([made[:, :-count].relu(), made[:, -count:]], 1)), expected, atol=1e-3
    )
