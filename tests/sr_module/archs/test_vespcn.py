"""VESPCN: motion compensation and the two ways to fuse frames."""

import pytest
import torch

from sr_module.archs import build
from sr_module.archs.vespcn import warp
from sr_module.losses import l2


def texture(height: int, width: int, *, dx: float = 0.0, dy: float = 0.0) -> torch.Tensor:
    """A smooth pattern, ``(3, H, W)``, moved right and down by so many pixels."""
    y = torch.arange(height).view(-1, 1) - dy
    x = torch.arange(width) - dx
    waves = torch.sin(x / 2) * torch.cos(y / 3) + torch.sin((x + y) / 5)
    return (0.5 + waves / 5).expand(3, -1, -1)


@pytest.mark.parametrize(("motion", "count"), [(True, 93_992), (False, 40_600)])
def test_nine_layers_with_early_fusion_of_three_frames_have_their_parameters(motion, count):
    net = build("vespcn", 4, motion=motion)
    assert sum(parameter.numel() for parameter in net.parameters()) == count


def test_a_warp_by_the_motion_brings_a_moved_picture_back():
    still, moved = texture(40, 40)[None], texture(40, 40, dx=1.5, dy=-0.75)[None]
    flow = torch.tensor([1.5, -0.75]).view(1, 2, 1, 1).expand(1, 2, 40, 40)
    inner = (..., slice(4, -4), slice(4, -4))
    assert (warp(moved, flow) - still)[inner].abs().max() < 0.02
    assert (moved - still)[inner].abs().max() > 0.1


def test_halfway_between_pixels_fine_detail_survives_a_bicubic_warp_and_no_bilinear_one():
    x = torch.arange(40.0)
    fine, moved = (torch.sin(2.2 * (x - by)).expand(1, 1, 8, 40) for by in (0.0, 0.5))
    flow = torch.tensor([0.5, 0.0]).view(1, 2, 1, 1).expand(1, 2, 8, 40)
    lost = {
        kernel: (warp(moved, flow, kernel=kernel) - fine)[..., 4:-4].abs().max()
        for kernel in ("bilinear", "bicubic")
    }
    assert lost["bilinear"] > 0.5  # of an amplitude of 1
    assert lost["bicubic"] < 0.6 * lost["bilinear"]
    net = build("vespcn", 2, kernel="bicubic")
    assert net.arch_args["kernel"] == "bicubic"
    torch.nn.init.normal_(net.motion.fine[-2].weight, std=0.5)
    lr = torch.rand(1, 3, 3, 12, 12)
    assert not torch.equal(net(lr), _with_kernel(net, "bilinear")(lr))


def _with_kernel(net: torch.nn.Module, kernel: str) -> torch.nn.Module:
    other = build("vespcn", 2, kernel=kernel)
    other.load_state_dict(net.state_dict())
    return other


def test_a_warp_by_nothing_changes_nothing_and_beyond_the_border_the_border_goes_on():
    picture = torch.rand(1, 1, 5, 7)
    assert torch.allclose(warp(picture, torch.zeros(1, 2, 5, 7)), picture, atol=1e-6)
    far = warp(picture, torch.full((1, 2, 5, 7), 100.0))
    assert torch.allclose(far, picture[..., -1:, -1:].expand_as(far))


def test_flow_is_given_for_each_neighbour_and_never_beyond_its_reach():
    net = build("vespcn", 4, frames=5, reach=2.0)
    for parameter in net.motion.parameters():
        parameter.data.mul_(50)
    flow = net.flow(torch.rand(2, 5, 3, 13, 18))
    assert flow.shape == (2, 4, 2, 13, 18)
    assert 2 < flow.abs().max() <= 3  # the fine part may add one pixel


def test_where_a_picture_is_faint_or_bright_does_not_change_the_flow():
    torch.manual_seed(0)
    net = build("vespcn", 2, reach=2.0)
    for last in (net.motion.coarse[-2], net.motion.fine[-2]):
        last.weight.data.mul_(5)
    clip = torch.stack([texture(32, 32, dx=1.2 * t) for t in (-1, 0, 1)])[None]
    flow, of_faint = net.flow(clip), net.flow(0.5 * clip + 0.4)
    assert flow.abs().mean() > 0.05
    assert (flow - of_faint).abs().mean() < 0.05 * flow.abs().mean()


