"""Scores made to mean the same in windows and whole pictures, learnt on pictures set aside."""

import math
import random
from collections.abc import Mapping, Sequence

import torch

from detection.boxes import Detections
from detection.calibration import (
    Calibration,
    Reliability,
    Samples,
    fit_calibration,
    reliability,
    true_and_false,
)
from detection.coco import evaluate
from detection.group import Merge
from detection.merge import fuse
from detection.merge_tuning import TunedMerge, tune_merge
from detection.truth import CocoSet

Found = Mapping[int, Detections]
WINDOWS, WHOLE = "windows", "whole picture"
"""The two sources of detections."""


def set_aside(
    images: Sequence[int], share: float, *, seed: int, groups: Mapping[int, str] | None = None
) -> tuple[list[int], list[int]]:
    """The image ids to evaluate, and a random share to calibrate on, which are never evaluated.

    Of pictures in ``groups`` (image id to scene) whole groups are set aside, as many as come
    nearest to the share: the next frame of a film is no other picture.

    Raises:
        ValueError: a share that leaves either side without a picture.
    """
    count = round(share * len(images))
    if not 0 < count < len(images):
        raise ValueError(
            f"calibrate_on {share:g} of {len(images)} pictures sets {count} aside; both the "
            f"pictures that scores are calibrated on and those evaluated must be at least one"
        )
    held = _held(images, count, groups, seed) if groups else _sample(images, count, seed)
    if not 0 < len(held) < len(images):
        raise ValueError(
            f"calibrate_on {share:g} leaves no group on one side; the groups are too large for it"
        )
    return [image for image in images if image not in held], sorted(held)


def _sample(images: Sequence[int], count: int, seed: int) -> set[int]:
    return set(random.Random(seed).sample(list(images), count))


def _held(images: Sequence[int], count: int, groups: Mapping[int, str], seed: int) -> set[int]:
    names = sorted({groups[image] for image in images})
    random.Random(seed).shuffle(names)
    held: set[int] = set()
    for name in names:
        members = {image for image in images if groups[image] == name}
        if abs(len(held) + len(members) - count) < abs(len(held) - count):
            held |= members
    return held


def chosen_merge(truth: CocoSet, found: Found, arm: str) -> TunedMerge:
    """The best of ``merge_tuning.CANDIDATES`` for what an arm found in the pictures set aside.

    By AP of small objects, or AP where there are none; every arm has the same candidates.

    Args:
        truth: of the pictures set aside.
        found: image id to detections that are not merged.
        arm: its name, for errors.
    """

    def score(unmerged: Found, how: Merge) -> float:
        merged = {image: fuse(each, how) for image, each in unmerged.items()}
        metrics = evaluate(truth, merged).metrics
        small = metrics["AP_small"]
        return metrics["AP"] if math.isnan(small) else small

    return tune_merge({arm: found}, score)[arm]


def calibrated(truth: CocoSet, sources: Mapping[str, Found]) -> Calibration:
    """One curve for each source and size, from what each found in the pictures set aside."""
    return fit_calibration({name: _samples(truth, found) for name, found in sources.items()})


def apply(calibration: Calibration, source: str, found: Found) -> dict[int, Detections]:
    """What a source found, with calibrated scores."""
    return {image: calibration.apply(source, each) for image, each in found.items()}


def trust(truth: CocoSet, found: Found) -> Reliability:
    """How far the scores of a source may be taken at their word."""
    samples = _samples(truth, found)
    return reliability(samples.scores, samples.hits)


def _samples(truth: CocoSet, found: Found) -> Samples:
    parts = []
    for picture in truth.images:
        each = found[picture.id]
        true, counts = true_and_false(truth.objects[picture.id], each)
        parts.append(Samples(each.scores[counts], each.sides()[counts], true[counts]))
    return Samples(
        torch.cat([part.scores for part in parts]),
        torch.cat([part.sides for part in parts]),
        torch.cat([part.hits for part in parts]),
    )
