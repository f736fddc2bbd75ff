"""DISTS: likeness of structure and of texture, which forgives a texture that is only resampled.

Ding et al. 2020, "Image Quality Assessment: Unifying Structure and Texture Similarity",
arXiv:2004.07728: the picture itself and five stages of VGG16, whose max-pooling is replaced by
Hanning-weighted L2 pooling; per channel the means are compared (texture) and the covariance
(structure), weighted by factors fitted to human judgements. The authors' test scripts first reduce
the shorter side to 256 pixels; nothing is resized here.
"""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_module.backbones import Normalise, backbone_layers, read_tensors
from sr_module.lpips import check_pair

_STAGES = ((0, 4), (5, 9), (10, 16), (17, 23), (24, 30))  # of torchvision's vgg16().features
_CHANNELS = [3, 64, 128, 256, 512, 512]
_STABLE = 1e-6
_SMALLEST = 16  # pixels a side, halved four times


class DISTS(nn.Module):
    """Deep image structure and texture similarity: 0 for identical pictures, lower is better.

    Differentiable, frozen, and absent from state dicts.

    Args:
        weights: file of the fitted factors, ``alpha`` and ``beta``; None takes the one in the
            authors' package (MIT, 12 kB): ``pip install "srdet[dists]"``.
        backbone_weights: file of VGG16's features under torchvision's names, ``.safetensors`` or
            ``.pth``; None takes torchvision's own, downloaded once (528 MB).

    Raises:
        FileNotFoundError: a file that is not there.
        ValueError: a file that does not hold the network or the factors.
    """

    alpha: Tensor
    beta: Tensor

    def __init__(
        self, weights: str | Path | None = None, *, backbone_weights: str | Path | None = None
    ) -> None:
        super().__init__()
        alpha, beta = _read_factors(_packaged_factors() if weights is None else Path(weights))
        self.register_buffer("alpha", alpha, persistent=False)
        self.register_buffer("beta", beta, persistent=False)
        layers = backbone_layers("vgg", backbone_weights)
        self.stages = nn.ModuleList(layers[a:b] for a, b in _STAGES)
        self.normalise = Normalise()

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Dissimilarity of each pair.

        Args:
            sr: ``(B, 3, H, W)`` in [0, 1]; neither rounded nor clamped here.
            hr: the true pictures, of the same shape.

        Returns:
            ``(B,)``.

        Raises:
            ValueError: unequal or unfit shapes.
        """
        check_pair(sr, hr, smallest=_SMALLEST)
        similarity = sr.new_zeros(len(sr))
        features = self._features(torch.cat([sr, hr]))
        alphas, betas = (torch.split(factors, _CHANNELS) for factors in (self.alpha, self.beta))
        for x, alpha, beta in zip(features, alphas, betas, strict=True):
            texture, structure = _compare(*x.chunk(2))
            similarity = similarity + texture @ alpha + structure @ beta
        return 1 - similarity

    def _features(self, image: Tensor) -> list[Tensor]:
        features = [image]
        x = self.normalise(image)
        for i, stage in enumerate(self.stages):
            x = stage(_l2_pool(x) if i else x)
            features.append(x)
        return features


def _compare(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Likeness of the means and of the deviations, each ``(B, C)``; equations 5 and 6."""
    mean_a, mean_b = a.mean((2, 3), keepdim=True), b.mean((2, 3), keepdim=True)
    texture = (2 * mean_a * mean_b + _STABLE) / (mean_a.square() + mean_b.square() + _STABLE)
    a, b = a - mean_a, b - mean_b
    spread = (a.square() + b.square()).mean((2, 3))
    structure = (2 * (a * b).mean((2, 3)) + _STABLE) / (spread + _STABLE)
    return texture.flatten(1), structure


def _l2_pool(x: Tensor) -> Tensor:
    """Root of the Hanning-weighted mean square, halving both sides without aliasing."""
    channels = x.shape[1]
    taps = x.new_tensor([0.25, 0.5, 0.25])
    window = torch.outer(taps, taps).expand(channels, 1, 3, 3)
    return (F.conv2d(x.square(), window, stride=2, padding=1, groups=channels) + 1e-12).sqrt()


def _packaged_factors() -> Path:
    spec = find_spec("DISTS_pytorch")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "the fitted factors of DISTS come with the authors' package, which is not installed: "
            'pip install "srdet[dists]"'
        )
    return Path(spec.origin).parent / "weights.pt"


def _read_factors(path: Path) -> tuple[Tensor, Tensor]:
    """``alpha`` and ``beta``, each ``(C,)``, together summing to one."""
    tensors = read_tensors(path, "factors of DISTS")
    count = sum(_CHANNELS)
    if any(name not in tensors or tensors[name].numel() != count for name in ("alpha", "beta")):
        shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        raise ValueError(f"{path}: DISTS needs alpha and beta of {count} values, got {shapes}")
    alpha, beta = tensors["alpha"].flatten().float(), tensors["beta"].flatten().float()
    total = alpha.sum() + beta.sum()
    return alpha / total, beta / total
