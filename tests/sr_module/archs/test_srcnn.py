"""SRCNN as in its paper."""

import pytest
import torch
from torch.nn import functional as F

from sr_module.archs import build
from sr_module.archs.luma import enlarge


@pytest.mark.parametrize("middle", [1, 5])
def test_away_from_the_border_it_is_the_papers_three_valid_convolutions(middle: int):
    net = build("srcnn", 3, middle=middle)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    y = torch.rand(1, 1, 12, 13)
    x = F.relu(F.conv2d(enlarge(y, 3), net.conv1.weight, net.conv1.bias))
    x = F.relu(F.conv2d(x, net.conv2.weight, net.conv2.bias))
    x = F.conv2d(x, net.conv3.weight, net.conv3.bias)
    border = 4 + middle // 2 + 2
    assert torch.allclose(net.luma_sr(y)[..., border:-border, border:-border], x, atol=1e-5)


def test_an_even_middle_kernel_is_refused():
    with pytest.raises(ValueError, match="middle must be odd, got 4"):
        build("srcnn", 3, middle=4)