def test_without_motion_nothing_flows():
    net = build("vespcn", 2, motion=False)
    assert net.flow(torch.rand(1, 3, 3, 9, 10)).abs().sum() == 0


@pytest.mark.parametrize("frames", [3, 5])
@pytest.mark.parametrize("fusion", ["early", "slow"])
def test_every_frame_has_a_say_and_only_the_middle_one_gives_colour(frames: int, fusion: str):
    net = build("vespcn", 2, frames=frames, fusion=fusion, convs=6, features=4)
    net.body[-1].weight.data.mul_(10)
    lr = torch.rand(1, frames, 3, 12, 12, requires_grad=True)
    net(lr)[:, :1].sum().backward()
    assert (lr.grad.abs().sum((0, 2, 3, 4)) > 0).all()
    red = lr.detach().clone()
    red[:, 0, 0] += 0.1
    red[:, 0, 1] -= 0.1 * 65.481 / 128.553  # the same luma
    assert torch.allclose(net(red), net(lr), atol=1e-5)


@pytest.mark.parametrize(("fusion", "frames"), [("early", 3), ("slow", 5)])
def test_with_phases_the_flow_itself_tells_what_was_sampled_where(fusion: str, frames: int):
    torch.manual_seed(0)
    net = build("vespcn", 2, frames=frames, fusion=fusion, convs=6, features=4, phases=True)
    seen: list[torch.Tensor] = []
    net.body.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    net._fused(torch.rand(1, frames, 9, 9), torch.full((1, frames - 1, 2, 9, 9), 0.25))
    each = seen[0].unflatten(1, (frames, 5))[..., 6:-6, 6:-6]  # within what is padded
    shown, turned = each[:, :, 0], each[:, :, 1:]
    at = frames // 2
    unlike = 10 * (shown - shown[:, at : at + 1])
    assert torch.allclose(turned[:, :, 2:], unlike.unsqueeze(2).expand_as(turned[:, :, 2:]))
    assert turned[:, :, :2].abs().max() < 1e-5  # the cosine of a quarter turn
    assert not turned[:, at].any()
    lr = torch.rand(1, frames, 3, 12, 12)
    net(lr).sum().backward()
    assert net.motion.coarse[-2].weight.grad.abs().sum() > 0


def test_a_few_steps_learn_where_a_pan_goes():
    torch.manual_seed(0)
    net = build("vespcn", 2, convs=4, features=8, motion_weight=1.0, reach=4.0)
    clip = torch.stack([texture(32, 32, dx=1.2 * t, dy=-0.6 * t) for t in (-1, 0, 1)])[None]
    hr = torch.nn.functional.interpolate(clip[:, 1], scale_factor=2, mode="bicubic")
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(120):
        optimizer.zero_grad()
        net.loss(clip, hr, l2).backward()
        optimizer.step()
    true = torch.tensor([[-1.2, 0.6], [1.2, -0.6]]).view(1, 2, 2, 1, 1)
    wrong = (net.flow(clip) - true).square().sum(2).sqrt()[..., 4:-4, 4:-4]
    assert wrong.mean() < 0.25  # unmoved it would be 1.34


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"frames": 4}, "frames must be 3 or 5, got 4"),
        ({"kernel": "bicubik"}, "kernel of vespcn: 'bicubik'; did you mean 'bicubic'"),
        ({"phases": True, "motion": False}, "phases are those of the motion; leave motion on"),
        ({"fusion": "erly"}, "fusion of vespcn: 'erly'; did you mean 'early'"),
        ({"frames": 5, "convs": 5}, "convs must be more than the 5 frames, got 5"),
    ],
)
def test_what_cannot_be_is_refused(args: dict, said: str):
    with pytest.raises(ValueError, match=said):
        build("vespcn", 4, **args)
