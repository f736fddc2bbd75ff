"""Real-ESRGAN's degradation: its constants, drawn for each picture, repeatable from a seed."""

import math
import random

import pytest
import torch
from torch.nn import functional as F

from sr_module.degrade import SecondOrder, Stage, sharpen
from sr_module.degrade.codecs import through_jpeg
from sr_module.degrade.draws import draw_seeds
from sr_module.degrade.kernels import SHAPES, _draw_beta, draw_blur, draw_sinc, filtered, sinc
from sr_module.degrade.noise import gaussian_noise, poisson_noise

BLUR = {
    "sizes": (7, 21),
    "sigma": (0.2, 3.0),
    "generalized_beta": (0.5, 4.0),
    "plateau_beta": (1.0, 2.0),
}


def scene(batch: int = 3, side: int = 64) -> torch.Tensor:
    coarse = torch.rand(batch, 3, side // 8, side // 8, generator=torch.Generator().manual_seed(4))
    return F.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_seed_gives_the_same_pictures_alone_and_in_a_batch():
    hr, degrade = scene(5), SecondOrder(4)
    batched, again, other = (degrade(hr, seeded(seed)) for seed in (7, 7, 8))
    source = seeded(7)
    alone = torch.stack([degrade(picture, source) for picture in hr])
    assert batched.shape == (5, 3, 16, 16)
    assert torch.equal(batched, again)
    assert not torch.equal(batched, other)
    assert torch.allclose(batched, alone, atol=1.01 / 255)  # Fourier transforms of other sizes
    assert (batched - alone).abs().mean() < 1e-4


def test_pictures_of_one_batch_are_degraded_differently():
    hr = scene(1).expand(12, -1, -1, -1)
    lr = SecondOrder(4)(hr, seeded(1))
    assert len({each.sum().item() for each in lr}) == 12


def test_frames_of_a_clip_share_kernels_sizes_and_qualities():
    silent = Stage(gaussian=1.0, noise_sigma=(0.0, 0.0))
    degrade = SecondOrder(4, first=silent, second=silent)
    clips = degrade(scene(1).expand(2, 3, -1, -1, -1), seeded(1))
    assert clips.shape == (2, 3, 3, 16, 16)
    assert torch.equal(clips, clips[:, :1].expand_as(clips))
    assert not torch.equal(clips[0], clips[1])
    noisy = SecondOrder(4)(scene(1).expand(2, 3, -1, -1, -1), seeded(1))
    assert not torch.equal(noisy[:, 0], noisy[:, 1])


def test_results_are_eight_bit_levels_in_range():
    lr = SecondOrder(2)(scene(8, 48), seeded(3))
    assert lr.shape == (8, 3, 24, 24)
    assert 0 <= lr.min() <= lr.max() <= 1
    assert torch.allclose(lr * 255, (lr * 255).round(), atol=1e-4)


def test_choices_come_up_as_often_as_published():
    degrade = SecondOrder(4)
    drawn = [degrade._draw(seed) for seed in range(1500)]
    share = lambda hits: sum(hits) / len(drawn)  # noqa: E731
    near = lambda p: pytest.approx(p, abs=0.05)  # noqa: E731
    assert share(each.first.factor > 1 for each in drawn) == near(0.2)
    assert share(each.first.factor == 1 for each in drawn) == near(0.1)
    assert share(each.second.factor < 1 for each in drawn) == near(0.4)
    assert share(each.second.kernel is not None for each in drawn) == near(0.8)
    assert share(each.first.grey for each in drawn) == near(0.4)
    assert share(each.second.gaussian for each in drawn) == near(0.5)
    assert share(each.ringing is not None for each in drawn) == near(0.8)
    assert share(each.jpeg_last for each in drawn) == near(0.5)
    assert all(each.first.kernel is not None for each in drawn)
    assert {len(each.first.kernel) for each in drawn} == set(range(7, 22, 2))
    assert 0.15 <= min(each.first.factor for each in drawn) < 0.2
    assert 1.4 < max(each.first.factor for each in drawn) <= 1.5
    assert {each.first.quality for each in drawn} == set(range(30, 96))
    assert 0.3 <= min(each.second.factor for each in drawn) < 0.4
    assert 1.15 < max(each.second.factor for each in drawn) <= 1.2
    noises = [each.second.noise for each in drawn if each.second.gaussian]
    assert (1 <= min(noises) < 2, 24 < max(noises) <= 25) == (True, True)


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_kernels_keep_a_flat_picture_and_are_point_symmetric(shape: int):
    weights = [float(place == shape) for place in range(len(SHAPES))]
    stretched = False
    for seed in range(20):
        kernel = draw_blur(random.Random(seed), weights=weights, **BLUR)
        assert kernel.sum().item() == pytest.approx(1)
        assert torch.allclose(kernel, kernel.flip(0, 1))
        assert torch.allclose(kernel, kernel.T) or "aniso" in SHAPES[shape]
        stretched |= not torch.allclose(kernel, kernel.rot90())
    assert stretched == ("aniso" in SHAPES[shape])


@pytest.mark.parametrize(
    ("shape", "fall"), [("iso", 0.125), ("generalized_iso", 0.125), ("plateau_iso", None)]
)
def test_kernels_fall_from_their_middle_as_published(shape: str, fall: float | None):
    weights = [float(name == shape) for name in SHAPES]
    fixed = {"sigma": (2.0, 2.0), "generalized_beta": (1.0, 1.0), "plateau_beta": (1.0, 1.0)}
    kernel = draw_blur(random.Random(1), sizes=(21, 21), weights=weights, **fixed)
    expected = 1.25 if fall is None else math.exp(fall)  # at half a sigma
    assert (kernel[10, 10] / kernel[10, 11]).item() == pytest.approx(expected)


def test_exponents_lie_below_and_above_one_equally_often():
    rng = random.Random(0)
    drawn = [_draw_beta(rng, (0.5, 4.0)) for _ in range(4000)]
    assert (0.5 <= min(drawn) < 0.51, 3.95 < max(drawn) <= 4) == (True, True)
    assert sum(beta < 1 for beta in drawn) / len(drawn) == pytest.approx(0.5, abs=0.04)


def test_a_low_pass_filter_passes_what_is_below_its_cutoff():
    kernel = sinc(math.pi / 3, 21)
    response = torch.fft.fft2(kernel, s=(96, 96)).abs()[0]
    assert response[4].item() == pytest.approx(1, abs=0.1)
    assert response[40].item() < 0.1
    assert draw_sinc(random.Random(0), (7, 7)).shape == (7, 7)


def test_filtering_is_the_convolution_of_each_picture_with_its_kernel():
    pictures = scene(2, 40)
    kernels = [draw_blur(random.Random(seed), weights=[1] * 6, **BLUR) for seed in (1, 5)]
    for picture, kernel, made in zip(pictures, kernels, filtered(pictures, kernels), strict=True):
        reach = len(kernel) // 2
        around = F.pad(picture[:, None], [reach] * 4, mode="reflect")
        expected = F.conv2d(around, kernel[None, None].float())[:, 0]
        assert torch.allclose(made, expected, atol=1e-5)


def test_sharpening_is_the_published_two_dimensional_filter():
    pictures = scene(1, 64)
    axis = torch.arange(-25, 26).float()
    window = torch.exp(-axis.square() / 128)
    kernel = torch.outer(window, window) / window.sum() ** 2

    def blur(x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(F.pad(x, [25] * 4, mode="reflect").transpose(0, 1), kernel[None, None])

    residual = pictures - blur(pictures).transpose(0, 1)
    mask = blur((residual.abs() * 255 > 10).float()).transpose(0, 1)
    expected = mask * (pictures + residual / 2).clamp(0, 1) + (1 - mask) * pictures
    assert torch.allclose(sharpen(pictures), expected, atol=1e-5)
    assert (expected - pictures).abs().max() > 0.02


def test_noises_have_their_strength_and_may_be_grey():
    flat = torch.full((3, 128, 128), 0.5)
    coloured = gaussian_noise(flat, 20, grey=False, source=seeded(1)) - flat
    grey = gaussian_noise(flat, 20, grey=True, source=seeded(1)) - flat
    assert coloured.std().item() * 255 == pytest.approx(20, rel=0.05)
    assert torch.equal(grey[0], grey[1])
    assert not torch.equal(coloured[0], coloured[1])
    ramp = torch.linspace(0, 1, 256).expand(3, 256, 256)
    noise = poisson_noise(ramp, 1.0, grey=False, source=seeded(1)) - ramp
    dark, bright = noise[..., 60:68].std().item(), noise[..., 120:136].std().item()
    assert dark == pytest.approx((0.25 / 256) ** 0.5, rel=0.1)
    assert bright == pytest.approx((0.5 / 256) ** 0.5, rel=0.1)


@pytest.mark.parametrize("levels", [2, 3, 5])
def test_photons_are_counted_in_whole_numbers_of_a_power_of_two(levels: int):
    picture = torch.linspace(0, 1, levels).mul(255).round().div(255).repeat(3, 64, 1)
    white = 2 ** math.ceil(math.log2(levels))
    counted = poisson_noise(picture, 1.0, grey=False, source=seeded(1)) * white
    assert torch.allclose(counted, counted.round(), atol=1e-4)
    assert len(counted.round().unique()) == white + 1


def test_the_ringing_filter_stands_before_the_last_jpeg_or_after_it():
    still = {"blur": 0.0, "resize": (0.0, 0.0, 1.0), "gaussian": 1.0, "noise_sigma": (0.0, 0.0)}
    first, second = (Stage(**still, jpeg_quality=(q, q)) for q in (90, 20))
    degrade = SecondOrder(1, sharpened=False, final_sinc=1.0, first=first, second=second)
    hr = scene(12)
    seen = set()
    for picture, made, seed in zip(
        hr, degrade(hr, seeded(6)), draw_seeds(12, seeded(6)), strict=True
    ):
        drawn = degrade._draw(seed)
        steps = [
            lambda x, k=drawn.ringing: filtered(x[None], [k])[0],
            lambda x: through_jpeg(x, 20),
        ]
        expected = through_jpeg(picture, 90)
        for step in steps if drawn.jpeg_last else steps[::-1]:
            expected = step(expected)
        assert torch.allclose(made, expected.clamp(0, 1), atol=0.51 / 255)
        seen.add(drawn.jpeg_last)
    assert seen == {False, True}


def test_pictures_of_a_few_pixels_are_degraded_too():
    assert SecondOrder(4)(torch.rand(4, 3, 16, 16), seeded(2)).shape == (4, 3, 4, 4)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SecondOrder(0), "scale must be 1 or more"),
        (lambda: SecondOrder(4, kernel_sizes=(8, 21)), "kernel_sizes must be two odd numbers"),
        (lambda: SecondOrder(4, final_sinc=2.0), "final_sinc must be a share"),
        (lambda: Stage(jpeg_quality=(95, 30)), "jpeg_quality must be 1 to 100"),
        (lambda: Stage(resize=(0.0, 0.0, 0.0)), "resize must be weights"),
        (lambda: Stage(grey=-0.1), "grey must be a share"),
        (lambda: Stage(sigma=(3.0, 0.2)), "sigma must be"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, said: str):
    with pytest.raises(ValueError, match=said):
        make()


def test_sides_that_the_scale_does_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"49x48.*crop_to_multiple"):
        SecondOrder(4)(torch.zeros(1, 3, 49, 48))
