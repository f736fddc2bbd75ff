"""Average precision and recall when every image counts as often as it is told to.

Lin et al. 2014, arXiv:1405.0312, and its evaluation code: the mean of the precision envelope at 101
recalls. With weights of one it is COCO's figure; with the multiplicities of a bootstrap draw it is
the figure of the set in which images really stand that often.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detection.matching import Matches

RECALLS: NDArray[np.float64] = np.linspace(0, 1, 101)
"""Points of the precision curve that COCO averages; torch's linspace differs in the last digit."""

CELLS_AT_ONCE = 500_000
"""Detections times resamples held at once, so that they stay in a processor's cache."""

Weights = NDArray[np.floating[Any]]


KINDS: dict[str, slice] = {
    "AP": slice(None), "AP50": slice(0, 1), "AP75": slice(5, 6), "AR": slice(None)
}  # fmt: skip
"""First word of a metric's name to the rows of the ten IoU thresholds .5, .55, ... .95 it means."""


def parse_metric(name: str) -> tuple[str, str]:
    """Kind and area range of a metric: ``AP_8_16`` is AP within 8_16, ``AR`` is AR within all.

    Raises:
        ValueError: the name begins with none of the kinds.
    """
    kind, _, area = name.partition("_")
    if kind not in KINDS:
        raise ValueError(
            f"unknown metric '{name}'; it must begin with one of {', '.join(KINDS)}, "
            f"a size may follow: AP_small, AR_8_16"
        )
    return kind, area or "all"


def measure(
    matches: Mapping[str, Sequence[Matches]], metrics: Sequence[str], weights: Tensor
) -> dict[str, NDArray[np.float64]]:
    """Metrics under image weights: means over the categories that have objects.

    Args:
        matches: area range to the matches of every category.
        metrics: names such as AP, AP50, AR, AP_small.
        weights: ``(I, B)``, how often each image counts in each of B resamples.

    Returns:
        Metric to its value in every resample ``(B,)``, nan where nothing is to be found.
    """
    rows: dict[tuple[bool, str], Tensor] = {}
    values = {}
    for name in metrics:
        kind, area = parse_metric(name)
        key = (kind == "AR", area)
        if key not in rows:
            curve = weighted_recall if kind == "AR" else weighted_ap
            rows[key] = torch.stack([curve(each, weights) for each in matches[area]])  # (K, T, B)
        values[name] = rows[key][:, KINDS[kind]].nanmean(dim=(0, 1)).numpy()
    return values


