"""Evaluation: 200,000 detections measured and resampled, beside pycocotools.

Run it with: python -m benchmarks.evaluation
"""

import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from detection.bootstrap import draw_weights, group_positions
from detection.boxes import Detections
from detection.coco import Evaluation, evaluate, reference_metrics
from detection.precision_recall import measure
from detection.truth import CocoSet, Objects, Picture

PICTURES, OBJECTS, DETECTIONS, CATEGORIES, RESAMPLES = 500, 68, 400, 10, 1000
WIDTH, HEIGHT = 1360, 765


def run() -> Iterator[tuple[str, str]]:
    """Beside pycocotools over the same ranges of sizes, then the bootstrap; seconds of one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    truth, found = crowded_set()
    started = time.process_time()
    evaluation = evaluate(truth, found, bins=())
    ours = time.process_time() - started
    resampled = _bootstrap(evaluation)
    unit = 1024**2 if sys.platform == "darwin" else 1024  # kilobytes, bytes on a Mac
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    yield "bootstrap of AP, one arm", f"{resampled:7.2f} s for {RESAMPLES} resamples"
    yield "memory of the whole process until here", f"{peak:7.0f} MiB at most"
    started = time.process_time()
    reference = reference_metrics(truth, found, bins=())
    theirs = time.process_time() - started
    apart = max(abs(evaluation.metrics[name] - value) for name, value in reference.items())
    yield "evaluation, pycocotools", f"{theirs:7.2f} s"
    yield "evaluation, ours", f"{ours:7.2f} s   {theirs / ours:.0f} times as fast"
    yield "largest difference of any metric", f"{apart:.1e}"
    torch.set_num_threads(threads)


def crowded_set() -> tuple[CocoSet, dict[int, Detections]]:
    """Aerial-like pictures: many small objects, more false detections than true ones."""
    random = np.random.default_rng(0)
    pictures = tuple(Picture(i, f"{i}.png", WIDTH, HEIGHT) for i in range(PICTURES))
    objects, found = {}, {}
    for picture in pictures:
        boxes = _boxes(random, OBJECTS)
        labels = random.integers(1, CATEGORIES + 1, OBJECTS)
        sides = boxes[:, 2:] - boxes[:, :2]
        objects[picture.id] = Objects(
            torch.from_numpy(boxes).float(),
            torch.from_numpy(labels),
            torch.from_numpy(sides.prod(1)),
            torch.from_numpy(random.random(OBJECTS) < 0.01),
        )
        found[picture.id] = _found(random, boxes, labels)
    categories = {k: f"category {k}" for k in range(1, CATEGORIES + 1)}
    return CocoSet(Path("crowded"), pictures, categories, objects, []), found


def _boxes(random: np.random.Generator, count: int) -> np.ndarray:
    sides = np.exp(random.uniform(np.log(5), np.log(120), (count, 2)))
    corner = random.uniform(0, [WIDTH - 60, HEIGHT - 60], (count, 2))
    return np.concatenate([corner, corner + sides], 1)


def _found(random: np.random.Generator, boxes: np.ndarray, labels: np.ndarray) -> Detections:
    source = random.integers(0, len(boxes), DETECTIONS)
    real = random.random(DETECTIONS) < 0.4
    sides = (boxes[source, 2:] - boxes[source, :2]).repeat(2, 1)
    shaken = boxes[source] + random.normal(0, 0.08, (DETECTIONS, 4)) * sides
    shaken[:, 2:] = np.maximum(shaken[:, 2:], shaken[:, :2] + 1)
    invented = random.integers(1, CATEGORIES + 1, DETECTIONS)
    right = real & (random.random(DETECTIONS) < 0.9)
    scores = np.where(real, random.beta(3, 2, DETECTIONS), random.beta(1, 6, DETECTIONS))
    return Detections(
        torch.from_numpy(np.where(real[:, None], shaken, _boxes(random, DETECTIONS))).float(),
        torch.from_numpy(scores).float(),
        torch.from_numpy(np.where(right, labels[source], invented)),
    )


def _bootstrap(evaluation: Evaluation) -> float:
    positions = group_positions(evaluation.images, None)
    weights = draw_weights(positions, resamples=RESAMPLES, seed=0)
    started = time.process_time()
    measure(evaluation.matches, ["AP"], weights)
    return time.process_time() - started


if __name__ == "__main__":
    for name, figure in run():
        print(f"  {name:<52} {figure}", flush=True)
