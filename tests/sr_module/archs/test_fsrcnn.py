"""FSRCNN as in its paper."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sr_module.archs import build


def test_nothing_follows_the_deconvolution_and_a_prelu_follows_every_convolution():
    net = build("fsrcnn", 4)
    kinds = [type(layer) for layer in net.body]
    assert kinds == [nn.Conv2d, nn.PReLU] * 7
    assert [layer.kernel_size[0] for layer in net.body[::2]] == [5, 1, 3, 3, 3, 3, 1]
    with torch.no_grad():
        nn.init.constant_(net.deconv.bias, -3.0)
        assert net.luma_sr(torch.rand(1, 1, 4, 4)).max() < -2


def test_the_start_is_hes_and_a_near_zero_deconvolution():
    net = build("fsrcnn", 4, features=256, shrunk=64)
    first = net.body[0].weight
    assert abs(first.std() - (2 / (1 + 0.25**2) / 25) ** 0.5) < 0.02
    assert abs(net.deconv.weight.std() - 0.001) < 2e-4


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_last_layer_is_the_papers_transposed_convolution(scale: int):
    net, y = build("fsrcnn", scale), torch.rand(1, 1, 7, 6)
    nn.init.normal_(net.deconv.weight)
    nn.init.constant_(net.deconv.bias, 0.3)
    padded = F.pad(y, [net.stack().radius] * 4, mode="replicate")
    with torch.no_grad():
        assert torch.allclose(net.luma_sr(y), net.deconv(net.body(padded)), atol=1e-5)
