import pytest
import torch
from torch import nn

from sr_module.archs import build
from sr_module.interpolation import interpolate
from sr_module.net import SRNet


def sisters(arch: str = "msrresnet", scale: int = 2) -> tuple[SRNet, SRNet]:
    """A network and its sister, all of whose values are other ones."""
    pair = tuple(build(arch, scale, features=4, blocks=1).eval() for _ in range(2))
    with torch.no_grad():
        for tensor in pair[1].state_dict().values():
            tensor.add_(1)
    return pair


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_every_weight_is_the_stated_mixture(alpha):
    psnr, gan = sisters()
    mixed = interpolate(psnr, gan, alpha=alpha).state_dict()
    for key, value in psnr.state_dict().items():
        expected = (1 - alpha) * value + alpha * gan.state_dict()[key]
        torch.testing.assert_close(mixed[key], expected)


def test_the_ends_are_the_networks_themselves_and_stay_as_they_are():
    psnr, gan = sisters()
    before = {key: value.clone() for key, value in psnr.state_dict().items()}
    lr = torch.rand(1, 3, 6, 5)
    assert torch.equal(interpolate(psnr, gan, alpha=0)(lr), psnr(lr))
    assert torch.equal(interpolate(psnr, gan, alpha=1)(lr), gan(lr))
    assert all(torch.equal(psnr.state_dict()[key], value) for key, value in before.items())


def test_running_statistics_are_mixed_and_counters_are_those_of_the_psnr_network():
    psnr, gan = sisters("srresnet")
    norms = [
        next(m for m in net.modules() if isinstance(m, nn.BatchNorm2d))
        for net in (psnr, gan, interpolate(psnr, gan, alpha=0.25))
    ]
    torch.testing.assert_close(
        norms[2].running_var, 0.75 * norms[0].running_var + 0.25 * norms[1].running_var
    )
    assert [int(norm.num_batches_tracked) for norm in norms] == [0, 1, 0]


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
def test_a_share_outside_0_to_1_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha must be from 0 to 1"):
        interpolate(*sisters(), alpha=alpha)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (("srresnet", 2, {"features": 4, "blocks": 1}), "architecture: msrresnet and srresnet"),
        (("msrresnet", 4, {"features": 4, "blocks": 1}), "scale: 2 and 4"),
        (("msrresnet", 2, {"features": 8, "blocks": 2}), "features: 4 and 8; blocks: 1 and 2"),
    ],
)
def test_networks_that_differ_in_more_than_values_are_refused_with_the_difference(other, said):
    arch, scale, args = other
    with pytest.raises(ValueError, match=said):
        interpolate(sisters()[0], build(arch, scale, **args), alpha=0.5)


def test_networks_without_a_name_are_compared_tensor_by_tensor():
    psnr, gan = sisters()
    psnr.arch = gan.arch = ""
    assert interpolate(psnr, gan, alpha=0.5).scale == 2
    gan.conv_last = nn.Conv2d(4, 3, 5)
    with pytest.raises(ValueError, match=r"conv_last.weight: \(3, 4, 3, 3\) and \(3, 4, 5, 5\)"):
        interpolate(psnr, gan, alpha=0.5)
    gan.extra = nn.Conv2d(1, 1, 1, bias=False)
    with pytest.raises(ValueError, match=r"extra.weight: only in the GAN network"):
        interpolate(psnr, gan, alpha=0.5)
