"""Could chance alone have made this difference? Exact swaps of two arms, picture by picture.

Noreen 1989 (approximate randomisation): were the arms alike, it would not matter which of the two
found what in a picture. So in each permutation every picture (or every scene) swaps the arms with
probability one half, and the p-value is the share of permutations whose difference is as large as
the one seen. Holm 1979 keeps the chance of any false alarm over all arms of a study at the level.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detection.bootstrap import group_positions
from detection.coco import Evaluation
from detection.gain import check_arms
from detection.matching import Matches
from detection.precision_recall import measure, parse_metric


@dataclass(frozen=True, slots=True)
class PairedTest:
    """One metric of one arm tested against the reference, two-sided."""

    arm: str
    reference: str
    metric: str
    difference: float
    p_value: float
    """Of this arm by itself; never below 1 / (permutations + 1)."""
    p_holm: float
    """After Holm's correction over the arms of this metric."""
    permutations: int

    @property
    def significant(self) -> bool:
        """At the 5 % level after the correction."""
        return self.p_holm < 0.05


def paired_tests(
    arms: Mapping[str, Evaluation],
    *,
    reference: str,
    permutations: int = 1000,
    seed: int = 0,
    metrics: Sequence[str] = ("AP", "AP_small"),
    groups: Mapping[int, str] | None = None,
) -> list[PairedTest]:
    """Tests every arm against ``reference`` in every metric.

    It costs some four bootstraps of as many resamples, so name the metrics that the study is about
    and no others: each further one is a further chance of a false alarm that Holm's correction,
    which is over arms, does not count.

    Args:
        arms: name to evaluation, all on the same set.
        reference: the arm the others are tested against.
        permutations: swaps drawn at random.
        seed: of the swaps.
        metrics: names as in ``Evaluation.metrics``.
        groups: image id to scene or recording: what is swapped as a whole.

    Raises:
        ValueError: unknown reference or metric, arms of different sets, an image without a group.
    """
    check_arms({name: [evaluation] for name, evaluation in arms.items()}, reference, metrics)
    base = arms[reference]
    swaps = _draw_swaps(group_positions(base.images, groups), permutations, seed)
    tests: dict[str, list[PairedTest]] = {metric: [] for metric in metrics}
    for name, evaluation in arms.items():
        if name == reference:
            continue
        drawn = _swapped_differences(base, evaluation, metrics, swaps)
        for metric in metrics:
            seen = evaluation.metrics[metric] - base.metrics[metric]
            p_value = _p_value(seen, drawn[metric])
            tests[metric].append(
                PairedTest(name, reference, metric, seen, p_value, math.nan, permutations)
            )
    return [test for rows in tests.values() for test in _corrected(rows)]


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for being several (Holm 1979), in the order given; nan is not counted."""
    adjusted = [math.nan] * len(p_values)
    known = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    highest = 0.0
    for rank, (p, place) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[place] = highest
    return adjusted


def _corrected(tests: Sequence[PairedTest]) -> list[PairedTest]:
    adjusted = holm([test.p_value for test in tests])
    return [replace(test, p_holm=p) for test, p in zip(tests, adjusted, strict=True)]


def _p_value(seen: float, drawn: NDArray[np.float64]) -> float:
    if math.isnan(seen):
        return math.nan
    # the order of sums may differ in the last digit where the swap changed nothing
    extreme = np.count_nonzero(np.abs(drawn) >= abs(seen) - 1e-12)
    return (1 + extreme) / (1 + len(drawn))


def _draw_swaps(positions: NDArray[np.int64], permutations: int, seed: int) -> Tensor:
    """Which images swap in each permutation, ``(I, P)`` of 0 and 1, whole groups at a time."""
    size = (int(positions.max()) + 1, permutations)
    swaps = np.random.default_rng(seed).integers(0, 2, size)
    return torch.from_numpy(swaps[positions].astype(np.float32))


def _swapped_differences(
    base: Evaluation, arm: Evaluation, metrics: Sequence[str], swaps: Tensor
) -> dict[str, NDArray[np.float64]]:
    """Differences ``(P,)`` after the swaps.

    The detections of both arms stand in one list over twice the images; an image of an arm counts
    once or not at all, by which of the two has it in a permutation.
    """
    both = {
        area: [
            _side_by_side(before, after)
            for before, after in zip(base.matches[area], arm.matches[area], strict=True)
        ]
        for area in {parse_metric(metric)[1] for metric in metrics}
    }
    before = measure(both, metrics, torch.cat([1 - swaps, swaps]))
    after = measure(both, metrics, torch.cat([swaps, 1 - swaps]))
    return {metric: after[metric] - before[metric] for metric in metrics}


def _side_by_side(first: Matches, second: Matches) -> Matches:
    """Matches of two arms as of twice the images; equal scores stay in the order of images."""
    images = len(first.objects)
    scores = np.concatenate([first.scores, second.scores])
    image = np.concatenate([first.image, second.image])
    order = np.lexsort((image, -scores))
    shifted = np.concatenate([first.image, second.image + images])
    return Matches(
        scores[order],
        shifted[order],
        np.concatenate([first.hit, second.hit], axis=1)[:, order],
        np.concatenate([first.miss, second.miss], axis=1)[:, order],
        np.concatenate([first.objects, second.objects]),
    )
