"""NIQE: how far a picture's statistics are from those of undistorted photographs; no truth needed.

Mittal, Soundararajan and Bovik 2013, "Making a 'Completely Blind' Image Quality Analyzer", IEEE
Signal Processing Letters 20(3), as the authors' MATLAB release computes it with their own model;
MATLAB's built-in ``niqe`` has another model and gives other numbers. Luma of BT.601 is measured,
as in the perceptual index of PIRM 2018, where the release itself would take MATLAB's ``rgb2gray``.
"""

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sr_module.metrics import luma
from sr_module.resize import imresize

_BLOCK = 96
_WINDOW = 7
_SIGMA = 7 / 6
_NOISE = 1e-9  # levels: far above the rounding errors of float64, far below any true deviation
_FEATURES = 36
_SHIFTS = ((0, 1), (1, 0), (1, 1), (-1, 1))  # neighbours: right, below and on both diagonals

WHENCE = "BasicSR's package has them in basicsr/metrics/niqe_pris_params.npz: pip download basicsr"
"""Where the model of pristine pictures is to be had."""


class NIQE:
    """Natural image quality evaluator: 0 for pristine statistics, unbounded above.

    Args:
        parameters: npz file with the mean ``mu_pris_param`` (36 values) and the covariance
            ``cov_pris_param`` (36x36) of the features of pristine photographs, as BasicSR ships
            them (Apache-2.0): ``basicsr/metrics/niqe_pris_params.npz`` in its package.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file without these arrays.
    """

    def __init__(self, parameters: str | Path) -> None:
        self.mean, self.covariance = _read(Path(parameters))

    @torch.no_grad()
    def __call__(self, image: Tensor, *, shave: int = 0) -> Tensor:
        """The quality of each picture by itself.

        Args:
            image: ``(B, 3, H, W)`` RGB or ``(B, 1, H, W)`` grey in [0, 1], rounded to 8 bits here;
                after shaving, two whole blocks of 96x96 pixels must fit in.
            shave: pixels left out on each side; PIRM leaves out 4.

        Returns:
            ``(B,)`` float64; NaN for a picture with fewer than two blocks that are not flat.

        Raises:
            ValueError: another shape, an integer picture, or one that is too small.
        """
        levels = _levels(image, shave)
        features = torch.cat([_features(levels, _BLOCK), _features(_half(levels), _BLOCK // 2)], 2)
        return torch.stack([self._distance(picture) for picture in features])

    def _distance(self, features: Tensor) -> Tensor:
        """Between the pristine model and that of one picture's ``(blocks, 36)``, equation 10."""
        whole = features[features.isfinite().all(1)]  # a flat block has no spread to fit
        if len(whole) < 2:
            return features.new_tensor(torch.nan)
        mean, covariance = self.mean.to(features.device), self.covariance.to(features.device)
        offset = mean - features.nanmean(0)
        inverse: Tensor = torch.linalg.pinv((covariance + whole.T.cov()) / 2)
        return (offset @ inverse @ offset).sqrt()


def _read(path: Path) -> tuple[Tensor, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"no NIQE parameters at {path}; {WHENCE}")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            mean, covariance = arrays["mu_pris_param"].ravel(), arrays["cov_pris_param"]
    except (KeyError, ValueError, OSError, BadZipFile, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not the parameters of NIQE ({error}); {WHENCE}") from error
    if mean.shape != (_FEATURES,) or covariance.shape != (_FEATURES, _FEATURES):
        raise ValueError(
            f"{path}: NIQE has {_FEATURES} features, this file's mean and covariance have shapes "
            f"{mean.shape} and {covariance.shape}; {WHENCE}"
        )
    return torch.from_numpy(mean).double(), torch.from_numpy(covariance).double()


def _levels(image: Tensor, shave: int) -> Tensor:
    """Rounded luma ``(B, 1, H, W)`` in 8-bit levels, shaved and cut to whole blocks."""
    if image.ndim != 4 or image.shape[1] not in (1, 3) or not image.is_floating_point():
        raise ValueError(
            f"NIQE takes floating-point pictures (B, 3 or 1, H, W) in [0, 1], got {image.dtype} "
            f"{tuple(image.shape)}"
        )
    height, width = (side - 2 * shave for side in image.shape[-2:])
    rows, columns = height // _BLOCK, width // _BLOCK
    if shave < 0 or min(rows, columns) < 1 or rows * columns < 2:
        raise ValueError(
            f"NIQE needs two blocks of {_BLOCK}x{_BLOCK} pixels, got {height}x{width} pixels "
            f"after shaving {shave} a side"
        )
    image = (image.double().clamp(0, 1) * 255).round() / 255
    if image.shape[1] == 3:
        image = luma(image)
    return (image[..., shave:, shave:][..., : rows * _BLOCK, : columns * _BLOCK] * 255).round()


def _half(levels: Tensor) -> Tensor:
    return imresize(levels, 0.5, quantize=False)


def _features(levels: Tensor, block: int) -> Tensor:
    """``(B, 1, H, W)`` -> ``(B, blocks, 18)``: what describes the contrast-normalised picture.

    Shape and spread of the values, then shape, mean and both spreads of the products of
    neighbours; each block wraps around, as in the authors' release.
    """
    batch, _, height, width = levels.shape
    blocks = _normalise(levels).view(batch, height // block, block, width // block, block)
    shape, left, right = _fit(blocks)
    features = [shape, (left + right) / 2]
    for shift in _SHIFTS:
        shape, left, right = _fit(blocks * blocks.roll(shift, (2, 4)))
        mean = (right - left) * (torch.lgamma(2 / shape) - torch.lgamma(1 / shape)).exp()
        features += [shape, mean, left, right]
    return torch.stack(features, -1).flatten(1, 2)


def _normalise(levels: Tensor) -> Tensor:
    """Local mean removed, divided by the local standard deviation plus one level, equation 1."""
    mean = _blur(levels)
    variance = _blur(levels.square()) - mean.square()
    deviation = levels - mean
    # Nothing deviates in a flat area, and the fit counts signs: those of rounding errors would
    # shift the result by as much as 0.3, otherwise on every machine.
    deviation = torch.where(deviation.abs() < _NOISE, 0.0, deviation)
    return deviation / (variance.abs().sqrt() + 1)


def _blur(image: Tensor) -> Tensor:
    """Gaussian window of 7 pixels and sigma 7/6; the border is repeated outwards."""
    offset = torch.arange(_WINDOW, dtype=image.dtype, device=image.device) - _WINDOW // 2
    window = torch.exp(-offset.square() / (2 * _SIGMA**2))
    rows = (window / window.sum()).view(1, 1, -1, 1)
    image = F.pad(image, [_WINDOW // 2] * 4, mode="replicate")
    return F.conv2d(F.conv2d(image, rows), rows.mT)


def _fit(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shape and both spreads of an asymmetric generalised Gaussian, fitted to each block.

    Moment matching of Lasmar, Stitou and Berthoumieu 2009, "Multiscale skewed heavy tailed model
    for texture analysis", with the shape on the release's grid of thousandths from 0.2 to 10.

    Args:
        blocks: ``(B, rows, block, columns, block)``.

    Returns:
        Three of ``(B, rows, columns)``; spreads are NaN where a block has no value of their sign.
    """
    square = blocks.square()
    left, right = (_root_mean_square(square, side) for side in (blocks < 0, blocks > 0))
    ratio = left / right
    peak = blocks.abs().mean((2, 4)).square() / square.mean((2, 4))
    peak = peak * (ratio**3 + 1) * (ratio + 1) / (ratio.square() + 1).square()
    shape = _nearest_shape(peak)
    spread = ((torch.lgamma(1 / shape) - torch.lgamma(3 / shape)) / 2).exp()
    return shape, left * spread, right * spread


def _root_mean_square(square: Tensor, used: Tensor) -> Tensor:
    return ((square * used).sum((2, 4)) / used.sum((2, 4))).sqrt()


def _nearest_shape(peak: Tensor) -> Tensor:
    """The grid's shape whose generalised Gaussian has the moment ratio nearest to ``peak``."""
    shapes = torch.arange(200, 10001, dtype=peak.dtype, device=peak.device) / 1000
    ratios = 2 * torch.lgamma(2 / shapes) - torch.lgamma(1 / shapes) - torch.lgamma(3 / shapes)
    ratios = ratios.exp()  # grows with the shape
    index = torch.searchsorted((ratios[1:] + ratios[:-1]) / 2, peak.contiguous())
    # A flat block has no ratio; the release then takes the first shape.
    return shapes[torch.where(peak.isnan(), 0, index)]
