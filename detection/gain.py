"""Better, or lucky in its pictures? Exact paired bootstrap over images between arms.

Efron & Tibshirani 1993, ch. 13 (percentile interval). Images are drawn with replacement; an image
drawn twice counts twice, exactly as if the set held it twice, and every arm sees the same draws.
The matches are those of the whole set: matching happens inside one image and does not change when
images are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from detection.coco import Evaluation, Matches

RECALLS = np.linspace(0, 1, 101)
"""Points of the precision curve that COCO averages; torch's linspace differs in the last digit."""


@dataclass(frozen=True, slots=True)
class Gain:
    """Difference of one metric between an arm and the reference, with its 95 % interval."""

    arm: str
    reference: str
    metric: str
    reference_value: float
    value: float
    difference: float
    low: float
    high: float
    p_positive: float
    """Share of resamples in which the arm was better; a tie counts half."""
    images: int
    objects: int

    @property
    def verdict(self) -> str:
        """'helps' or 'hurts' when the interval leaves 0 out, otherwise 'inconclusive'."""
        if self.low > 0:
            return "helps"
        return "hurts" if self.high < 0 else "inconclusive"


def paired_gains(
    arms: Mapping[str, Evaluation],
    *,
    reference: str,
    resamples: int = 1000,
    seed: int = 0,
    metrics: Sequence[str] = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR"),
    groups: Mapping[int, str] | None = None,
) -> list[Gain]:
    """Gain of every arm over ``reference`` in every metric.

    Args:
        arms: name to evaluation, all on the same set.
        reference: the arm the others are measured against.
        resamples: bootstrap draws.
        seed: of the draws.
        metrics: names as in ``Evaluation.metrics``.
        groups: image id to scene or recording. Frames of one scene are alike, so where they are
            given whole groups are drawn instead of images, else the interval is too narrow.

    Raises:
        ValueError: unknown reference or metric, or arms of different sets.
    """
    _check_arms(arms, reference, metrics)
    images = arms[reference].images
    weights = _draw(images, groups, resamples=resamples, seed=seed)
    base = _resampled(arms[reference], metrics, weights)
    gains = []
    for name, evaluation in arms.items():
        if name == reference:
            continue
        values = _resampled(evaluation, metrics, weights)
        for metric in metrics:
            difference = values[metric] - base[metric]
            gains.append(_gain(name, reference, metric, difference, arms))
    return gains


def _gain(
    arm: str,
    reference: str,
    metric: str,
    differences: NDArray[np.float64],
    arms: Mapping[str, Evaluation],
) -> Gain:
    before, after = arms[reference].metrics[metric], arms[arm].metrics[metric]
    drawn = differences[~np.isnan(differences)]  # draws without any such object say nothing
    low, high = np.quantile(drawn, [0.025, 0.975]) if drawn.size else (math.nan, math.nan)
    better = (drawn > 0).mean() + 0.5 * (drawn == 0).mean() if drawn.size else math.nan
    return Gain(
        arm=arm,
        reference=reference,
        metric=metric,
        reference_value=before,
        value=after,
        difference=after - before,
        low=float(low),
        high=float(high),
        p_positive=float(better),
        images=len(arms[arm].images),
        objects=arms[arm].objects[_area_of(metric)],
    )


def weighted_ap(matches: Matches, weights: Tensor) -> Tensor:
    """Average precision of one category at every IoU threshold under image weights.

    Args:
        matches: of one category in one area range.
        weights: ``(I, B)`` float32, how often each image counts in each of B resamples.

    Returns:
        ``(T, B)`` float64, nan where the weighted images hold no object.
    """
    parts = torch.split(weights, 256, dim=1)
    return torch.cat([_ap(matches, part.contiguous()) for part in parts], 1)


def weighted_recall(matches: Matches, weights: Tensor) -> Tensor:
    """Recall of one category at every IoU threshold under image weights ``(I, B)``, ``(T, B)``."""
    images = len(matches.objects)
    found = np.stack([np.bincount(matches.image[hit], minlength=images) for hit in matches.hit])
    objects = torch.from_numpy(matches.objects).double() @ weights.double()
    return torch.from_numpy(found).double() @ weights.double() / objects


