"""VDSR: a residual on the interpolated picture, one set of weights for several scales."""

from pathlib import Path

import pytest
import torch

from sr_module import load_net, save_net
from sr_module.archs import build
from sr_module.archs.luma import enlarge, luma
from sr_module.losses import l2
from sr_module.net import SRNet
from sr_module.resize import imresize


def tiny(scale: int, *, mixed: bool = True) -> SRNet:
    return build("vdsr", scale, features=4, convs=3, mixed=mixed)


def test_a_silent_network_is_bicubic_interpolation():
    net = tiny(3)
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    lr = torch.rand(1, 3, 6, 7)
    assert torch.allclose(net(lr), enlarge(lr, 3), atol=1e-6)


def test_a_batch_is_trained_at_all_three_scales_in_equal_parts():
    net, hr = tiny(4), torch.randint(0, 256, (6, 3, 24, 24)).float() / 255
    lr = imresize(hr, 1 / 4)
    expected = torch.stack(
        [
            l2(build_like(net, scale).luma_sr(luma(imresize(part, 1 / scale))), luma(part))
            for part, scale in zip(hr.split(2), (4, 2, 3), strict=True)
        ]
    ).mean()
    assert torch.allclose(net.loss(lr, hr, l2), expected, atol=1e-6)


def build_like(net: SRNet, scale: int) -> SRNet:
    other = tiny(scale)
    other.load_state_dict(net.state_dict())
    return other


@pytest.mark.parametrize("count", [1, 2])
def test_a_batch_too_small_to_part_is_trained_at_the_networks_own_scale(count: int):
    net, hr = tiny(2), torch.rand(count, 3, 12, 12)
    lr = imresize(hr, 1 / 2)
    assert torch.equal(net.loss(lr, hr, l2), l2(net.luma_sr(luma(lr)), luma(hr)))


def test_crops_that_three_does_not_divide_still_train():
    net, hr = tiny(4), torch.rand(3, 3, 16, 16)
    assert torch.isfinite(net.loss(imresize(hr, 1 / 4), hr, l2))


def test_one_file_serves_every_scale(tmp_path: Path):
    net = tiny(4)
    save_net(net, tmp_path / "net.safetensors", provenance={})
    lr = torch.rand(1, 3, 5, 6)
    for scale in (2, 3, 4):
        served = load_net(tmp_path / "net.safetensors", scale=scale)
        assert served.scale == scale
        assert torch.equal(served(lr), build_like(net, scale)(lr))


def test_a_file_of_one_scale_refuses_the_others(tmp_path: Path):
    save_net(tiny(4, mixed=False), tmp_path / "net.safetensors", provenance={})
    with pytest.raises(ValueError, match="these weights enlarge 4 times, not 2 times"):
        load_net(tmp_path / "net.safetensors", scale=2)
    save_net(tiny(4), tmp_path / "mixed.safetensors", provenance={})
    with pytest.raises(ValueError, match="enlarge 2, 3, 4 times, not 8 times"):
        load_net(tmp_path / "mixed.safetensors", scale=8)


def test_fewer_than_two_convolutions_are_refused():
    with pytest.raises(ValueError, match="convs must be 2 or more, got 1"):
        build("vdsr", 2, convs=1)
