import shutil
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import pipeline.world
import sr_module.catalogue
from pipeline.upscalers import KERNELS, open_upscaler
from sr_module.archs import build
from sr_module.archs.quantised import can_quantise
from sr_module.checkpoint import load_net, save_net
from sr_module.export import to_onnx
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
    cubic = imresize(lr, 2, quantize=False).clamp(0, 1)
    assert torch.equal(open_upscaler("bicubic", scale=2)(lr), cubic)
    sinc = imresize(lr, 2, quantize=False, kernel="lanczos3").clamp(0, 1)
    assert torch.equal(open_upscaler("lanczos", scale=2)(lr), sinc)
    assert not torch.allclose(sinc, cubic, atol=1e-3)
    assert torch.equal(open_upscaler("nearest", scale=2)(lr)[..., ::2, 1::2], lr)
    bilinear = F.interpolate(lr, scale_factor=2, mode="bilinear")
    assert torch.equal(open_upscaler("bilinear", scale=2)(lr), bilinear)


@pytest.mark.parametrize("name", [*KERNELS, "network"])
def test_what_was_enlarged_lies_where_it_is_wanted(name, network):
    word = str(network) if name == "network" else name
    upscaler = open_upscaler(word, scale=2, device="cpu", onto="meta")
    assert upscaler(torch.rand(1, 3, 6, 6)).device.type == "meta"


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
    with pytest.raises(ValueError, match="enlarge 2 times, not 4 times"):
        open_upscaler(str(network), scale=4)


def test_weights_that_serve_several_scales_open_at_each_of_them(tmp_path):
    path = tmp_path / "several.safetensors"
    save_net(build("vdsr", 2, features=2, convs=2), path, provenance={})
    for scale in (2, 3, 4):
        upscaler = open_upscaler(str(path), scale=scale, device="cpu")
        assert upscaler(torch.rand(1, 3, 6, 5)).shape == (1, 3, 6 * scale, 5 * scale)
    with pytest.raises(ValueError, match="enlarge 2, 3, 4 times, not 8 times"):
        open_upscaler(str(path), scale=8)


def test_what_a_piece_needs_around_it_is_told(tmp_path, network):
    unshuffling = build("rrdbnet", 2, features=4, blocks=1, growth=2)
    save_net(unshuffling, tmp_path / "net2.safetensors", provenance={})
    opened = open_upscaler(str(tmp_path / "net2.safetensors"), device="cpu")
    assert (opened.overlap, opened.multiple_of) == (unshuffling.overlap, 2)
    kernel = open_upscaler("lanczos", scale=2)
    lr = torch.rand(1, 3, 20, 20)
    piece = kernel(lr[..., 6 - kernel.overlap : 14 + kernel.overlap, :])
    cut = 2 * kernel.overlap
    torch.testing.assert_close(piece[..., cut:-cut, :], kernel(lr)[..., 12:28, :])


def test_auto_takes_bf16_where_the_hardware_multiplies_it(network, monkeypatch):
    lr = torch.rand(1, 3, 8, 8)
    exact = open_upscaler(str(network), device="cpu")(lr)
    for fast in (False, True):
        monkeypatch.setattr(pipeline.world, "cpu_has_bf16", lambda fast=fast: fast)
        made = open_upscaler(str(network), device="cpu", precision="auto")(lr)
        assert torch.equal(made, exact) is not fast
        opened = open_upscaler(str(network), device="cpu", precision="auto")
        assert opened.precision == ("bf16" if fast else "fp32")


def test_what_is_neither_kernel_nor_file_is_refused_with_the_nearest():
    message = "'bicubik' is neither a file nor one of bicubic, lanczos, .*; did you mean 'bicubic'"
    with pytest.raises(FileNotFoundError, match=message):
        open_upscaler("bicubik", scale=4)


@pytest.fixture
def shipped(network, tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    shutil.copy(network, folder / "tiny_x2.safetensors")
    monkeypatch.setattr(sr_module.catalogue, "FOLDER", folder)
    return folder


def test_a_trained_network_opens_by_its_name(shipped):
    assert open_upscaler("tiny_x2").name == "tiny_x2"
    with pytest.raises(FileNotFoundError, match="nearest, tiny_x2; did you mean 'tiny_x2'"):
        open_upscaler("tiny_x4")


def test_an_exported_network_opens_like_its_weights(network, tmp_path):
    path = tmp_path / "tiny.onnx"
    path.write_bytes(to_onnx(load_net(network), provenance={}))
    exported, original = (open_upscaler(str(p), device="cpu") for p in (path, network))
    lr = torch.rand(2, 3, 11, 8)
    torch.testing.assert_close(exported(lr), original(lr), atol=1e-5, rtol=0)
    told = [(u.name, u.scale, u.parameters, u.overlap) for u in (exported, original)]
    assert told[0] == told[1]
    with pytest.raises(ValueError, match="this network enlarges 2 times, not 3 times"):
        open_upscaler(str(path), scale=3)
    for precision in ("bf16", "int8"):
        with pytest.raises(ValueError, match="computes in fp32, as it was exported"):
            open_upscaler(str(path), precision=precision)


def test_int8_is_refused_when_the_network_is_opened(network, tmp_path):
    with pytest.raises(ValueError, match=r"msrresnet does not compute in int8"):
        open_upscaler(str(network), device="cpu", precision="int8")


@pytest.mark.skipif(not can_quantise(), reason="this CPU or torch has no 8-bit products")
def test_a_network_in_8_bits_gives_nearly_the_same():
    lr = torch.rand(1, 3, 40, 50)
    exact = open_upscaler("espcn_x4", device="cpu")(lr)
    rough = open_upscaler("espcn_x4", device="cpu", precision="int8")(lr)
    assert 0 < float((rough - exact).abs().max()) < 0.1  # noise of full contrast
    assert float((rough - exact).square().mean().sqrt()) < 0.01


def test_a_runs_network_bears_the_name_of_its_run(tmp_path):
    net = build("msrresnet", 2, features=4, blocks=1)
    save_net(net, tmp_path / "my-run" / "net.safetensors", provenance={})
    assert open_upscaler(str(tmp_path / "my-run" / "net.safetensors")).name == "my-run"
