"""Scores made to mean the same in windows and whole pictures, learnt on pictures set aside."""

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
from detection.truth import CocoSet

Found = Mapping[int, Detections]
WINDOWS, WHOLE = "windows", "whole picture"
"""The two sources of detections."""


def set_aside(images: Sequence[int], share: float, *, seed: int) -> tuple[list[int], list[int]]:
    """The image ids to evaluate, and a random share to calibrate on, which are never evaluated.

    Raises:
        ValueError: a share that leaves either side without a picture.
    """
    count = round(share * len(images))
    if not 0 < count < len(images):
        raise ValueError(
            f"calibrate_on {share:g} of {len(images)} pictures sets {count} aside; both the "
            f"pictures that scores are calibrated on and those evaluated must be at least one"
        )
    held = set(random.Random(seed).sample(list(images), count))
    return [image for image in images if image not in held], sorted(held)


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
