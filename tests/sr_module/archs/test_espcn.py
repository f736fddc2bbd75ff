"""ESPCN as in its paper."""

import torch

from sr_module.archs import build


def test_every_sub_pixel_of_a_block_has_its_own_filter():
    net = build("espcn", 3)
    torch.nn.init.zeros_(net.conv3.weight)
    with torch.no_grad():
        net.conv3.bias.copy_(torch.arange(9.0))
        block = net.luma_sr(torch.rand(1, 1, 4, 5))[0, 0, :3, :3]
    assert torch.equal(block, torch.arange(9.0).view(3, 3))


def test_nothing_bounds_the_last_convolution():
    net = build("espcn", 2)
    torch.nn.init.constant_(net.conv3.bias, 7.0)
    with torch.no_grad():
        assert net.luma_sr(torch.rand(1, 1, 4, 4)).min() > 5