def _check_arms(arms: Mapping[str, Evaluation], reference: str, metrics: Sequence[str]) -> None:
    if reference not in arms:
        raise ValueError(f"the reference arm '{reference}' is none of {', '.join(arms)}")
    base = arms[reference]
    if unknown := [metric for metric in metrics if metric not in base.metrics]:
        raise ValueError(f"unknown metrics {unknown}; choose from {', '.join(base.metrics)}")
    for name, evaluation in arms.items():
        if evaluation.images != base.images or evaluation.objects != base.objects:
            raise ValueError(
                f"arm '{name}' and '{reference}' were not evaluated on the same images and "
                f"objects; a paired comparison needs one set and one list of bins for all arms"
            )


def _draw(
    images: Sequence[int], groups: Mapping[int, str] | None, *, resamples: int, seed: int
) -> Tensor:
    """How often each image counts in each resample, ``(I, B)`` float32."""
    names = [str(image) if groups is None else groups[image] for image in images]
    position = {name: i for i, name in enumerate(dict.fromkeys(names))}
    count = len(position)
    drawn = np.random.default_rng(seed).multinomial(count, [1 / count] * count, size=resamples)
    rows = drawn.T[[position[name] for name in names]]
    return torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32))


def _resampled(
    evaluation: Evaluation, metrics: Sequence[str], weights: Tensor
) -> dict[str, NDArray[np.float64]]:
    """Every metric in every resample, ``(B,)`` each."""
    precision = {
        area: torch.stack([weighted_ap(m, weights) for m in evaluation.matches[area]])
        for area in {_area_of(metric) for metric in metrics if metric != "AR"}
    }  # (K, T, B) each
    values = {}
    for metric in metrics:
        if metric == "AR":
            recall = torch.stack([weighted_recall(m, weights) for m in evaluation.matches["all"]])
            values[metric] = recall.nanmean(dim=(0, 1)).numpy()
        else:
            chosen = precision[_area_of(metric)][:, _thresholds_of(metric)]
            values[metric] = chosen.nanmean(dim=(0, 1)).numpy()
    return values


def _area_of(metric: str) -> str:
    return metric.removeprefix("AP_") if metric.startswith("AP_") else "all"


def _thresholds_of(metric: str) -> slice:
    """Rows of the ten IoU thresholds .5, .55, ... .95 that a metric averages."""
    return {"AP50": slice(0, 1), "AP75": slice(5, 6)}.get(metric, slice(None))


def _ap(matches: Matches, weights: Tensor) -> Tensor:
    objects = torch.from_numpy(matches.objects).to(weights.dtype) @ weights  # (B,)
    rows = [
        _interpolated(matches.image, hit, miss, weights, objects)
        for hit, miss in zip(matches.hit, matches.miss, strict=True)
    ]
    return torch.where(objects > 0, torch.stack(rows), torch.nan)


def _interpolated(
    image: NDArray[np.int64],
    hit: NDArray[np.bool_],
    miss: NDArray[np.bool_],
    weights: Tensor,
    objects: Tensor,
) -> Tensor:
    """101-point AP for every column of ``weights``, ``(B,)``.

    Precision only peaks at true positives, so only their rows are formed: the false positives
    between two of them are summed at once (an embedding bag of image weights). Sums of whole
    numbers stay exact in float32 up to 16 million detections.
    """
    hits, misses = np.flatnonzero(hit), np.flatnonzero(miss)
    if not len(hits):
        return torch.zeros_like(objects, dtype=torch.float64)
    ends = np.searchsorted(misses, hits)  # misses that precede each hit
    starts = np.concatenate([[0], ends[:-1]])
    between = F.embedding_bag(
        torch.from_numpy(image[misses[: ends[-1]]]), weights, torch.from_numpy(starts), mode="sum"
    )  # (n, B)
    wrong = between.cumsum(0).T.double()  # (B, n)
    right = weights[torch.from_numpy(image[hits])].cumsum(0).T.double()
    precision = right / (right + wrong + np.spacing(1))
    envelope = precision.flip(1).cummax(1).values.flip(1)
    recall = (right / objects[:, None]).contiguous()
    grid = torch.from_numpy(RECALLS).expand(len(objects), -1).contiguous()
    position = torch.searchsorted(recall, grid)
    reached = F.pad(envelope, (0, 1)).gather(1, position)  # 0 beyond the greatest recall
    return reached.mean(dim=1)
