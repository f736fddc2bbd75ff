"""Losses between pictures, by hand."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sr_module.losses import (
    PIXEL_LOSSES,
    PerceptualLoss,
    charbonnier,
    euclidean,
    l2,
    pixel_loss,
    ssim,
    total_variation,
    with_total_variation,
)
from sr_module.metrics import Protocol
from sr_module.metrics import ssim as ssim_metric
from tests.sr_module.test_vgg import normalised, random_vgg19, shallow_weights


def test_pixel_losses_equal_their_formulas():
    sr, hr = torch.tensor([[[[0.1, 0.5]]]]), torch.tensor([[[[0.4, 0.5]]]])
    values = {name: pixel_loss(name)(sr, hr).item() for name in PIXEL_LOSSES if name != "ssim"}
    smooth = (math.sqrt(0.09 + 1e-6) + 1e-3) / 2
    expected = {"l1": 0.15, "l2": 0.045, "charbonnier": smooth, "euclidean": 0.045}
    assert values == pytest.approx(expected)


def test_charbonnier_has_a_gradient_where_the_pictures_agree():
    sr = torch.zeros(1, requires_grad=True)
    charbonnier(sr, torch.zeros(1)).backward()
    assert sr.grad is not None
    assert sr.grad.item() == 0


def test_euclidean_sums_over_a_picture_and_averages_over_the_batch():
    hr = torch.zeros(2, 3, 1, 2)
    sr = torch.tensor([1.0, 2.0]).view(2, 1, 1, 1).expand_as(hr)
    # six values of 1 squared, six of 2 squared: (6 + 24) / 2 pictures / 2
    assert euclidean(sr, hr).item() == 7.5
    sr, hr = torch.rand(4, 3, 5, 7), torch.rand(4, 3, 5, 7)
    assert torch.allclose(euclidean(sr, hr), l2(sr, hr) * 3 * 5 * 7 / 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_ssim_loss_is_one_minus_the_metric(channels: int):
    hr = torch.nn.functional.interpolate(torch.rand(2, channels, 6, 7), scale_factor=5)
    hr = (hr * 255).round() / 255  # the metric rounds to levels
    sr = ((hr + 0.1 * torch.randn_like(hr)).clamp(0, 1) * 255).round() / 255
    score = ssim_metric(sr, hr, Protocol("all", channels="rgb", shave=0)).mean().item()
    assert 0.1 < score < 0.95
    assert ssim(sr, hr).item() == pytest.approx(1 - score, abs=1e-4)


def test_the_ssim_loss_is_0_for_equal_pictures_and_its_gradient_leads_there():
    hr = torch.rand(1, 3, 24, 24)
    assert ssim(hr, hr).item() == pytest.approx(0, abs=1e-6)
    sr = (hr + 0.1 * torch.randn_like(hr)).requires_grad_()
    before = ssim(sr, hr)
    (gradient,) = torch.autograd.grad(before, sr)
    assert ssim(sr - 10 * gradient, hr) < before - 0.01


def test_the_ssim_loss_is_the_same_under_mixed_precision():
    sr, hr = torch.rand(2, 1, 3, 24, 24)
    expected = ssim(sr, hr)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ssim(sr, hr), expected)


def test_the_ssim_loss_refuses_crops_smaller_than_its_window():
    with pytest.raises(ValueError, match="11 pixels or more a side, got 10x24"):
        ssim(torch.rand(1, 3, 10, 24), torch.rand(1, 3, 10, 24))


def test_total_variation_sums_the_steps_between_neighbours():
    picture = torch.tensor([[[[0.0, 1.0, 0.5], [0.0, 0.0, 0.0]]]])
    # right: 1 + 0.5 and 0; down: 0 + 1 + 0.5
    assert total_variation(picture).item() == 3
    assert total_variation(torch.cat([picture, torch.ones_like(picture)])).item() == 1.5
    assert total_variation(picture.expand(1, 3, 2, 3)).item() == 9


def test_total_variation_is_added_by_weight_and_not_computed_without():
    sr, hr = torch.rand(2, 2, 3, 8, 8)
    loss = with_total_variation(l2, 2e-3)(sr, hr)
    assert torch.allclose(loss, l2(sr, hr) + 2e-3 * total_variation(sr))
    assert with_total_variation(l2, 0) is l2
    with pytest.raises(ValueError, match="tv_weight -1: 0"):
        with_total_variation(l2, -1)


def test_an_unknown_name_is_answered_with_the_nearest_one():
    with pytest.raises(ValueError, match="unknown pixel loss 'l11'; did you mean 'l1'"):
        pixel_loss("l11")


def perceptual(folder: Path, **settings: object) -> PerceptualLoss:
    weights = shallow_weights(folder / "vgg.safetensors")
    return PerceptualLoss({"conv1_2": 1.0}, before_activation=True, weights=weights, **settings)


def test_perceptual_loss_is_zero_for_equal_pictures_and_grows_with_the_difference(tmp_path: Path):
    loss, hr = perceptual(tmp_path), torch.rand(1, 3, 16, 16)
    near, far = hr + 0.01, hr + 0.1
    assert loss(hr, hr).item() == 0
    assert 0 < loss(near, hr).item() < loss(far, hr).item()


def test_perceptual_gradient_reaches_the_super_resolved_picture_only(tmp_path: Path):
    loss = perceptual(tmp_path)
    sr, hr = (torch.rand(1, 3, 16, 16, requires_grad=True) for _ in range(2))
    loss(sr, hr).backward()
    assert sr.grad is not None
    assert sr.grad.abs().sum() > 0
    assert hr.grad is None
    assert all(p.grad is None for p in loss.parameters())


def test_feature_scale_acts_on_features_before_the_criterion(tmp_path: Path):
    sr, hr = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    plain = perceptual(tmp_path, criterion="l2")(sr, hr)
    scaled = perceptual(tmp_path, criterion="l2", feature_scale=1 / 12.75)(sr, hr)
    assert torch.allclose(scaled, plain / 12.75**2)


def test_layers_are_weighed(tmp_path: Path):
    weights = shallow_weights(tmp_path / "vgg.safetensors")
    sr, hr = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)

    def value(layers: dict[str, float]) -> Tensor:
        return PerceptualLoss(layers, before_activation=False, weights=weights)(sr, hr)

    expected = 0.5 * value({"conv1_1": 1}) + 2 * value({"conv2_1": 1})
    assert torch.allclose(value({"conv1_1": 0.5, "conv2_1": 2}), expected)


def test_srgans_and_real_esrgans_losses_are_those_of_torchvisions_layers(tmp_path: Path):
    """Random weights; a ReLU in place would spoil what came before it, so parts are run anew."""
    reference = random_vgg19(tmp_path / "vgg.safetensors")
    sr, hr = torch.rand(2, 1, 3, 32, 32)

    def value(layers: dict[str, float], **settings: object) -> Tensor:
        weights = tmp_path / "vgg.safetensors"
        return PerceptualLoss(layers, weights=weights, **settings)(sr, hr)

    def features(end: int) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return tuple(reference[:end](normalised(picture)) for picture in (sr, hr))

    for layer, end in {"conv2_2": 9, "conv5_4": 36}.items():  # VGG22 and VGG54, after their ReLU
        found = value(
            {layer: 1.0}, before_activation=False, criterion="l2", feature_scale=1 / 12.75
        )
        a, b = features(end)
        torch.testing.assert_close(found, (a - b).square().mean() / 12.75**2)
    weights = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}
    ends = (3, 8, 17, 26, 35)
    terms = [
        weight * (features(end)[0] - features(end)[1]).abs().mean()
        for weight, end in zip(weights.values(), ends, strict=True)
    ]
    assert min(terms) > 0
    torch.testing.assert_close(value(weights, before_activation=True), sum(terms))
