"""What every network of the catalogue promises, and how they are built by name."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from sr_module import load_net, save_net, upscale
from sr_module.archs import ARCHS, build, build_discriminator
from sr_module.archs.layers import CONTEXT
from sr_module.losses import l1
from sr_module.net import SRNet

SMALL: dict[str, dict[str, object]] = {
    "raisr": {"patch": 5, "blending": False},
    "srcnn": {"features": 8, "mapping": 4, "middle": 5},
    "fsrcnn": {"features": 8, "shrunk": 4, "mapping": 2},
    "espcn": {"features": 8, "mapping": 4},
    "vdsr": {"features": 8, "convs": 5},
    "drcn": {"features": 8, "recursions": 3},
    "srresnet": {"features": 8, "blocks": 2},
    "msrresnet": {"features": 8, "blocks": 2},
    "edsr": {"features": 8, "blocks": 2},
    "rrdbnet": {"features": 8, "blocks": 1, "growth": 4},
    "compact": {"features": 8, "convs": 2},
    "vespcn": {"features": 8, "convs": 4},
    "staged": {"features": 8, "blocks": 1},
    "pixel_recursive": {
        "features": 8,
        "blocks": 1,
        "prior_features": 4,
        "prior_layers": 2,
        "hidden": 8,
    },
}
RESIDUAL = ("msrresnet", "compact", "edsr", "vdsr", "drcn", "vespcn", "staged")
"""Networks that add to an enlarged input or mean: nothing is added to it at rest."""
EVERY = [(arch, scale) for arch, kind in ARCHS.items() for scale in kind.scales]


def small(arch: str, scale: int) -> SRNet:
    """A small network as lively as a trained one, whose results lie inside [0, 1]."""
    net = build(arch, scale, **SMALL[arch])
    if not list(net.parameters()):
        nn.init.normal_(net.filters, std=0.05)  # learns without gradients
        return net.eval()
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    for conv in convs:
        nn.init.kaiming_normal_(conv.weight)
    for last in {convs[-1], *(conv for conv in convs if conv.out_channels == 3)}:
        last.weight.data.mul_(0.02)
        nn.init.constant_(last.bias, 0.0 if arch in RESIDUAL else 0.5)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return net.eval()


def pictures(net: SRNet, *shape: int) -> torch.Tensor:
    """Noise of a shape ``(..., 3, H, W)``, with the network's frames where it reads several."""
    frames = [] if net.frames == 1 else [net.frames]
    return torch.rand(*shape[:-3], *frames, *shape[-3:])


@pytest.mark.parametrize(("arch", "scale"), EVERY)
def test_the_result_is_exactly_scale_times_as_large(arch: str, scale: int):
    net = small(arch, scale)
    for height, width in [(5, 5), (6, 9), (8, 33), (17, 12), (33, 32)]:
        sr = upscale(net, pictures(net, 3, height, width))
        assert sr.shape == (3, scale * height, scale * width)


@pytest.mark.parametrize(("arch", "scale"), EVERY)
@pytest.mark.parametrize("size", [(12, 8), (4, 20)])
def test_what_is_prepared_for_inference_makes_the_same_picture(
    arch: str, scale: int, size: tuple[int, int]
):
    net = small(arch, scale)
    lr = pictures(net, 2, 3, *size)
    with torch.inference_mode():
        expected = net(lr).clamp(0, 1)
        assert ((expected > 0) & (expected < 1)).float().mean() > 0.9  # little of it is clamped
        assert torch.allclose(net.prepared(torch.float32)(lr), expected, atol=2e-6)
        with torch.autocast("cpu", torch.bfloat16):
            rough = net.prepared(torch.bfloat16)(lr)
        assert (rough - expected).abs().max() < 0.05


@pytest.mark.parametrize(("arch", "scale"), EVERY)
def test_a_batch_of_two_equals_two_batches_of_one(arch: str, scale: int):
    net = small(arch, scale)
    lr = pictures(net, 2, 3, 12, 8)
    with torch.no_grad():
        assert torch.allclose(net(lr), torch.cat([net(lr[:1]), net(lr[1:])]), atol=1e-5)


@pytest.mark.parametrize(("arch", "scale"), EVERY)
def test_a_gradient_reaches_every_parameter(arch: str, scale: int):
    net = small(
        arch, scale
    )  # evaluation mode: batch statistics would cancel the biases before them
    if scale < max(net.serves, default=0):
        pytest.skip("some of its weights are those of larger scales")
    lr, hr = pictures(net, 2, 3, 12, 12), torch.rand(2, 3, 12 * scale, 12 * scale)
    if list(net.parameters()):
        net.loss(lr, hr, l1).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("arch", "scale"), EVERY)
def test_a_saved_network_comes_back_the_same(arch: str, scale: int, tmp_path: Path):
    net = small(arch, scale)
    lr = pictures(net, 3, 9, 10)
    save_net(net, tmp_path / "net.safetensors", provenance={})
    again = load_net(tmp_path / "net.safetensors")
    assert (again.arch, again.scale, again.arch_args) == (arch, scale, net.arch_args)
    assert torch.equal(upscale(again, lr), upscale(net, lr))


