"""RAISR: what is summed up, solved for and blended, against plain loops and known filters."""

import math

import pytest
import torch
from torch.nn import functional as F

from sr_module.archs import build
from sr_module.archs.luma import enlarge, luma
from sr_module.archs.raisr import _by_bucket, _hash, _unchanged
from sr_module.metrics import matlab_y, psnr
from sr_module.resize import imresize


def photo(batch: int = 2, side: int = 48) -> torch.Tensor:
    """Edges of every direction: blobs cut at a level."""
    coarse = torch.rand(batch, 3, 7, 7, generator=torch.Generator().manual_seed(2))
    smooth = F.interpolate(coarse, size=(side, side), mode="bicubic")
    return ((smooth - 0.5) * 6).sigmoid()


def symmetric(picture: torch.Tensor) -> list[torch.Tensor]:
    turned = [torch.rot90(picture, turns, (-2, -1)) for turns in range(4)]
    return turned + [each.flip(-1) for each in turned]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_solved_filters_beat_the_cheap_enlargement_on_other_pictures(scale: int):
    hr = photo(12, 48)
    lr = imresize(hr, 1 / scale)
    net = build("raisr", scale, patch=5)
    net.accumulate(lr[:8], hr[:8])
    said = net.solve()
    assert said["patches"] == 8 * (48 // scale) ** 2
    protocol = matlab_y(scale)
    gain = psnr(net(lr[8:]).clamp(0, 1), hr[8:], protocol) - psnr(
        enlarge(lr[8:], scale).clamp(0, 1), hr[8:], protocol
    )
    assert gain.min() > 0.2


@pytest.mark.parametrize("scale", [2, 3])
def test_the_eight_symmetries_are_those_of_pictures_flipped_and_turned(scale: int):
    hr = photo(2, 12 * scale)
    lr = imresize(hr, 1 / scale)
    tied, shown = (build("raisr", scale, patch=3, blending=False) for _ in range(2))
    tied.accumulate(lr, hr)
    for small, large in zip(symmetric(lr), symmetric(hr), strict=True):
        shown.accumulate(small, large)
    ours, plain = tied._symmetric(), [each / 8 for each in (shown.gram, shown.moment)]
    # a gradient on the very edge of two angles may fall to either side when turned
    for mine, theirs in zip(ours, plain, strict=False):
        different = ((mine - theirs).abs().flatten(1).amax(1) > 1e-6).double().mean()
        assert different < 0.1
    tied.solve()
    turned = torch.cat([torch.rot90(tied(lr), 1, (-2, -1)), tied(torch.rot90(lr, 1, (-2, -1)))])
    assert (turned[:2] - turned[2:]).abs().mean() < 1e-3


def test_sums_of_parts_are_the_sums_of_the_whole():
    hr = photo(4)
    lr = imresize(hr, 0.25)
    whole, parts = build("raisr", 4, patch=3), build("raisr", 4, patch=3)
    whole.accumulate(lr, hr)
    for one in range(4):
        parts.accumulate(lr[one : one + 1], hr[one : one + 1])
    for name in whole.sums:
        assert torch.allclose(getattr(whole, name), getattr(parts, name), atol=1e-12)


def test_a_known_filter_is_found_again():
    scale, source = 2, torch.Generator().manual_seed(1)
    lr = photo(12, 40)
    net = build("raisr", scale, patch=3, blending=False)
    truth = torch.randn(9, 4, generator=source) * 0.1
    truth = sum(
        truth.view(3, 3, 2, 2).rot90(k, (0, 1)).rot90(k, (2, 3)) for k in range(4)
    )  # the same for every direction
    truth = ((truth + truth.flip(1, 3)) / 8).reshape(9, 4)
    net.filters.copy_(truth.expand(len(net.filters), -1, -1))
    made = net(lr)
    again = build("raisr", scale, patch=3, blending=False)
    again.accumulate(lr, made)
    again.solve()
    assert (again(lr) - made).abs().mean() < 0.02 * (made - enlarge(lr, scale)).abs().mean()


def test_angles_strengths_and_coherences_tell_edges_apart():
    rows = torch.arange(24.0)
    buckets = []
    for degrees in range(0, 180, 15):
        angle = math.radians(degrees + 4)
        ramp = rows * math.cos(angle) + rows.unsqueeze(1) * math.sin(angle)
        bucket = _hash((ramp / 40)[None, None]).view(24, 24)[12, 12].item()
        buckets.append(bucket // 9)
        assert bucket % 3 == 2  # one direction: coherent
    assert buckets == [2 * place for place in range(12)]
    flat = _hash(torch.full((1, 1, 9, 9), 0.5))
    assert (flat % 9 == 0).all()  # weak and without direction


def test_flat_areas_stay_as_they_are():
    net = build("raisr", 4)
    net.filters.normal_()
    grey = torch.full((1, 3, 9, 9), 0.37)
    assert torch.allclose(net(grey), torch.tensor(0.37), atol=1e-5)


def test_where_the_census_changes_the_cheap_enlargement_remains():
    cheap = torch.rand(1, 1, 6, 7)
    made = cheap.clone()
    made[0, 0, 3, 3] = 2.0  # now larger than all its neighbours
    share = _unchanged(cheap, made)
    smaller = sum(
        bool(cheap[0, 0, 3 + y, 3 + x] > cheap[0, 0, 3, 3])
        for y in (-1, 0, 1)
        for x in (-1, 0, 1)
        if (y, x) != (0, 0)
    )
    assert share[0, 0, 3, 3].item() == pytest.approx(1 - smaller / 8)
    assert share[0, 0, 0, 0] == share[0, 0, 5, 6] == 1
    assert torch.equal(_unchanged(cheap, cheap), torch.ones_like(cheap))


def test_sorting_by_bucket_equals_looking_every_filter_up():
    net = build("raisr", 3, patch=5)
    net.filters.normal_()
    y = luma(photo(2, 21))
    looked_up = torch.einsum("nt,nts->ns", net._differences(y), net.filters[_hash(y)])
    assert torch.allclose(net._filtered(y), looked_up, atol=1e-5)
    order, counts = _by_bucket(_hash(y))
    assert sum(counts) == len(order) == 2 * 21 * 21


def test_buckets_with_too_few_patches_take_the_sums_of_their_strength_or_nothing():
    hr = photo(1, 48)
    net = build("raisr", 4, patch=5)
    net.accumulate(imresize(hr, 0.25), hr)
    said = net.solve()
    assert said["pooled"] > 0.3
    assert net.filters.isfinite().all()
    flat = build("raisr", 4, patch=5)
    grey = torch.full((1, 3, 32, 32), 0.5)
    flat.accumulate(grey[..., :8, :8], grey)
    said = flat.solve()
    assert said["empty"] > 0.5
    assert flat.filters.isfinite().all()
    assert not flat.filters[-1].any()


def test_solving_without_pictures_is_refused():
    with pytest.raises(ValueError, match="nothing to solve; accumulate pictures first"):
        build("raisr", 4).solve()


def test_an_even_patch_is_refused():
    with pytest.raises(ValueError, match="patch must be odd and 3 or more, got 4"):
        build("raisr", 4, patch=4)
