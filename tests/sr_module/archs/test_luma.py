"""Networks of the Y channel: colour by bicubic interpolation, luma by the network."""

import pytest
import torch
from torch import Tensor

from sr_module.archs import ARCHS, build
from sr_module.archs.luma import LumaNet, enlarge, interpolated_radius, luma
from sr_module.losses import l1
from sr_module.metrics import luma as rounded_luma
from sr_module.resize import imresize

LUMA = [arch for arch, kind in ARCHS.items() if issubclass(kind, LumaNet)]


class Lifted(LumaNet):
    """Adds 0.05 to the interpolated luma."""

    scale = 3

    def luma_sr(self, y: Tensor) -> Tensor:
        return enlarge(y, self.scale) + 0.05


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (5, 8), (33, 20)])
def test_the_fast_enlargements_are_matlabs(scale: int, size: tuple[int, int]):
    image = torch.rand(2, 3, *size)
    exact = imresize(image.double(), scale, quantize=False)
    assert torch.allclose(enlarge(image, scale).double(), exact, atol=1e-5)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(enlarge(image, scale).double(), exact, atol=1e-5)


def test_luma_is_the_one_that_the_metric_compares():
    image = torch.randint(0, 256, (2, 3, 9, 11)).float() / 255
    assert (luma(image) - rounded_luma(image)).abs().max() <= 0.5 / 255 + 1e-6


def test_the_networks_luma_is_the_luma_of_its_picture():
    lr = torch.rand(2, 3, 6, 7)
    assert torch.allclose(luma(Lifted()(lr)), Lifted().luma_sr(luma(lr)), atol=1e-6)


def test_colour_is_that_of_bicubic_interpolation():
    lr = torch.rand(1, 3, 6, 7)
    sr, up = Lifted()(lr), enlarge(lr, 3)
    for first, second in ((0, 1), (1, 2)):  # differences of two colours know no luma
        colour = sr[:, first] - sr[:, second], up[:, first] - up[:, second]
        assert torch.allclose(*colour, atol=1e-6)


def test_grey_stays_grey():
    sr = Lifted()(torch.rand(1, 1, 6, 7).expand(-1, 3, -1, -1))
    assert torch.allclose(sr[:, 0], sr[:, 1], atol=1e-6)
    assert torch.allclose(sr[:, 0], sr[:, 2], atol=1e-6)


def some_lr(net: LumaNet, side: int) -> Tensor:
    """A picture, or a clip for a network of several frames."""
    frames = (net.frames,) if net.frames > 1 else ()
    return torch.rand(1, *frames, 3, side, side)


@pytest.mark.parametrize("arch", LUMA)
def test_the_loss_looks_at_luma_only(arch: str):
    net = build(arch, 2)
    lr, hr = some_lr(net, 6), torch.rand(1, 3, 12, 12)
    # Two colours of one luma: red up, blue down.
    shift = torch.tensor([24.966, 0.0, -65.481]).view(1, 3, 1, 1) * 1e-3
    assert torch.allclose(net.loss(lr, hr, l1), net.loss(lr, hr + shift, l1), atol=1e-6)
    assert not torch.allclose(net.loss(lr, hr, l1), net.loss(lr, hr + 0.1, l1), atol=1e-3)


@pytest.mark.parametrize("arch", LUMA)
def test_bfloat16_does_not_reach_the_interpolated_colours(arch: str):
    net = build(arch, 2).eval()
    lr = some_lr(net, 9)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        sr = net(lr)
    assert sr.dtype == torch.float32
    up = enlarge(lr[:, net.frames // 2] if net.frames > 1 else lr, 2)
    assert torch.allclose(sr[:, 0] - sr[:, 1], up[:, 0] - up[:, 1], atol=1e-6)


@pytest.mark.parametrize(("radius", "scale"), [(6, 2), (6, 3), (6, 4), (20, 2), (20, 3), (20, 4)])
def test_interpolated_radius_covers_what_interpolation_and_network_read(radius: int, scale: int):
    y = torch.zeros(1, 1, 1, 61, requires_grad=True)
    first, last = 30 * scale - radius, 31 * scale + radius
    enlarge(y, scale)[..., first:last].sum().backward()
    assert y.grad is not None
    read = y.grad[0, 0, 0].nonzero()
    assert (read - 30).abs().max() == interpolated_radius(radius, scale)