@pytest.mark.parametrize(("arch", "scale"), EVERY)
def test_tiles_meet_unseen(arch: str, scale: int):
    net = small(arch, scale)
    lr = pictures(net, 3, 85, 38)
    whole = upscale(net, lr)
    assert (upscale(net, lr, tile=16) - whole).abs().max() < 1e-5
    net.overlap = 0
    assert (upscale(net, lr, tile=16) - whole).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("arch", "scale", "blocks"), [("srresnet", 4, 16), ("edsr", 4, 16), ("rrdbnet", 2, 6)]
)
def test_tiles_of_deep_networks_meet_to_one_level_though_they_see_further(arch, scale, blocks):
    torch.manual_seed(0)
    net = build(arch, scale, features=64, blocks=blocks).eval()
    assert net.overlap == net.multiple_of * CONTEXT  # less than they see, see layers.CONTEXT
    lr = torch.rand(3, 12, 40 + 2 * net.overlap + 40)  # a strip: its middle tile has both sides cut
    whole = upscale(net, lr)
    assert (upscale(net, lr, tile=40) - whole).abs().max() < 1 / 255
    net.overlap = 2 * net.multiple_of
    assert (upscale(net, lr, tile=40) - whole).abs().max() > 1 / 255


@pytest.mark.parametrize("arch", ARCHS)
def test_the_overlap_of_a_shallow_network_is_its_receptive_radius(arch: str):
    net = small(arch, 4)
    lr = pictures(net, 1, 3, 16, 96).requires_grad_()
    place = 44 // net.multiple_of * net.multiple_of
    net(lr)[..., 4 * place : 4 * (place + 1)].sum().backward()
    columns = lr.grad.abs().flatten(0, -2).sum(0).nonzero()
    radius = (columns - place).abs().max().item()
    assert net.overlap - max(1, net.multiple_of) <= radius <= net.overlap


@pytest.mark.parametrize(
    ("arch", "scale", "args", "count"),
    [
        ("srcnn", 4, {}, 8_129),
        ("srcnn", 4, {"middle": 5}, 57_281),
        ("espcn", 2, {}, 21_284),
        ("espcn", 3, {}, 22_729),
        ("espcn", 4, {}, 24_752),
        ("vdsr", 4, {}, 665_921),
        ("drcn", 4, {}, 1_775_121),
        ("srresnet", 4, {}, 1_549_462),
        ("msrresnet", 4, {}, 1_517_571),
        ("edsr", 2, {}, 1_369_859),
        ("edsr", 3, {}, 1_554_499),
        ("edsr", 4, {}, 1_517_571),
        ("edsr", 2, {"features": 256, "blocks": 32, "residual_scale": 0.1}, 40_729_603),
        ("edsr", 3, {"features": 256, "blocks": 32, "residual_scale": 0.1}, 43_680_003),
        ("edsr", 4, {"features": 256, "blocks": 32, "residual_scale": 0.1}, 43_089_923),
        ("rrdbnet", 4, {}, 16_697_987),
        ("rrdbnet", 2, {}, 16_703_171),
        ("rrdbnet", 4, {"blocks": 16}, 11_662_019),
        ("rrdbnet", 4, {"blocks": 6}, 4_467_779),
        ("compact", 4, {}, 621_424),
    ],
)
def test_parameter_counts_are_those_of_the_papers(arch: str, scale: int, args: dict, count: int):
    with torch.device("meta"):
        net = build(arch, scale, **args)
    assert sum(parameter.numel() for parameter in net.parameters()) == count


@pytest.mark.parametrize(
    ("args", "count"), [({}, 12_464), ({"features": 32, "shrunk": 5, "mapping": 1}, 3_937)]
)
def test_fsrcnn_has_the_papers_weights_besides_biases_and_activations(args: dict, count: int):
    net = build("fsrcnn", 3, **args)
    assert sum(p.numel() for p in net.parameters() if p.ndim == 4) == count


def test_build_records_every_argument_in_a_form_that_json_holds():
    net = build("edsr", 2, features=8, residual_scale=1)
    assert net.arch == "edsr"
    assert net.arch_args == {"features": 8, "blocks": 16, "residual_scale": 1.0}
    assert json.loads(json.dumps(net.arch_args)) == net.arch_args


@pytest.mark.parametrize(
    ("arch", "scale", "args", "said"),
    [
        ("rrdbnt", 4, {}, "unknown architecture 'rrdbnt'; did you mean 'rrdbnet'.*srcnn, fsrcnn"),
        ("rrdbnet", 3, {}, "rrdbnet has no scale 3; choose from: 1, 2, 4"),
        ("edsr", 4, {"block": 3}, "argument of edsr: 'block'; did you mean 'blocks'.*features, bl"),
        ("edsr", 4, {"blocks": "3"}, "edsr: blocks must be of type int, got '3'"),
        ("edsr", 4, {"blocks": True}, "edsr: blocks must be of type int, got True"),
        ("edsr", 4, {"blocks": 0}, "edsr: blocks must be positive, got 0"),
        ("edsr", 4, {"residual_scale": float("nan")}, "residual_scale must be positive, got nan"),
    ],
)
def test_what_cannot_be_built_is_refused_in_the_users_words(arch, scale, args, said: str):
    with pytest.raises(ValueError, match=said):
        build(arch, scale, **args)


def test_unknown_discriminators_and_arguments_are_refused():
    with pytest.raises(
        ValueError, match=r"discriminator 'u-net'; did you mean 'unet'.*srgan, vgg128, unet"
    ):
        build_discriminator("u-net")
    with pytest.raises(ValueError, match="argument of srgan: 'crops'; did you mean 'crop'"):
        build_discriminator("srgan", crops=96)
