import math
from fractions import Fraction

import pytest
import torch

from sr_module.degrade import Degradation
from sr_module.degrade.blur import gaussian_blur
from sr_module.resize import imresize

EVERYTHING = Degradation(2, blur_sigma=1.2, noise_sigma=10, jpeg_quality=60)


def photo(batch: int = 1, side: int = 48) -> torch.Tensor:
    """Smooth colours with an edge, so that JPEG and blur have something to spoil."""
    ramp = torch.linspace(0, 1, side)
    image = torch.stack([ramp.expand(side, -1), ramp.expand(side, -1).T, torch.eye(side)])
    return (
        image.expand(batch, -1, -1, -1) * torch.linspace(0.5, 1, batch).view(-1, 1, 1, 1)
    ).clone()


def test_a_scale_alone_is_the_papers_reduction():
    hr = photo()
    assert torch.equal(Degradation(3)(hr), imresize(hr, Fraction(1, 3)))


def test_a_batch_equals_its_pictures_one_by_one():
    hr = photo(3, side=42)  # 3 x 21 x 21 values: no multiple of what generators draw at once
    batched = EVERYTHING(hr, torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    alone = torch.stack([EVERYTHING(picture, generator) for picture in hr])
    assert torch.equal(batched, alone)


def test_frames_of_a_clip_share_the_draw_and_those_of_a_batch_do_not():
    degrade = Degradation(2, blur_sigma=(0, 4), jpeg_quality=(5, 95), webp_quality=(5, 95))
    still = photo().expand(5, -1, -1, -1)
    clips = degrade(still.repeat(2, 1, 1, 1, 1), torch.Generator().manual_seed(3))
    assert clips.shape == (2, 5, 3, 24, 24)
    assert torch.equal(clips, clips[:, :1].expand_as(clips))
    assert not torch.equal(clips[0], clips[1])
    batch = degrade(still, torch.Generator().manual_seed(3))
    assert len(batch.flatten(1).unique(dim=0)) == 5


def test_noise_of_a_clip_is_as_strong_in_every_frame_but_is_not_the_same():
    grey = torch.full((1, 4, 3, 96, 96), 0.5)
    degrade = Degradation(1, noise_sigma=(2, 40))
    clip = degrade(grey, torch.Generator().manual_seed(8))[0]
    assert torch.equal(clip[0], degrade(grey[:, 0], torch.Generator().manual_seed(8))[0])
    deviations = clip.std((1, 2, 3))
    assert deviations.max() < 1.05 * deviations.min()
    assert len(clip.flatten(1).unique(dim=0)) == 4


def test_memory_format_does_not_matter():
    hr = photo(2)
    strided = hr.contiguous(memory_format=torch.channels_last)
    one, other = (EVERYTHING(x, torch.Generator().manual_seed(5)) for x in (hr, strided))
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    "degradation",
    [
        Degradation(2),
        Degradation(2, blur_sigma=2),
        Degradation(2, noise_sigma=30),
        Degradation(2, jpeg_quality=20),
        EVERYTHING,
    ],
)
def test_results_are_eight_bit_levels_in_range(degradation: Degradation):
    lr = degradation(photo())
    assert lr.shape == (1, 3, 24, 24)
    assert lr.min() >= 0
    assert lr.max() <= 1
    assert torch.allclose(lr * 255, (lr * 255).round(), atol=1e-4)


def test_blur_spreads_a_point_into_a_gaussian_of_its_sigma():
    hr = torch.zeros(1, 3, 41, 41)
    hr[..., 20, 20] = 1
    lr = Degradation(1, blur_sigma=1.0)(hr)[0, 0] * 255
    peak = 255 / (2 * math.pi)
    assert lr[20, 20].item() == pytest.approx(peak, abs=1)
    assert lr[20, 21].item() == pytest.approx(peak * math.exp(-0.5), abs=1)
    assert lr[21, 21].item() == pytest.approx(peak * math.exp(-1.0), abs=1)
    assert torch.equal(lr, lr.T)


def test_blur_is_the_gaussian_cut_at_three_sigma():
    point = torch.zeros(1, 1, 1, 41, dtype=torch.float64)
    point[..., 20] = 1
    window = torch.tensor([math.exp(-(x**2) / 18) for x in range(-9, 10)], dtype=torch.float64)
    expected = torch.zeros(41, dtype=torch.float64)
    expected[11:30] = window / window.sum()
    assert torch.allclose(gaussian_blur(point, [3.0]).flatten(), expected, atol=1e-12)


