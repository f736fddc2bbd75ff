"""Adversarial losses: what a discriminator and a generator make of the discriminator's logits."""

from typing import Protocol

import torch
from torch import Tensor, distributed
from torch.nn import functional as F

from sr_module.choice import unknown

__all__ = [
    "GAN_LOSSES",
    "GanLoss",
    "HingeGan",
    "LeastSquaresGan",
    "RelativisticAverageGan",
    "VanillaGan",
    "gan_loss",
]


class GanLoss(Protocol):
    """What an adversarial loss offers; logits have any shape with the batch first."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Loss of the discriminator, from its logits of true and of super-resolved pictures."""

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Loss of the generator, from the same two."""


class VanillaGan:
    """The original loss, non-saturating for the generator.

    Source: Goodfellow et al. 2014, arXiv:1406.2661, section 3, as used by Ledig et al. 2017.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """``-log D(real) - log(1 - D(fake))``, each averaged."""
        return _says_real(real) + _says_fake(fake)

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """``-log D(fake)``; ``real`` is not looked at."""
        del real
        return _says_real(fake)


class RelativisticAverageGan:
    """Whether a picture looks more real than the average of the other kind.

    Source: Wang et al. 2018, arXiv:1809.00219, section 3.2, equations 1 and 2, halved as in the
    released training. The averages run over the global batch when several processes train together;
    their batches are taken to be of equal size.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Real above the mean fake, fake below the mean real."""
        real, fake = real.float(), fake.float()
        return (_says_real(real - _global_mean(fake)) + _says_fake(fake - _global_mean(real))) / 2

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """The discriminator's loss with the roles exchanged."""
        return self.discriminator(fake, real)


class LeastSquaresGan:
    """Logits are drawn to 1 for true and 0 for made pictures; far ones keep a gradient.

    Source: Mao et al. 2017, arXiv:1611.04076, equation 9.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """``(D(real) - 1)**2 / 2 + D(fake)**2 / 2``, each averaged."""
        return (_distance(real, 1) + _distance(fake, 0)) / 2

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """``(D(fake) - 1)**2 / 2``; ``real`` is not looked at."""
        del real
        return _distance(fake, 1) / 2


class HingeGan:
    """The discriminator stops at a margin of 1; the generator moves without end.

    Source: Lim and Ye 2017, arXiv:1705.02894, section 3.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """``max(0, 1 - D(real)) + max(0, 1 + D(fake))``, each averaged."""
        return F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean()

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """``-D(fake)``; ``real`` is not looked at."""
        del real
        return -fake.float().mean()


def _distance(logits: Tensor, target: float) -> Tensor:
    return (logits.float() - target).square().mean()


def _says_real(logits: Tensor) -> Tensor:
    return F.softplus(-logits.float()).mean()  # binary cross-entropy with target 1


def _says_fake(logits: Tensor) -> Tensor:
    return F.softplus(logits.float()).mean()  # binary cross-entropy with target 0


class _SumOverProcesses(torch.autograd.Function):
    """All-reduce whose backward is one too: the sum depends on the logits of every process."""

    @staticmethod
    def forward(ctx: object, value: Tensor) -> Tensor:
        del ctx
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        del ctx
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


def _global_mean(logits: Tensor) -> Tensor:
    """Mean over the batches of all processes; its gradient reaches the logits of all of them."""
    mean = logits.float().mean()
    if not (distributed.is_available() and distributed.is_initialized()):
        return mean
    total: Tensor = _SumOverProcesses.apply(mean)
    return total / distributed.get_world_size()


GAN_LOSSES: dict[str, type[GanLoss]] = {
    "vanilla": VanillaGan,
    "ragan": RelativisticAverageGan,
    "lsgan": LeastSquaresGan,
    "hinge": HingeGan,
}


def gan_loss(name: str) -> GanLoss:
    """The adversarial loss called ``name``; an unknown name is a ``ValueError``."""
    if name not in GAN_LOSSES:
        raise unknown("adversarial loss", name, GAN_LOSSES)
    return GAN_LOSSES[name]()