def weighted_ap(matches: Matches, weights: Tensor) -> Tensor:
    """Average precision of one category at every IoU threshold under image weights.

    Sums of whole numbers stay exact in float32 up to 16 million detections; a precision has seven
    digits then and all sixteen in float64.

    Args:
        matches: of one category in one area range.
        weights: ``(I, B)`` float32 or float64, how often each image counts in each of B resamples.

    Returns:
        ``(T, B)`` float64, nan where the weighted images hold no object.
    """
    columns = np.ascontiguousarray(weights.numpy().T)  # (B, I)
    step = max(1, CELLS_AT_ONCE // max(1, len(matches.image)))
    parts = [_average_precision(matches, part) for part in _split(columns, step)]
    return torch.from_numpy(np.concatenate(parts, axis=1))


def weighted_recall(matches: Matches, weights: Tensor) -> Tensor:
    """Recall of one category at every IoU threshold under image weights ``(I, B)``, ``(T, B)``."""
    images = len(matches.objects)
    found = np.stack([np.bincount(matches.image[hit], minlength=images) for hit in matches.hit])
    objects = torch.from_numpy(matches.objects).double() @ weights.double()
    return torch.from_numpy(found).double() @ weights.double() / objects


def precision_curve(matches: Sequence[Matches], *, floor: int = 0) -> NDArray[np.float64]:
    """Precision at each of ``RECALLS``, mean over the categories that have objects, ``(101,)``.

    Its mean is the AP at that overlap; nan where no category has an object.

    Args:
        matches: of every category in one area range.
        floor: row of the IoU threshold: 0 is 0.5.
    """
    curves = [_curve(each, floor) for each in matches if each.objects.sum()]
    return np.mean(curves, axis=0) if curves else np.full(len(RECALLS), np.nan)


def _curve(matches: Matches, floor: int) -> NDArray[np.float64]:
    right = np.cumsum(matches.hit[floor])
    until = right + np.cumsum(matches.miss[floor])
    precision = np.append(right / np.maximum(until, 1), 0.0)  # 0 beyond the greatest recall
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    recall = right / matches.objects.sum()
    return np.asarray(envelope[np.searchsorted(recall, RECALLS, side="left")])


def _split(columns: Weights, step: int) -> Iterator[Weights]:
    return (columns[start : start + step] for start in range(0, len(columns), step))


def _average_precision(matches: Matches, columns: Weights) -> NDArray[np.float64]:
    """``(T, B)`` for image weights ``(B, I)``.

    Precision only peaks at true positives, so only their positions are looked at. What stands up
    to a position is a running sum over the detections that count at every threshold, shared by all
    thresholds, plus the few that are ignored at some.
    """
    counted = matches.hit | matches.miss
    always: NDArray[np.bool_] = np.all(counted, axis=0)
    objects = columns.astype(np.float64) @ matches.objects
    wanted = _needed(objects).astype(columns.dtype)
    # Nothing asks for what follows the last true positive.
    end = 1 + int(np.flatnonzero(np.any(matches.hit, axis=0)).max(initial=-1))
    shared = np.flatnonzero(always[:end])
    total = _running(columns, matches.image[shared])
    rows = []
    for hit, here in zip(matches.hit, counted, strict=True):
        hits = np.flatnonzero(hit)
        until = _up_to(total, shared, hits)
        if len(extra := np.flatnonzero((here & ~always)[:end])):
            until += _up_to(_running(columns, matches.image[extra]), extra, hits)
        rows.append(_interpolated(_running(columns, matches.image[hits])[:, 1:], until, wanted))
    return np.where(objects > 0, np.stack(rows), np.nan)


def _running(columns: Weights, image: NDArray[np.int64]) -> Weights:
    """Weight of the first n detections of given images, n from 0, ``(B, n)``."""
    sums = np.zeros((len(columns), len(image) + 1), columns.dtype)
    np.cumsum(np.take(columns, image, axis=1), axis=1, out=sums[:, 1:])
    return sums


def _up_to(running: Weights, places: NDArray[np.int64], ends: NDArray[np.int64]) -> Weights:
    """The running sum over detections at ``places`` up to and with each of ``ends``."""
    taken: Weights = np.take(running, np.searchsorted(places, ends, side="right"), axis=1)
    return taken


def _needed(objects: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fewest true positives among so many objects ``(B,)`` that reach each recall, ``(B, 101)``.

    As floating-point division sees it: 7 of 100 do not reach 7 * 0.01.
    """
    some = np.maximum(objects, 1)[:, None]
    least = np.ceil(RECALLS * some)
    least = np.where((least - 1) / some >= RECALLS, least - 1, least)
    return np.where(least / some < RECALLS, least + 1, least)


def _interpolated(right: Weights, until: Weights, wanted: Weights) -> NDArray[np.float64]:
    """101-point AP ``(B,)``.

    Args:
        right: weight of the true positives up to and with each of them, ``(B, n)``.
        until: weight of all detections that count, up to the same places.
        wanted: true positives that reach each recall, ``(B, 101)``.
    """
    size = right.shape[1] + 1
    precision = np.zeros((len(right), size), right.dtype)  # 0 beyond the greatest recall
    np.divide(right, np.maximum(until, 1, out=until), out=precision[:, :-1])
    place = torch.searchsorted(torch.from_numpy(right).contiguous(), torch.from_numpy(wanted))
    flat = (place.numpy() + size * np.arange(len(right))[:, None]).ravel()
    # Recall 0 is reached at the start of a row, so no stretch runs over into the next row.
    best = np.maximum.reduceat(precision.ravel(), flat).reshape(wanted.shape)
    envelope = np.maximum.accumulate(best[:, ::-1], axis=1)
    return np.asarray(envelope.mean(axis=1, dtype=np.float64))
