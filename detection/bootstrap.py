"""Draws of pictures with replacement, and the interval that they give.

Efron & Tibshirani 1993, ch. 8 and 13. A picture drawn twice counts twice, exactly as if the set
held it twice. Where pictures come in groups (frames of one scene), whole groups are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]


def group_positions(images: Sequence[int], groups: Mapping[int, str] | None) -> NDArray[np.int64]:
    """Number of the group of every image, from 0; each image is its own without ``groups``.

    Raises:
        ValueError: an image has no group.
    """
    if groups is None:
        return np.arange(len(images))
    if missing := [image for image in images if image not in groups]:
        raise ValueError(
            f"groups names no group for {len(missing)} images, the first is image id {missing[0]}; "
            f"give every image of the set a scene or recording"
        )
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(groups[image], len(numbers)) for image in images])


def draw_weights(positions: NDArray[np.int64], *, resamples: int, seed: int) -> Tensor:
    """How often each image counts in each resample, ``(I, B)`` float32, whole groups at a time."""
    count = int(positions.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(count, [1 / count] * count, size=resamples)
    return torch.from_numpy(np.ascontiguousarray(drawn.T[positions], dtype=np.float32))


def interval(drawn: Floats, *, units: int, level: float = 0.95) -> tuple[float, float]:
    """Expanded percentile interval of resampled values ``(B,)``; nan for fewer than two units.

    Hesterberg 2015, arXiv:1411.5279, section 4.2: percentiles are taken further out, by Student's t
    instead of the normal distribution and by sqrt(n / (n - 1)), for the plain ones are too narrow
    where few units were drawn.

    Args:
        drawn: values in all resamples.
        units: independent pictures, or groups of them, that each resample draws.
        level: share of repeated studies whose interval should hold the truth.
    """
    if units < 2 or not len(drawn):
        return math.nan, math.nan
    reach = math.sqrt(units / (units - 1)) * student_quantile((1 + level) / 2, units - 1)
    tail = NormalDist().cdf(-reach)
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


@cache
def student_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t distribution, to five digits, for probabilities from 0.5 on."""
    freedom = min(freedom, 10_000)  # beyond, it is the normal distribution to four digits
    # With t = sqrt(freedom) tan(angle) the density becomes a power of a cosine.
    angle = np.linspace(0, math.pi / 2, 20_001)
    density = np.cos(angle) ** (freedom - 1)
    mass = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    found = np.interp((2 * probability - 1) * mass[-1], mass, angle)
    return float(math.sqrt(freedom) * math.tan(found))
