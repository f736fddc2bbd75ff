"""Losses between pictures: pixel by pixel, by structure, and in the features of VGG19.

Every loss takes pictures ``(B, C, H, W)`` and returns a scalar. ``gan_losses`` has those of
adversarial training.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_module.choice import unknown
from sr_module.metrics import structural_similarity
from sr_module.net import Criterion
from sr_module.vgg import VGGFeatures

__all__ = [
    "PIXEL_LOSSES",
    "PerceptualLoss",
    "charbonnier",
    "euclidean",
    "l1",
    "l2",
    "pixel_loss",
    "ssim",
    "total_variation",
    "with_total_variation",
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


def euclidean(sr: Tensor, hr: Tensor) -> Tensor:
    """Half the squared difference, summed over a picture and averaged over the batch.

    Caffe's loss of this name (Jia et al. 2014, arXiv:1408.5093), which the learning rates of SRCNN,
    FSRCNN and VDSR are meant for; it is ``l2`` times half the number of values in a picture.
    """
    return (sr.float() - hr.float()).square().sum() / (2 * hr.shape[0])


def ssim(sr: Tensor, hr: Tensor) -> Tensor:
    """One minus the mean structural similarity of pictures in [0, 1]; 0 for equal ones, at most 2.

    Source: Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural
    Similarity", with the window and constants of ``metrics.ssim``, on values that are not rounded;
    as a loss, Zhao et al. 2017, arXiv:1511.08861, section III-B.

    Raises:
        ValueError: pictures of fewer than 11 pixels a side.
    """
    if min(sr.shape[-2:]) < 11:
        side = "x".join(map(str, sr.shape[-2:]))
        raise ValueError(f"the ssim loss needs crops of 11 pixels or more a side, got {side}")
    # Variances are differences of nearly equal numbers, which half precision would wipe out.
    with torch.autocast(sr.device.type, enabled=False):
        return 1 - structural_similarity(sr.float(), hr.float(), peak=1.0).mean()


PIXEL_LOSSES: dict[str, Criterion] = {
    "l1": l1,
    "l2": l2,
    "charbonnier": charbonnier,
    "euclidean": euclidean,
    "ssim": ssim,
}


def pixel_loss(name: str) -> Criterion:
    """The loss between pictures called ``name``; an unknown name is a ``ValueError``."""
    if name not in PIXEL_LOSSES:
        raise unknown("pixel loss", name, PIXEL_LOSSES)
    return PIXEL_LOSSES[name]


def total_variation(sr: Tensor) -> Tensor:
    """Absolute differences of neighbours, summed over a picture and averaged over the batch.

    The anisotropic form of Rudin, Osher and Fatemi 1992, "Nonlinear Total Variation Based Noise
    Removal Algorithms". Ledig et al. 2017, arXiv:1609.04802, add it to SRResNet-VGG22 with a weight
    of 2e-8, a size that fits a sum.
    """
    sr = sr.float()
    rows, columns = sr.diff(dim=-2), sr.diff(dim=-1)
    return (rows.abs().sum() + columns.abs().sum()) / sr.shape[0]


def with_total_variation(criterion: Criterion, weight: float) -> Criterion:
    """``criterion`` plus ``weight`` times the total variation of what it judges.

    Raises:
        ValueError: a negative weight; 0 gives ``criterion`` itself.
    """
    if weight < 0:
        raise ValueError(f"tv_weight {weight}: 0 (none) or more; SRGAN's is 2e-8")
    if weight == 0:
        return criterion
    return lambda sr, hr: criterion(sr, hr) + weight * total_variation(sr)


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
