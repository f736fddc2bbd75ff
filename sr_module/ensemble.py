"""The geometric self-ensemble: eight views of a picture, one averaged result."""

from collections.abc import Callable

import torch
from torch import Tensor

_ROWS_AND_COLUMNS = (-2, -1)


def self_ensemble(run: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``run`` over the eight flips and quarter turns of its input; the mean of all, turned back.

    Tables mark results made so with a "+". It costs eight times as much and needs no training; a
    ``run`` that treats every orientation alike, such as a resampling kernel, gains nothing.

    Source: Lim et al. 2017, "Enhanced Deep Residual Networks for Single Image Super-Resolution",
    arXiv:1707.02921, section 3.4.

    Args:
        run: ``(..., h, w) -> (..., s * h, s * w)``, for any sides, since a quarter turn swaps them.

    Returns:
        A function of the same shapes.
    """

    def ensembled(lr: Tensor) -> Tensor:
        results = (
            _turned_back(run(_turned(lr, turns, mirrored)), turns, mirrored)
            for mirrored in (False, True)
            for turns in range(4)
        )
        return sum(results, start=torch.zeros(())) / 8  # one at a time: pictures may be large

    return ensembled


def _turned(image: Tensor, turns: int, mirrored: bool) -> Tensor:
    image = image.flip(-1) if mirrored else image
    return torch.rot90(image, turns, _ROWS_AND_COLUMNS).contiguous()


def _turned_back(image: Tensor, turns: int, mirrored: bool) -> Tensor:
    image = torch.rot90(image, -turns, _ROWS_AND_COLUMNS)
    return image.flip(-1) if mirrored else image
