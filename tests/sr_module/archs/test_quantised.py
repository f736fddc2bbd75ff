"""Stacks in 8-bit integers beside the same in floats."""

import pytest
import torch
from torch import nn

from sr_module import SRNet, build, load_net, upscale
from sr_module.archs import ARCHS, quantised
from sr_module.archs.luma import enlarge, luma
from sr_module.archs.packed import Convolution
from sr_module.archs.quantised import Grid, Quantised, Unfolded, can_quantise
from sr_module.catalogue import trained

INT8 = [arch for arch, kind in ARCHS.items() if kind.has_int8]
EVERY = [(arch, scale) for arch in INT8 for scale in (2, 3, 4)]
SHIPPED = [name for name in trained() if name.split("_")[0] in INT8]
here = pytest.mark.skipif(not can_quantise(), reason="this CPU or torch has no 8-bit products")


def lively(arch: str, scale: int) -> SRNet:
    """An untrained network whose layers pass on what they are given, results inside [0, 1]."""
    net = build(arch, scale)
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    for conv in convs:
        nn.init.kaiming_normal_(conv.weight)
        nn.init.normal_(conv.bias, std=0.1)
    convs[-1].weight.data.mul_(0.05)
    convs[-1].bias.data.fill_(0.5)
    return net.eval()


def photograph(*size: int) -> torch.Tensor:
    """Soft, with grain, and a black and a white corner."""
    coarse = torch.rand(1, 3, 5, 5)
    picture = nn.functional.interpolate(coarse, size=size, mode="bilinear")[0]
    picture = (picture + 0.03 * torch.randn(3, *size)).clamp(0, 1)
    picture[:, :4, :4], picture[:, -4:, -4:] = 0, 1
    return picture


@here
@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("size", [(5, 5), (17, 12), (33, 46)])
def test_what_shipped_networks_make_in_8_bits_is_close_to_fp32s(name: str, size: tuple[int, int]):
    net, lr = load_net(trained()[name]), photograph(*size)
    exact = upscale(net, lr)
    gap = upscale(net, lr, precision="int8") - exact
    assert 0 < gap.abs().max() < 0.04
    assert gap.square().mean().sqrt() < 0.01
    assert exact.std() > 0.1


@here
@pytest.mark.parametrize("name", SHIPPED)
def test_nothing_is_cut_off_where_contrast_is_full(name: str):
    net, lr = load_net(trained()[name]), torch.rand(3, 40, 40).round()
    lr[:, ::2, :20], lr[:, 1::2, :20] = 0, 1  # lines as of text
    exact = upscale(net, lr)
    assert (upscale(net, lr, precision="int8") - exact).abs().max() < 0.03


def test_every_kind_of_network_that_has_int8_has_shipped_weights_to_test():
    assert {name.split("_")[0] for name in SHIPPED} == set(INT8)


@here
@pytest.mark.parametrize(("arch", "scale"), EVERY)
def test_tiles_batches_and_repetitions_give_the_same_numbers(arch: str, scale: int):
    net = lively(arch, scale)
    lr = torch.stack([photograph(41, 38), photograph(41, 38)])
    whole = upscale(net, lr, precision="int8")
    assert (whole - upscale(net, lr)).abs().max() > 1e-4
    assert torch.equal(upscale(net, lr, precision="int8"), whole)
    assert (upscale(net, lr, precision="int8", tile=16) - whole).abs().max() < 1 / 255
    apart = torch.stack([upscale(net, one, precision="int8") for one in lr])
    assert (apart - whole).abs().max() < 1e-5


@here
@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_flat_pictures_keep_their_grey(name: str, value: float):
    net, lr = load_net(trained()[name]), torch.full((3, 9, 9), value)
    gap = upscale(net, lr, precision="int8") - upscale(net, lr)
    assert gap.abs().max() < 0.012