def test_blur_wider_than_the_picture_keeps_a_flat_picture_flat():
    hr = torch.full((1, 3, 8, 8), 0.4)
    assert torch.allclose(Degradation(2, blur_sigma=32)(hr), torch.tensor(0.4), atol=1e-6)


def test_noise_has_its_sigma_in_levels_and_follows_the_generator():
    hr = torch.full((2, 3, 128, 128), 0.5)
    noisy, seeded = Degradation(2, noise_sigma=8), torch.Generator().manual_seed(0)
    one, same, other = (noisy(hr, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert (one * 255).std().item() == pytest.approx(8, rel=0.05)
    many = Degradation(1, noise_sigma=20)(torch.full((3, 1500, 1500), 0.5), seeded)
    # rounding to levels adds the variance of a uniform step
    assert (many.double() * 255).std().item() == pytest.approx((400 + 1 / 12) ** 0.5, rel=1e-3)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one[0], one[1])


def test_lower_jpeg_quality_costs_more():
    hr = photo()
    clean = Degradation(2)(hr)
    costs = [
        (Degradation(2, jpeg_quality=quality)(hr) - clean).square().mean().item()
        for quality in (95, 50, 10)
    ]
    assert 0 < costs[0] < costs[1] < costs[2]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"scale": 0}, "scale"),
        ({"scale": 2, "blur_sigma": -1.0}, "blur_sigma"),
        ({"scale": 2, "blur_sigma": math.nan}, "blur_sigma"),
        ({"scale": 2, "noise_sigma": 256.0}, "noise_sigma"),
        ({"scale": 2, "jpeg_quality": 0}, "jpeg_quality"),
        ({"scale": 2, "jpeg_quality": 101}, "jpeg_quality"),
    ],
)
def test_values_out_of_range_are_refused_when_written(wrong: dict, said: str):
    with pytest.raises(ValueError, match=said):
        Degradation(**wrong)


def test_sides_that_the_scale_does_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"49x48.*crop_to_multiple"):
        Degradation(2)(torch.zeros(1, 3, 49, 48))


def test_each_picture_draws_its_own_quality_between_the_bounds():
    hr = photo().expand(24, -1, -1, -1)
    lr = Degradation(2, jpeg_quality=(10, 95))(hr, torch.Generator().manual_seed(3))
    of_one_quality = {
        quality: Degradation(2, jpeg_quality=quality)(hr[:1])[0] for quality in range(10, 96)
    }
    found = [
        [quality for quality, picture in of_one_quality.items() if torch.equal(picture, each)]
        for each in lr
    ]
    assert all(found)
    assert len({qualities[0] for qualities in found}) > 10


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_the_pictures_stays_clean(share: float):
    hr = photo().expand(40, -1, -1, -1)
    lr = Degradation(2, webp_quality=10, compressed=share)(hr, torch.Generator().manual_seed(1))
    clean = Degradation(2)(hr[:1])[0]
    untouched = sum(torch.equal(clean, each) for each in lr)
    assert untouched == {0.0: 40, 1.0: 0}.get(share, untouched)
    assert 8 < untouched < 32 or share != 0.5


def test_of_two_codecs_each_picture_gets_one():
    hr = photo().expand(30, -1, -1, -1)
    both = Degradation(2, jpeg_quality=20, webp_quality=20)(hr, torch.Generator().manual_seed(2))
    jpeg, webp = Degradation(2, jpeg_quality=20)(hr[0]), Degradation(2, webp_quality=20)(hr[0])
    kinds = [
        "jpeg" if torch.equal(each, jpeg) else "webp" if torch.equal(each, webp) else ""
        for each in both
    ]
    assert set(kinds) == {"jpeg", "webp"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"jpeg_quality": (95, 30)}, r"jpeg_quality must be 1 to 100.*lower one first.*\[95, 30\]"),
        ({"webp_quality": 101}, "webp_quality must be 0 to 100"),
        ({"noise_sigma": (0.0, math.inf)}, "noise_sigma"),
        ({"blur_sigma": (-1.0, 2.0)}, "blur_sigma"),
        ({"compressed": 1.2}, "compressed must be a share from 0 to 1, got 1.2"),
    ],
)
def test_bounds_that_cannot_be_meant_are_refused(wrong: dict, said: str):
    with pytest.raises(ValueError, match=said):
        Degradation(2, **wrong)
