import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detection import Upscale
from detection.phase import centre_shift

MODES = ["nearest", "nearest-exact", "bilinear", "bicubic"]


def enlarger(mode: str, scale: int) -> Upscale:
    return lambda lr: F.interpolate(lr, scale_factor=float(scale), mode=mode)


def corner_to_corner(lr: Tensor) -> Tensor:
    """Four times by linear weights that start at the first pixel's centre: the classic error."""
    height, width = lr.shape[-2:]
    y, x = torch.arange(4 * height) / 4, torch.arange(4 * width) / 4
    grid = torch.stack(
        [
            (2 * x / (width - 1) - 1).expand(4 * height, -1),
            (2 * y / (height - 1) - 1)[:, None].expand(-1, 4 * width),
        ],
        dim=-1,
    )
    return F.grid_sample(
        lr, grid.expand(len(lr), -1, -1, -1), padding_mode="border", align_corners=True
    )


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("mode", MODES)
def test_resampling_with_centres_in_place_moves_nothing(mode: str, scale: int) -> None:
    assert centre_shift(enlarger(mode, scale), scale=scale) == pytest.approx((0, 0), abs=0.01)


def test_a_network_of_shuffled_pixels_moves_nothing() -> None:
    copy = nn.Conv2d(3, 12, 1, bias=False)
    with torch.no_grad():
        copy.weight.copy_(torch.eye(3).repeat_interleave(4, 0)[:, :, None, None])
    net = nn.Sequential(copy, nn.PixelShuffle(2))
    with torch.no_grad():
        assert centre_shift(net, scale=2) == pytest.approx((0, 0), abs=0.01)


def test_the_classic_phase_error_of_four_times_is_three_eighths_of_a_pixel() -> None:
    shift = centre_shift(corner_to_corner, scale=4)
    assert shift == pytest.approx((-0.375, -0.375), abs=0.01)


@pytest.mark.parametrize(("right", "down"), [(1, 0), (0, 2), (-3, 1)])
def test_a_shift_is_told_with_its_sign_and_in_small_pixels(right: int, down: int) -> None:
    def moved(lr: Tensor) -> Tensor:
        return enlarger("bilinear", 4)(lr).roll((down, right), (2, 3))

    assert centre_shift(moved, scale=4) == pytest.approx((right / 4, down / 4), abs=0.01)


def test_a_change_of_brightness_and_faint_noise_are_no_shift() -> None:
    noise = torch.zeros(1, 3, 192, 192)
    noise[..., :60] = 3e-4  # far from the blob, on one side

    def brighter(lr: Tensor) -> Tensor:
        # a flat picture has none, so that the difference from it keeps the noise
        return 0.8 * enlarger("bicubic", 4)(lr) + 0.1 + noise * (lr.amax() > 0.3)

    assert centre_shift(brighter, scale=4) == pytest.approx((0, 0), abs=0.01)
