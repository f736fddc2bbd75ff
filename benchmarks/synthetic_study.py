"""A population of pictures whose true gain is known, to draw synthetic studies from.

Two arms look at the same pictures. A picture is easy or hard for both, an object is found or not
with a luck that both arms partly share, small objects are found less often and placed less well,
and the second arm enlarges: it sees objects as if they were larger, and invents more.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from detection.boxes import Detections
from detection.coco import Evaluation, evaluate
from detection.matching import Matches
from detection.precision_recall import measure
from detection.truth import CocoSet, Objects, Picture

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

METRICS = ("AP", "AP50")
SIDE = 512
"""Of a picture, in pixels."""
CATEGORIES = {1: "common", 2: "usual", 3: "rare"}
SHARES = (0.6, 0.3, 0.1)
"""Of the objects, by category."""


@dataclass(frozen=True)
class Population:
    """The reference and the trainings of the second arm, evaluated over all pictures."""

    reference: Evaluation
    trainings: list[Evaluation]

    def gain(self, metric: str) -> float:
        """The true difference that a study estimates: the mean over all trainings."""
        values = [training.metrics[metric] for training in self.trainings]
        return float(np.mean(values)) - self.reference.metrics[metric]


def make_population(
    pictures: int, *, trainings: int = 1, strength: float = 1.15, spread: float = 0.0
) -> Population:
    """Draws pictures, lets both arms look at them, evaluates both.

    Args:
        pictures: how many.
        trainings: how often the second arm was trained.
        strength: how many times larger objects look to the second arm.
        spread: standard deviation of the logarithm of the strength between trainings.
    """
    random = np.random.default_rng(0)
    drawn = {image: _picture(random) for image in range(pictures)}
    frame = tuple(Picture(i, f"{i}.png", SIDE, SIDE) for i in range(pictures))
    objects = {image: objects for image, (objects, _, _) in drawn.items()}
    truth = CocoSet(Path("synthetic"), frame, CATEGORIES, objects, [])
    strengths = strength * np.exp(spread * random.normal(size=trainings))
    found = [
        {image: _look(*picture, float(each), random) for image, picture in drawn.items()}
        for each in [1.0, *strengths]
    ]
    reference, *arms = (_evaluated(truth, each) for each in found)
    return Population(reference, arms)


def _evaluated(truth: CocoSet, found: Mapping[int, Detections]) -> Evaluation:
    """Over all sizes only: the rest would take most of the time."""
    evaluation = evaluate(truth, found, bins=())
    return replace(evaluation, matches={"all": evaluation.matches["all"]})


def study_of(evaluation: Evaluation, images: Ints) -> Evaluation:
    """The evaluation of these pictures alone, out of that of all pictures."""
    place = np.full(len(evaluation.images), -1)
    place[images] = np.arange(len(images))
    matches = {
        area: [_restricted(each, images, place) for each in rows]
        for area, rows in evaluation.matches.items()
    }
    counts = {name: sum(int(m.objects.sum()) for m in rows) for name, rows in matches.items()}
    once = torch.ones(len(images), 1, dtype=torch.float64)
    metrics = {name: float(v[0]) for name, v in measure(matches, METRICS, once).items()}
    return Evaluation(metrics, tuple(images.tolist()), matches, counts)


def _restricted(matches: Matches, images: Ints, place: Ints) -> Matches:
    kept = np.flatnonzero(place[matches.image] >= 0)
    return Matches(
        matches.scores[kept],
        place[matches.image[kept]],
        matches.hit[:, kept],
        matches.miss[:, kept],
        matches.objects[images],
    )


def _picture(random: np.random.Generator) -> tuple[Objects, Floats, float]:
    """Objects, the luck of each and the ease of the picture."""
    count = int(random.negative_binomial(2, 0.2))
    sides = np.exp(random.uniform(np.log(6), np.log(60), count))[:, None]
    sides = sides * np.exp(random.normal(0, 0.2, (count, 2)))
    corner = random.uniform(0, SIDE - sides)
    boxes = torch.tensor(np.concatenate([corner, corner + sides], 1)).float().reshape(-1, 4)
    labels = torch.from_numpy(random.choice(list(CATEGORIES), count, p=SHARES))
    areas, crowds = torch.from_numpy(sides.prod(1)), torch.zeros(count, dtype=torch.bool)
    return Objects(boxes, labels, areas, crowds), random.normal(size=count), random.normal() * 0.5


def _look(
    objects: Objects,
    luck: Floats,
    ease: float,
    strength: float,
    random: np.random.Generator,
) -> Detections:
    """What an arm finds: objects with shaken boxes, some of them twice, and inventions."""
    side = objects.areas.sqrt().numpy() * strength
    noise = random.normal(size=len(side))
    sight = np.log(side / 12) + 0.8 * ease + 0.8 * luck + 0.5 * noise
    seen = np.flatnonzero(sight > 0)
    twice = seen[random.random(len(seen)) < 0.1]
    chosen = np.concatenate([seen, twice])
    boxes = objects.boxes.numpy()[chosen]
    boxes = (
        boxes + random.normal(size=boxes.shape) * (0.6 + 0.06 * side[chosen])[:, None] / strength
    )
    score = 1 / (1 + np.exp(-(sight[chosen] + random.normal(size=len(chosen)) - 0.5)))
    labels = objects.labels.numpy()[chosen]
    invented = int(random.poisson(2 * strength * np.exp(-ease)))
    sides = np.exp(random.uniform(np.log(6), np.log(60), (invented, 2)))
    corner = random.uniform(0, SIDE - sides)
    return Detections(
        torch.tensor(np.concatenate([boxes, np.concatenate([corner, corner + sides], 1)])).float(),
        torch.tensor(np.concatenate([score, random.beta(2, 4, invented)])).float(),
        torch.tensor(np.concatenate([labels, random.choice(list(CATEGORIES), invented)])),
    )
