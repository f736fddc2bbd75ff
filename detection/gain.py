"""Better, or lucky in its pictures? Exact paired bootstrap over images between arms.

Every arm sees the same draws of pictures (``bootstrap.py``), so that what makes a picture easy or
hard for all arms drops out of the difference. The matches are those of the whole set: matching
happens inside one image and does not change when images are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from detection.bootstrap import draw_weights, group_positions, interval
from detection.coco import Evaluation
from detection.precision_recall import measure, parse_metric, weighted_ap, weighted_recall

__all__ = ["Gain", "check_arms", "paired_gains", "seeded_gains", "weighted_ap", "weighted_recall"]

METRICS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR")
DETECTABLE = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)
"""Standard errors that a gain must measure to be seen 8 times in 10 at the 5 % level."""

Floats = NDArray[np.float64]
Each = TypeVar("Each")


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
    standard_error: float = math.nan
    """Of the difference, from the resamples' spread."""
    units: int = 0
    """What was drawn: pictures, or groups of them."""
    seeds: int = 1
    """Trainings of the arm that were averaged."""

    @property
    def verdict(self) -> str:
        """'helps' or 'hurts' when the interval leaves 0 out, otherwise 'inconclusive'."""
        if self.low > 0:
            return "helps"
        return "hurts" if self.high < 0 else "inconclusive"

    @property
    def detectable(self) -> float:
        """The smallest true gain that such a study finds 8 times in 10 at the 5 % level."""
        return DETECTABLE * self.standard_error

    @property
    def conclusion(self) -> str:
        """What may be said, in points of 0.01: a gain, a loss, or how much stayed unseen."""
        if math.isnan(self.difference):
            return f"{self.metric}: not measurable, the set has no object of this size"
        figures = f"{self.metric} {100 * self.difference:+.1f} points"
        if math.isnan(self.low):
            return f"inconclusive: {figures} from one picture or scene alone, no interval"
        figures += f" (95 % interval {100 * self.low:+.1f} to {100 * self.high:+.1f})"
        if self.verdict != "inconclusive":
            return f"{self.arm} {self.verdict}: {figures} against {self.reference}"
        return (
            f"inconclusive: {figures}; {self.images} pictures with {self.objects} objects show a "
            f"difference of {100 * self.detectable:.1f} points or more, not a smaller one"
        )


