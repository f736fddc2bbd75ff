"""Losses by hand; the relativistic mean under two real processes."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from sr_module.losses import (
    PIXEL_LOSSES,
    PerceptualLoss,
    RelativisticAverageGan,
    VanillaGan,
    charbonnier,
    gan_loss,
    pixel_loss,
)
from tests.sr_module.test_vgg import shallow_weights

LN2 = math.log(2)


def says_real(logit: float) -> float:
    return math.log1p(math.exp(-logit))


def says_fake(logit: float) -> float:
    return math.log1p(math.exp(logit))


def test_pixel_losses_equal_their_formulas():
    sr, hr = torch.tensor([[[[0.1, 0.5]]]]), torch.tensor([[[[0.4, 0.5]]]])
    values = {name: pixel_loss(name)(sr, hr).item() for name in PIXEL_LOSSES}
    smooth = (math.sqrt(0.09 + 1e-6) + 1e-3) / 2
    assert values == pytest.approx({"l1": 0.15, "l2": 0.045, "charbonnier": smooth})


def test_charbonnier_has_a_gradient_where_the_pictures_agree():
    sr = torch.zeros(1, requires_grad=True)
    charbonnier(sr, torch.zeros(1)).backward()
    assert sr.grad is not None
    assert sr.grad.item() == 0


def test_an_unknown_name_is_answered_with_the_nearest_one():
    with pytest.raises(ValueError, match="unknown pixel loss 'l11'; did you mean 'l1'"):
        pixel_loss("l11")
    with pytest.raises(ValueError, match=r"did you mean 'ragan'.*vanilla, ragan"):
        gan_loss("rgan")


@pytest.mark.parametrize("name", ["vanilla", "ragan"])
def test_an_undecided_discriminator_costs_coin_flips(name: str):
    loss, zero = gan_loss(name), torch.zeros(4, 1)
    flips = {"vanilla": 2, "ragan": 1}[name]
    assert loss.discriminator(zero, zero).item() == pytest.approx(flips * LN2)
    assert loss.generator(zero, zero).item() == pytest.approx(LN2)


def test_vanilla_values_by_hand():
    real, fake = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [-2.0]])
    discriminator = (says_real(1) + says_real(3)) / 2 + (says_fake(0) + says_fake(-2)) / 2
    assert VanillaGan().discriminator(real, fake).item() == pytest.approx(discriminator)
    generator = (says_real(0) + says_real(-2)) / 2
    assert VanillaGan().generator(real, fake).item() == pytest.approx(generator)


def test_relativistic_values_by_hand():
    real, fake = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [-2.0]])  # means 2 and -1
    says = (says_real(2) + says_real(4)) / 2, (says_fake(-2) + says_fake(-4)) / 2
    loss = RelativisticAverageGan()
    assert loss.discriminator(real, fake).item() == pytest.approx(sum(says) / 2)
    opposite = (says_fake(2) + says_fake(4)) / 2, (says_real(-2) + says_real(-4)) / 2
    assert loss.generator(real, fake).item() == pytest.approx(sum(opposite) / 2)


@pytest.mark.parametrize("name", ["vanilla", "ragan"])
def test_each_side_gains_by_moving_its_own_way(name: str):
    loss = gan_loss(name)
    real, fake = torch.randn(8, 1, requires_grad=True), torch.randn(8, 1, requires_grad=True)
    of_real, of_fake = torch.autograd.grad(loss.discriminator(real, fake), (real, fake))
    assert (of_real < 0).all()  # a lower loss lies at higher logits of real pictures
    assert (of_fake > 0).all()
    (of_fake,) = torch.autograd.grad(loss.generator(real, fake), fake)
    assert (of_fake < 0).all()


def _train_one_step(rank: int, store: str, results: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    judge = DistributedDataParallel(_judge())
    real, fake = _pictures()
    half = slice(2 * rank, 2 * rank + 2)
    loss = RelativisticAverageGan().discriminator(judge(real[half]), judge(fake[half]))
    loss.backward()
    torch.save((loss.detach(), judge.module.weight.grad), f"{results}/{rank}.pt")
    distributed.destroy_process_group()


def _judge() -> nn.Linear:
    judge = nn.Linear(3, 1)
    nn.init.constant_(judge.weight, 0.5)
    nn.init.zeros_(judge.bias)
    return judge


def _pictures() -> tuple[Tensor, Tensor]:
    pictures = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(3))
    return 2 * pictures[0], pictures[1] - 1


def test_the_relativistic_mean_of_two_processes_is_that_of_the_whole_batch(tmp_path: Path):
    multiprocessing.spawn(_train_one_step, (str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    judge = _judge()
    real, fake = _pictures()
    expected = RelativisticAverageGan().discriminator(judge(real), judge(fake))
    expected.backward()
    losses, gradients = zip(*(torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)), strict=True)
    assert torch.allclose(sum(losses) / 2, expected)
    assert torch.allclose(gradients[0], judge.weight.grad)
    assert torch.allclose(gradients[1], judge.weight.grad)


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
