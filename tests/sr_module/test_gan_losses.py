"""Adversarial losses by hand; the relativistic mean under two real processes."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from sr_module.gan_losses import (
    GAN_LOSSES,
    HingeGan,
    LeastSquaresGan,
    RelativisticAverageGan,
    VanillaGan,
    gan_loss,
)

LN2 = math.log(2)


def says_real(logit: float) -> float:
    return math.log1p(math.exp(-logit))


def says_fake(logit: float) -> float:
    return math.log1p(math.exp(logit))


def test_an_unknown_name_is_answered_with_the_nearest_one():
    with pytest.raises(ValueError, match=r"did you mean 'ragan'.*vanilla, ragan, lsgan, hinge"):
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


def test_a_relativistic_gradient_flows_through_the_means_too():
    real, fake = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [-2.0]], requires_grad=True)
    RelativisticAverageGan().discriminator(real, fake).backward()
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    by_the_mean = (sigmoid(-2) + sigmoid(-4)) / 2  # real ones above the mean fake one
    expected = [(by_the_mean + sigmoid(own)) / 4 for own in (-2, -4)]
    assert fake.grad.flatten().tolist() == pytest.approx(expected)


def test_least_squares_values_by_hand():
    real, fake = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [-2.0]])
    # mean of (real - 1)**2: 0 and 4; of fake**2: 0 and 4; of (fake - 1)**2: 1 and 9
    assert LeastSquaresGan().discriminator(real, fake).item() == pytest.approx(2 / 2 + 2 / 2)
    assert LeastSquaresGan().generator(real, fake).item() == pytest.approx(5 / 2)


def test_hinge_values_by_hand():
    real, fake = torch.tensor([[0.5], [3.0]]), torch.tensor([[0.0], [-2.0]])
    # 1 - real: 0.5 and below 0; 1 + fake: 1 and below 0
    assert HingeGan().discriminator(real, fake).item() == pytest.approx(0.5 / 2 + 1 / 2)
    assert HingeGan().generator(real, fake).item() == pytest.approx(1)


def test_a_hinge_discriminator_past_its_margin_rests():
    real, fake = (torch.tensor([[v]], requires_grad=True) for v in (1.5, -1.5))
    HingeGan().discriminator(real, fake).backward()
    assert real.grad.item() == fake.grad.item() == 0


@pytest.mark.parametrize("name", GAN_LOSSES)
def test_a_logit_per_pixel_weighs_like_a_logit_per_picture(name: str):
    loss = gan_loss(name)
    real, fake = torch.randn(2, 4, 1)
    for side in (loss.discriminator, loss.generator):
        expected = side(real, fake)
        assert expected.shape == ()
        assert torch.allclose(side(real.view(1, 1, 2, 2), fake.view(1, 1, 2, 2)), expected)
        spread = (x.view(4, 1, 1, 1).expand(4, 1, 3, 5) for x in (real, fake))
        assert torch.allclose(side(*spread), expected)


@pytest.mark.parametrize("name", GAN_LOSSES)
def test_half_precision_logits_are_judged_in_full(name: str):
    loss = gan_loss(name)
    real, fake = torch.randn(2, 4, 1).bfloat16()
    for side in (loss.discriminator, loss.generator):
        assert torch.equal(side(real, fake), side(real.float(), fake.float()))


@pytest.mark.parametrize("name", GAN_LOSSES)
@pytest.mark.parametrize("shape", [(8, 1), (2, 1, 2, 3)])
def test_each_side_gains_by_moving_its_own_way(name: str, shape: tuple[int, ...]):
    loss = gan_loss(name)
    # within 0 and 1, where least squares has not yet arrived and the hinge has not yet let go
    real, fake = ((0.1 + 0.8 * torch.rand(shape)).requires_grad_() for _ in range(2))
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