def test_the_range_of_an_enlargement_holds_what_it_overshoots():
    lows, highs = [], []
    for _ in range(50):
        y = luma(torch.randint(0, 2, (8, 1, 9, 9)).float().expand(-1, 3, -1, -1))
        for scale in (2, 3, 4, 8):
            up = enlarge(y, scale)
            lows.append(up.min())
            highs.append(up.max())
    picture, enlarged = Grid.of_luma(enlarged=False), Grid.of_luma(enlarged=True)
    assert enlarged.low <= min(lows) < picture.low - 0.1
    assert highest(picture) + 0.1 < max(highs) <= highest(enlarged)


def highest(grid: Grid) -> torch.Tensor:
    return grid.low + 255 * grid.step


LUMA = Grid.of_luma(enlarged=False)
GREY = LUMA.low + 128 * LUMA.step


@here
@pytest.mark.parametrize("activation", ["none", "tanh"])
@pytest.mark.parametrize("side", [3, 5, 9])
def test_the_first_layers_numbers_are_the_layers_values(activation: str, side: int):
    layer = Convolution(torch.randn(16, 1, side, side) / side, torch.randn(16), activation)
    y = luma(torch.rand(2, 3, 20, 31))
    with torch.inference_mode():
        exact = layer(y)
        low, high = exact.amin((0, 2, 3)), exact.amax((0, 2, 3))
        grid = Grid.between(low, high) if activation == "none" else Grid.around_zero(torch.ones(16))
        made = Unfolded(layer, LUMA, grid, GREY)(y)
    assert (made.dtype, made.shape[:3]) == (torch.uint8, exact.shape[:3])
    error = made[..., : exact.shape[-1]] - grid.number(exact.movedim(1, -1)).movedim(-1, 1)
    assert error.abs().max() < 6  # of 255 numbers
    assert error.abs().mean() < 1


@here
def test_numbers_reach_as_far_as_any_luma_takes_them():
    layer = Convolution(torch.randn(8, 1, 3, 3), torch.zeros(8), "relu")
    grid = quantised._range_of(layer, LUMA)
    first = Unfolded(layer, LUMA, grid, GREY)
    for channel in range(8):
        y = torch.where(layer.weight[channel] > 0, highest(LUMA), LUMA.low).unsqueeze(0)
        with torch.inference_mode():
            assert first(y)[0, channel, 0, 0] >= 253


@here
def test_rounded_weights_change_nothing_where_the_picture_is_grey():
    grid = Grid.around_zero(torch.ones(8))
    layer = Convolution(torch.randn(16, 8, 3, 3), torch.randn(16))
    numbers = torch.randint(60, 200, (8,), dtype=torch.uint8)
    grey = grid.low + numbers * grid.step
    x = numbers.view(1, -1, 1, 1).expand(1, 8, 3, 3).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        made = Quantised(layer, grid, grey)(x).flatten().float()
        exact = layer(grey.view(1, -1, 1, 1).expand(1, 8, 3, 3)).flatten()
    assert torch.allclose(made, exact, rtol=0.005, atol=1e-3)  # bfloat16's


@here
@pytest.mark.parametrize("arch", INT8)
def test_weights_that_are_no_numbers_are_an_error_and_no_black_picture(arch: str):
    net = lively(arch, 2)
    list(net.parameters())[2].data.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="not a number"):
        upscale(net, torch.rand(3, 8, 8), precision="int8")


def test_who_cannot_compute_in_8_bits_says_so(monkeypatch):
    lr = torch.rand(3, 8, 8)
    able = "srcnn, espcn"
    message = f"msrresnet does not compute in int8, only {able} do; choose fp32 or bf16"
    with pytest.raises(ValueError, match=message):
        upscale(build("msrresnet", 2, features=4, blocks=1), lr, precision="int8")
    with pytest.raises(ValueError, match="int8 is for CPUs, espcn is to run on meta"):
        upscale(build("espcn", 2), lr, precision="int8", device="meta")
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    assert not can_quantise()
    with pytest.raises(ValueError, match=r"needs a processor .*VNNI.* oneDNN; choose fp32 or bf16"):
        upscale(build("espcn", 2), lr, precision="int8")
