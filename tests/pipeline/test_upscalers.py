from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from pipeline.upscalers import KERNELS, open_upscaler
from sr_module.archs import build
from sr_module.checkpoint import save_net
from sr_module.resize import imresize


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_net(build("msrresnet", 2, features=8, blocks=1), path, provenance={})
    return path


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_a_kernel_enlarges_by_the_scale_and_keeps_a_flat_picture_flat(name, scale):
    upscaler = open_upscaler(name, scale=scale)
    made = upscaler(torch.full((2, 3, 5, 7), 0.4))
    assert made.shape == (2, 3, 5 * scale, 7 * scale)
    torch.testing.assert_close(made, torch.full_like(made, 0.4))
    assert (upscaler.name, upscaler.scale, upscaler.parameters) == (name, scale, 0)


def test_each_kernel_is_the_one_it_is_called():
    lr = torch.rand(1, 3, 6, 6)
    assert torch.equal(
        open_upscaler("bicubic", scale=2)(lr), imresize(lr, 2, quantize=False).clamp(0, 1)
    )
    assert torch.equal(open_upscaler("nearest", scale=2)(lr)[..., ::2, 1::2], lr)
    bilinear = F.interpolate(lr, scale_factor=2, mode="bilinear")
    assert torch.equal(open_upscaler("bilinear", scale=2)(lr), bilinear)


@pytest.mark.parametrize("scale", [None, 0, -2])
def test_a_kernel_without_a_scale_is_refused(scale):
    with pytest.raises(ValueError, match=r"bicubic needs a scale of 1 or more.*add --scale 4"):
        open_upscaler("bicubic", scale=scale)


def test_a_network_knows_its_scale_and_size(network):
    upscaler = open_upscaler(str(network), device="cpu")
    assert (upscaler.name, upscaler.scale) == ("tiny", 2)
    assert upscaler.parameters == sum(
        p.numel() for p in build("msrresnet", 2, features=8, blocks=1).parameters()
    )
    made = upscaler(torch.rand(1, 3, 9, 5))
    assert made.shape == (1, 3, 18, 10)
    assert 0 <= float(made.min()) <= float(made.max()) <= 1


def test_a_network_in_tiles_and_in_bf16_gives_nearly_the_same(network):
    lr = torch.rand(1, 3, 40, 50)
    whole = open_upscaler(str(network), device="cpu")(lr)
    tiled = open_upscaler(str(network), device="cpu", tile=24)(lr)
    rough = open_upscaler(str(network), device="cpu", precision="bf16")(lr)
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=0)
    assert 0 < float((rough - whole).abs().max()) < 0.02


def test_another_scale_than_the_networks_is_refused(network):
    assert open_upscaler(str(network), scale=2, device="cpu").scale == 2
    with pytest.raises(ValueError, match="enlarges 2 times, --scale says 4; leave --scale out"):
        open_upscaler(str(network), scale=4)


def test_what_is_neither_kernel_nor_file_is_refused():
    message = "'bicubik' is neither a file nor one of bicubic, bilinear, nearest"
    with pytest.raises(FileNotFoundError, match=message):
        open_upscaler("bicubik", scale=4)


def test_a_runs_network_bears_the_name_of_its_run(tmp_path):
    net = build("msrresnet", 2, features=4, blocks=1)
    save_net(net, tmp_path / "my-run" / "net.safetensors", provenance={})
    assert open_upscaler(str(tmp_path / "my-run" / "net.safetensors")).name == "my-run"
