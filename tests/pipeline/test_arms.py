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
)
from pipeline.upscalers import KERNELS, bicubic, open_upscaler


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


def test_no_control_moves_anything_and_so_none_is_warned_of():
    arms = {spec: open_arm(spec, 4, bf16=False) for spec in (*KERNELS, SHARPENED, NONE)}
    moved = shifts(arms)
    assert set(moved) == {*KERNELS, SHARPENED}
    assert max(abs(value) for shift in moved.values() for value in shift) < 0.02
    assert shift_warnings(moved) == []


def test_an_enlargement_that_moves_things_is_warned_of_with_its_figure():
    straight = open_upscaler("bicubic", scale=4)
    crooked = replace(straight, run=lambda lr: bicubic(lr, 4).roll((1, 2), dims=(-2, -1)))
    moved = shifts({"straight": straight, "crooked": crooked})
    assert moved["crooked"] == pytest.approx((0.5, 0.25), abs=0.02)
    (warning,) = shift_warnings(moved)
    assert warning.startswith("crooked moves what it enlarges by +0.50 pixels to the right")
