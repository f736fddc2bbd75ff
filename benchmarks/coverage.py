"""Intervals: how many of 500 synthetic studies have one that holds the true gain.

Run it with: python -m benchmarks.coverage [30 60 150 trainings]
"""

import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from benchmarks.synthetic_study import METRICS, Floats, Population, make_population, study_of
from detection.bootstrap import draw_weights, group_positions, interval
from detection.coco import Evaluation
from detection.gain import seeded_gains
from detection.precision_recall import measure

STUDIES, RESAMPLES = 500, 500
PICTURES, POPULATION = (30, 60, 150), 4000
TRAININGS, TRAINED, TRAINED_POPULATION, SPREAD = 3, 40, 2000, 0.1
TRAINED_PICTURES = 60
SEVERAL = "trainings"

NORMAL = NormalDist()


def run(parts: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """Kinds of interval for one training by numbers of pictures, then for several."""
    parts = parts or (*map(str, PICTURES), SEVERAL)
    if counts := [int(part) for part in parts if part != SEVERAL]:
        population = make_population(POPULATION)
    for pictures in counts:
        held = _one_training(population, pictures)
        for (metric, kind), count in sorted(held.items()):
            yield f"{pictures} pictures, {metric}, {kind}", f"{100 * count / STUDIES:5.1f} %"
    if SEVERAL in parts:
        population = make_population(TRAINED_POPULATION, trainings=TRAINED, spread=SPREAD)
        for kind, count in _several_trainings(population).items():
            name = f"{TRAININGS} trainings, {TRAINED_PICTURES} pictures, AP, {kind}"
            yield name, f"{100 * count / STUDIES:5.1f} %"


def _one_training(population: Population, pictures: int) -> Counter[tuple[str, str]]:
    random = np.random.default_rng(pictures)
    held: Counter[tuple[str, str]] = Counter()
    for study in range(STUDIES):
        images = random.choice(len(population.reference.images), pictures, replace=False)
        arms = [study_of(each, images) for each in (population.reference, population.trainings[0])]
        drawn = _differences(arms[0], arms[1], _draws(arms[0], study))
        without = _differences(arms[0], arms[1], 1 - torch.eye(pictures))
        for metric in METRICS:
            estimate = arms[1].metrics[metric] - arms[0].metrics[metric]
            kinds = _intervals(estimate, drawn[metric], without[metric])
            for kind, (low, high) in kinds.items():
                held[metric, kind] += low <= population.gain(metric) <= high
    return held


def _draws(evaluation: Evaluation, seed: int) -> Tensor:
    positions = group_positions(evaluation.images, None)
    return draw_weights(positions, resamples=RESAMPLES, seed=seed)


def _differences(reference: Evaluation, arm: Evaluation, weights: Tensor) -> dict[str, Floats]:
    before, after = (measure(each.matches, METRICS, weights) for each in (reference, arm))
    return {metric: after[metric] - before[metric] for metric in METRICS}


def _intervals(estimate: float, drawn: Floats, without: Floats) -> dict[str, tuple[float, float]]:
    """Efron & Tibshirani 1993, ch. 13 and 14; the expanded one is what the package gives.

    Args:
        estimate: of all pictures.
        drawn: of each resample.
        without: of all pictures but one, for the acceleration of BCa.
    """
    low, high = np.quantile(drawn, [0.025, 0.975])
    below = min(max(float((drawn < estimate).mean()), 1 / len(drawn)), 1 - 1 / len(drawn))
    bias = NORMAL.inv_cdf(below)
    lean = without.mean() - without
    acceleration = float((lean**3).sum() / (6 * (lean**2).sum() ** 1.5))
    return {
        "expanded percentile (ours)": interval(drawn, units=len(without)),
        "percentile": (low, high),
        "basic": (2 * estimate - high, 2 * estimate - low),
        "bias-corrected": _corrected(drawn, bias, 0.0),
        "BCa": _corrected(drawn, bias, acceleration),
    }


def _corrected(drawn: Floats, bias: float, acceleration: float) -> tuple[float, float]:
    tails = [NORMAL.cdf(bias + (bias + z) / (1 - acceleration * (bias + z))) for z in (-1.96, 1.96)]
    low, high = np.quantile(drawn, tails)
    return float(low), float(high)


def _several_trainings(population: Population) -> Counter[str]:
    """Ours, beside pictures alone and beside trainings drawn like the pictures."""
    random = np.random.default_rng(1)
    held: Counter[str] = Counter()
    truth = population.gain("AP")
    for study in range(STUDIES):
        images = random.choice(len(population.reference.images), TRAINED_PICTURES, replace=False)
        chosen = random.choice(len(population.trainings), TRAININGS)
        arms = [study_of(population.trainings[each], images) for each in chosen]
        reference = study_of(population.reference, images)
        (gain,) = seeded_gains(
            {"reference": [reference], "arm": arms},
            reference="reference",
            resamples=RESAMPLES,
            seed=study,
            metrics=("AP",),
        )
        drawn = np.stack(
            [_differences(reference, arm, _draws(reference, study))["AP"] for arm in arms]
        )
        shares = random.multinomial(TRAININGS, [1 / TRAININGS] * TRAININGS, RESAMPLES).T / TRAININGS
        rivals = {
            "moved by Student's t (ours)": (gain.low, gain.high),
            "trainings drawn": interval((drawn * shares).sum(0), units=len(images)),
            "pictures alone": interval(drawn.mean(0), units=len(images)),
        }
        for kind, (low, high) in rivals.items():
            held[kind] += low <= truth <= high
    return held


if __name__ == "__main__":
    error = 100 * math.sqrt(0.95 * 0.05 / STUDIES)
    print(f"{STUDIES} studies; 95 % is hit within {error:.1f} points (one standard error)")
    for name, figure in run(sys.argv[1:]):
        print(f"  {name:<62} {figure}", flush=True)
