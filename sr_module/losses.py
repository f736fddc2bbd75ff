"""Losses: pixel, perceptual (VGG19 features) and adversarial.

Every pixel loss and ``PerceptualLoss`` takes pictures ``(B, C, H, W)`` and returns a scalar; the
adversarial losses take a discriminator's logits.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from sr_module.choice import unknown
from sr_module.net import Criterion
from sr_module.vgg import VGGFeatures

__all__ = [
    "GAN_LOSSES",
    "PIXEL_LOSSES",
    "GanLoss",
    "PerceptualLoss",
    "RelativisticAverageGan",
    "VanillaGan",
    "charbonnier",
    "gan_loss",
    "l1",
    "l2",
    "pixel_loss",
]


def l1(sr: Tensor, hr: Tensor) -> Tensor:
    """Mean absolute difference."""
    return F.l1_loss(sr, hr)


def l2(sr: Tensor, hr: Tensor) -> Tensor:
    """Mean squared difference."""
    return F.mse_loss(sr, hr)


def charbonnier(sr: Tensor, hr: Tensor) -> Tensor:
    """A smooth L1: the mean of ``sqrt(difference**2 + 1e-3**2)``.

    Source: Lai et al. 2017, arXiv:1704.03915, section 3.2.
    """
    return torch.sqrt((sr - hr).square() + 1e-6).mean()


PIXEL_LOSSES: dict[str, Criterion] = {"l1": l1, "l2": l2, "charbonnier": charbonnier}


def pixel_loss(name: str) -> Criterion:
    """The pixel loss called ``name``; an unknown name is a ``ValueError``."""
    if name not in PIXEL_LOSSES:
        raise unknown("pixel loss", name, PIXEL_LOSSES)
    return PIXEL_LOSSES[name]


class PerceptualLoss(nn.Module):
    """Distance of two pictures in the features of VGG19.

    Sources: Ledig et al. 2017, arXiv:1609.04802, section 2.2.1 (``{"conv5_4": 1}`` after its ReLU,
    ``l2``, features divided by 12.75); Wang et al. 2018, arXiv:1809.00219, section 3.3 (before the
    ReLU, ``l1``).

    Args:
        layers: weight of each VGG19 convolution, such as ``{"conv5_4": 1.0}``.
        before_activation: compare before the ReLU of these layers instead of after it.
        weights: see ``VGGFeatures``.
        criterion: name of the pixel loss that compares features.
        feature_scale: factor on the features before they are compared.
    """

    def __init__(
        self,
        layers: Mapping[str, float],
        *,
        before_activation: bool,
        weights: str | Path | None,
        criterion: str = "l1",
        feature_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.layers = dict(layers)
        self.criterion = pixel_loss(criterion)
        self.feature_scale = feature_scale
        self.features = VGGFeatures(
            list(layers), before_activation=before_activation, weights=weights
        )

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Weighted sum over the layers; gradients flow to ``sr`` only."""
        with torch.no_grad():
            target = self.features(hr)
        found = self.features(sr)
        terms = [
            weight
            * self.criterion(found[name] * self.feature_scale, target[name] * self.feature_scale)
            for name, weight in self.layers.items()
        ]
        return torch.stack(terms).sum()


class GanLoss(Protocol):
    """What an adversarial loss offers; logits have any shape with the batch first."""

    needs_real: bool
    """Whether ``generator`` looks at ``real``; if not, the caller need not compute it."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Loss of the discriminator, from its logits of true and of super-resolved pictures."""

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Loss of the generator, from the same two."""


class VanillaGan:
    """The original loss, non-saturating for the generator.

    Source: Goodfellow et al. 2014, arXiv:1406.2661, section 3, as used by Ledig et al. 2017.
    """

    needs_real = False

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

    needs_real = True

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Real above the mean fake, fake below the mean real."""
        return (_says_real(real - _global_mean(fake)) + _says_fake(fake - _global_mean(real))) / 2

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """The discriminator's loss with the roles exchanged."""
        return self.discriminator(fake, real)


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


GAN_LOSSES: dict[str, type[GanLoss]] = {"vanilla": VanillaGan, "ragan": RelativisticAverageGan}


def gan_loss(name: str) -> GanLoss:
    """The adversarial loss called ``name``; an unknown name is a ``ValueError``."""
    if name not in GAN_LOSSES:
        raise unknown("adversarial loss", name, GAN_LOSSES)
    return GAN_LOSSES[name]()