def paired_gains(
    arms: Mapping[str, Evaluation],
    *,
    reference: str,
    resamples: int = 1000,
    seed: int = 0,
    metrics: Sequence[str] = METRICS,
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
        ValueError: unknown reference or metric, arms of different sets, an image without a group.
    """
    return seeded_gains(
        {name: [evaluation] for name, evaluation in arms.items()},
        reference=reference,
        resamples=resamples,
        seed=seed,
        metrics=metrics,
        groups=groups,
    )


def seeded_gains(
    arms: Mapping[str, Sequence[Evaluation]],
    *,
    reference: str,
    resamples: int = 1000,
    seed: int = 0,
    metrics: Sequence[str] = METRICS,
    groups: Mapping[int, str] | None = None,
) -> list[Gain]:
    """Gain of every arm over ``reference``, where arms were trained several times.

    The interval speaks of another training on other pictures: the outer level is the training, the
    inner one the pictures, and all trainings see the same draws. Three trainings drawn from three
    would show two thirds of their variance, so each draw is moved by Student's t of the trainings'
    own spread instead. That is honest and wide: with two trainings it settles little.

    Args:
        arms: name to one evaluation for each training; a single one for what is not trained.
        reference: the arm the others are measured against; with as many evaluations as an arm the
            two are compared training by training (of the same detector seed, for example).
        resamples: bootstrap draws.
        seed: of the draws.
        metrics: names as in ``Evaluation.metrics``.
        groups: image id to scene or recording, as in ``paired_gains``.

    Raises:
        ValueError: unknown reference or metric, arms of different sets, an image without a group,
            numbers of trainings that do not pair.
    """
    check_arms(arms, reference, metrics)
    images = arms[reference][0].images
    positions = group_positions(images, groups)
    weights = draw_weights(positions, resamples=resamples, seed=seed)
    base = [measure(each.matches, metrics, weights) for each in arms[reference]]
    gains = []
    for name, trainings in arms.items():
        if name == reference:
            continue
        values = [measure(each.matches, metrics, weights) for each in trainings]
        for metric in metrics:
            drawn = np.stack(
                [after[metric] - before[metric] for before, after in _pairs(base, values)]
            )
            point = [
                (before.metrics[metric], after.metrics[metric])
                for before, after in _pairs(arms[reference], trainings)
            ]
            units = int(positions.max()) + 1
            evaluation = trainings[0]
            gains.append(_gain((name, reference, metric), evaluation, point, drawn, units, seed))
    return gains


def check_arms(
    arms: Mapping[str, Sequence[Evaluation]], reference: str, metrics: Sequence[str]
) -> None:
    """Refuse arms that cannot be compared picture by picture.

    Raises:
        ValueError: unknown reference or metric, or arms of different sets or limits.
    """
    if reference not in arms:
        raise ValueError(f"the reference arm '{reference}' is none of {', '.join(arms)}")
    if empty := [name for name, trainings in arms.items() if not trainings]:
        raise ValueError(f"arm '{empty[0]}' has no evaluation; give one for each training")
    base = arms[reference][0]
    if unknown := [metric for metric in metrics if metric not in base.metrics]:
        raise ValueError(f"unknown metrics {unknown}; choose from {', '.join(base.metrics)}")
    for name, trainings in arms.items():
        if 1 < len(arms[reference]) != len(trainings) > 1:
            raise ValueError(
                f"arm '{name}' has {len(trainings)} trainings and '{reference}' "
                f"{len(arms[reference])}; give as many of both, or a single '{reference}'"
            )
        for evaluation in trainings:
            _check_same_set(name, evaluation, reference, base)


def _check_same_set(name: str, evaluation: Evaluation, reference: str, base: Evaluation) -> None:
    if evaluation.images != base.images or evaluation.objects != base.objects:
        raise ValueError(
            f"arm '{name}' and '{reference}' were not evaluated on the same images and "
            f"objects; a paired comparison needs one set and one list of bins for all arms"
        )
    if evaluation.max_detections != base.max_detections:
        raise ValueError(
            f"arm '{name}' was evaluated with {evaluation.max_detections} detections an image and "
            f"'{reference}' with {base.max_detections}; use one limit for all arms"
        )


def _pairs(before: Sequence[Each], after: Sequence[Each]) -> list[tuple[Each, Each]]:
    """Reference and arm training by training; a single one stands beside all of the other."""
    count = max(len(before), len(after))
    return [(before[i % len(before)], after[i % len(after)]) for i in range(count)]


def _gain(
    names: tuple[str, str, str],
    evaluation: Evaluation,
    point: Sequence[tuple[float, float]],
    drawn: Floats,
    units: int,
    seed: int,
) -> Gain:
    """From values of reference and arm ``(S,)`` and the differences in each resample ``(S, B)``."""
    arm, reference, metric = names
    differences = np.array([after - before for before, after in point])
    means = drawn.mean(axis=0)
    between = _training_error(differences, drawn)
    means = means[~np.isnan(means)]  # draws without any such object say nothing
    error = math.hypot(means.std(), between) if means.size else math.nan
    if between:
        noise = np.random.default_rng([seed, 1]).standard_t(len(differences) - 1, len(means))
        means = means + between * noise
    low, high = interval(means, units=units)
    better = (means > 0).mean() + 0.5 * (means == 0).mean() if means.size else math.nan
    return Gain(
        arm=arm,
        reference=reference,
        metric=metric,
        reference_value=float(np.mean([before for before, _ in point])),
        value=float(np.mean([after for _, after in point])),
        difference=float(differences.mean()),
        low=low,
        high=high,
        p_positive=float(better),
        images=len(evaluation.images),
        objects=evaluation.objects[parse_metric(metric)[1]],
        standard_error=error,
        units=units,
        seeds=len(differences),
    )


def _training_error(differences: Floats, drawn: Floats) -> float:
    """Standard error that the choice of trainings adds to their mean, 0 for a single one.

    Trainings differ on few pictures by luck in these pictures too; the draws ``(S, B)`` show how
    much and hold it already, so that it is taken out of the spread of ``differences`` ``(S,)``.
    """
    count = len(differences)
    if count < 2 or bool(np.isnan(drawn).all()):
        return 0.0
    luck = drawn - differences[:, None]
    luck = luck - luck.mean(axis=0)
    by_pictures = float(np.nanvar(luck, axis=1).sum()) / (count - 1)
    between = float(differences.var(ddof=1)) - by_pictures
    return math.sqrt(max(between, 0.0) / count)
