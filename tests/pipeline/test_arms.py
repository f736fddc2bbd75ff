from dataclasses import replace

import pytest
import torch

from pipeline.arms import (
    CROPS,
    NONE,
    ORIGINAL,
    SHARPENED,
    open_arm,
    parse_arms,
    sharpened,
    shift_warnings,
    shifts,
    trainings,
    weights_of,
)
from pipeline.upscalers import KERNELS, bicubic, open_upscaler
from sr_module import build, load_net, save_net
from sr_module.catalogue import trained


def test_the_reference_is_always_there_and_keeps_its_name():
    assert parse_arms(["none"], "native") == {"none": "none", "bicubic": "bicubic"}
    with pytest.raises(ValueError, match="reference arm's name"):
        parse_arms(["bicubic=nearest"], "native")


def test_controls_and_trained_networks_are_arms_by_their_names():
    arms = parse_arms(["crops", "sharpened", "small=srresnet_small_x4"], "native")
    assert arms["small"] == "srresnet_small_x4"
    assert list(arms) == ["crops", "sharpened", "small", "bicubic"]


def test_arms_without_enlargement_have_no_upscaler():
    assert [open_arm(spec, 4, bf16=False) for spec in (NONE, ORIGINAL, CROPS)] == [None] * 3


@pytest.mark.parametrize("there", [True, False])
def test_what_an_arm_enlarges_stays_on_the_accelerator_for_the_detector(there, monkeypatch):
    asked = []
    monkeypatch.setattr("pipeline.arms.open_upscaler", lambda *_, onto, **__: asked.append(onto))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    open_arm("bicubic", 4, bf16=False)
    assert asked == ["cuda" if there else "cpu"]


def test_sharpening_keeps_flat_pictures_and_steepens_edges():
    flat = torch.full((1, 3, 12, 12), 0.4)
    assert torch.allclose(sharpened(flat, 4), torch.full((1, 3, 48, 48), 0.4), atol=1e-5)
    edge = flat.clone()
    edge[..., 6:] = 0.6
    plain, sharp = bicubic(edge, 4), sharpened(edge, 4)
    assert sharp.diff(dim=-1).max() > 1.2 * plain.diff(dim=-1).max()
    assert sharp.mean() == pytest.approx(float(plain.mean()), abs=1e-3)


@pytest.mark.parametrize("side", [1, 3, 9])
def test_windows_smaller_than_the_mask_are_sharpened_too(side):
    assert sharpened(torch.rand(2, 3, side, side), 4).shape == (2, 3, 4 * side, 4 * side)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_no_control_moves_anything_and_so_none_is_warned_of(scale):
    arms = {spec: open_arm(spec, scale, bf16=False) for spec in (*KERNELS, SHARPENED, NONE)}
    moved = shifts(arms)
    assert set(moved) == {*KERNELS, SHARPENED}
    assert max(abs(value) for shift in moved.values() for value in shift) < 0.02
    assert shift_warnings(moved) == []


@pytest.mark.parametrize("name", trained())
def test_no_network_that_comes_with_the_package_moves_what_it_enlarges(name):
    scale = load_net(trained()[name]).scale
    (shift,) = shifts({name: open_arm(name, scale, bf16=False)}).values()
    assert max(abs(value) for value in shift) < 0.05


def test_an_enlargement_that_moves_things_is_warned_of_with_its_figure():
    straight = open_upscaler("bicubic", scale=4)
    crooked = replace(straight, run=lambda lr: bicubic(lr, 4).roll((1, 2), dims=(-2, -1)))
    moved = shifts({"straight": straight, "crooked": crooked})
    assert moved["crooked"] == pytest.approx((0.5, 0.25), abs=0.02)
    (warning,) = shift_warnings(moved)
    assert warning.startswith("crooked moves what it enlarges by +0.50 pixels to the right")


@pytest.fixture
def sisters(tmp_path):
    """Two networks of one size."""
    paths = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        paths.append(tmp_path / f"{seed}.safetensors")
        save_net(build("msrresnet", 4, features=8, blocks=1), paths[-1], provenance={})
    return paths


def test_a_mixture_is_an_arm_and_lies_between_its_networks(sisters):
    psnr, gan = sisters
    lr = torch.rand(1, 3, 8, 8)
    shares = ("0", "0.5", "1")
    made = {s: open_arm(f"mix:{psnr}+{gan}@{s}", 4, bf16=False)(lr) for s in shares}
    assert torch.equal(made["0"], open_arm(str(psnr), 4, bf16=False)(lr))
    assert torch.equal(made["1"], open_arm(str(gan), 4, bf16=False)(lr))
    assert not torch.equal(made["0.5"], made["0"])
    assert parse_arms([f"mix:{psnr}+{gan}@0.5"], "native") == {
        "mix 0.5": f"mix:{psnr}+{gan}@0.5", "bicubic": "bicubic",
    }  # fmt: skip
    assert weights_of(f"mix:{psnr}+{gan}@0.5") == [psnr, gan]


@pytest.mark.parametrize("wrong", ["mix:a.safetensors", "mix:a+b@", "mix:a@0.5"])
def test_half_a_mixture_is_refused_with_its_form(wrong):
    with pytest.raises(ValueError, match=r"mix:PSNR\+GAN@ALPHA"):
        parse_arms([f"m={wrong}"], "native")


def test_several_trainings_are_one_arm_and_all_of_them_must_be_there(sisters):
    spec = ",".join(map(str, sisters))
    assert parse_arms([f"sr={spec}"], "native")["sr"] == spec
    assert trainings(spec) == [str(path) for path in sisters]
    with pytest.raises(FileNotFoundError, match="neither a file"):
        parse_arms([f"sr={spec},gone.safetensors"], "native")


def test_no_arm_rounds_what_it_enlarges_so_that_none_is_favoured(sisters):
    lr = torch.rand(1, 3, 16, 16)
    for spec in ("bilinear", "bicubic", "lanczos", "sharpened", str(sisters[0])):
        levels = open_arm(spec, 4, bf16=False)(lr) * 255
        assert (levels - levels.round()).abs().max() > 0.3, spec
