"""Staged generation: how the network grows, and what its stages are to reach."""

from pathlib import Path

import pytest
import torch

from sr_module import load_net, save_net
from sr_module.archs import build
from sr_module.archs.luma import enlarge
from sr_module.archs.staged import StagedNet
from sr_module.losses import l1
from sr_module.resize import imresize


def small(scale: int = 8, **more: object) -> StagedNet:
    torch.manual_seed(0)
    return build("staged", scale, features=4, blocks=1, grow_every=10, fade=4, **more)


def test_stages_come_one_after_the_other_and_fade_in():
    net = small().train()
    lr = torch.rand(1, 3, 4, 4)
    grown = {}
    for step in (0, 9, 10, 11, 13, 19, 20, 23, 99):
        net.advance(step)
        grown[step] = (net(lr).shape[-1] // 4, net.grown.tolist())
    assert grown[0] == grown[9] == (2, [1000, 0, 0])
    assert grown[10] == (4, [1000, 250, 0])
    assert grown[11] == (4, [1000, 500, 0])
    assert grown[13] == grown[19] == (4, [1000, 1000, 0])
    assert grown[20] == (8, [1000, 1000, 250])
    assert grown[23] == grown[99] == (8, [1000, 1000, 1000])


def test_what_is_to_be_reached_grows_and_fades_with_it():
    net, hr = small().train(), torch.rand(1, 3, 32, 32)
    net.advance(0)
    assert torch.equal(net.target(hr), imresize(hr, 0.25))
    net.advance(11)
    both = (enlarge(imresize(hr, 0.25), 2) + imresize(hr, 0.5)) / 2
    assert torch.allclose(net.target(hr), both, atol=1e-6)
    net.advance(30)
    assert torch.allclose(net.target(hr), hr, atol=1e-6)


def test_a_stage_that_has_not_grown_enlarges_bicubically():
    net = small()
    net.advance(0)
    net.eval()
    lr = torch.rand(1, 3, 5, 6)
    assert net(lr).shape == (1, 3, 40, 48)
    x2 = net._pyramid(lr, 1)[-1]
    assert torch.allclose(net(lr), enlarge(enlarge(x2, 2), 2), atol=1e-6)


def test_only_what_has_grown_learns():
    net = small().train()
    net.advance(12)
    net.loss(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 32, 32), l1).backward()
    touched = [stage.to_rgb.weight.grad is not None for stage in net.stages]
    assert touched == [True, True, False]


def test_one_file_serves_every_scale(tmp_path: Path):
    net, lr = small().eval(), torch.rand(1, 3, 6, 5)
    save_net(net, tmp_path / "net.safetensors", provenance={})
    pyramid = net._pyramid(lr, 3)
    for scale, picture in zip((2, 4, 8), pyramid, strict=True):
        served = load_net(tmp_path / "net.safetensors", scale=scale)
        with torch.no_grad():
            assert torch.allclose(served(lr), picture, atol=1e-6)
    with pytest.raises(ValueError, match="enlarge 2, 4, 8 times, not 3 times"):
        load_net(tmp_path / "net.safetensors", scale=3)


def test_without_growth_all_stages_learn_from_the_beginning():
    net = small(grow=False).train()
    net.advance(0)
    net.loss(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 32, 32), l1).backward()
    assert all(stage.to_rgb.weight.grad is not None for stage in net.stages)


@pytest.mark.parametrize(
    ("scale", "args", "said"),
    [
        (8, {"largest": 4}, "largest must be 2, 4 or 8 and no less than 8"),
        (2, {"largest": 3}, "largest must be 2, 4 or 8"),
        (2, {"fade": 30, "grow_every": 20}, "fade must end before the next stage, in 20 steps"),
    ],
)
def test_what_cannot_be_is_refused(scale: int, args: dict, said: str):
    with pytest.raises(ValueError, match=said):
        build("staged", scale, **args)
