"""A finished study in the words and pictures that a reader sees."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from detection.boxes import Detections
from detection.coco import BINS, bin_name
from detection.errors import false_positives_per_megapixel, found_objects, transitions
from detection.gain import Gain
from detection.windows import Coverage, Window, WindowPlan
from pipeline.pictures import to_uint8
from pipeline.report import ArmView, BinView, CurveView, GainView, GalleryRow, StudyView, Tile
from pipeline.study import NONE, ORIGINAL, ArmResult, Pictures
from pipeline.upscalers import KERNELS, Upscaler

SHOWN_SCORE = 0.3
"""Detections below it would only clutter a picture."""
SHOWN_SIDE = 64
"""Original pixels a side that a gallery picture shows at least."""


@dataclass(frozen=True)
class Findings:
    """Everything a study found."""

    title: str
    pictures: Pictures
    plan: WindowPlan
    arms: list[ArmResult]
    gains: list[Gain]
    coverage: Coverage
    reference: str
    upscalers: Mapping[str, Upscaler | None]
    settings: Mapping[str, Any]
    training: list[CurveView] = field(default_factory=list)

    @property
    def networks(self) -> list[str]:
        """Names of the arms that are super-resolution."""
        return [arm.name for arm in self.arms if arm.spec not in (NONE, ORIGINAL, *KERNELS)]

    def gain(self, arm: str, metric: str) -> Gain | None:
        """The gain of an arm, where it was measured."""
        return next((g for g in self.gains if (g.arm, g.metric) == (arm, metric)), None)


def verdict(study: Findings) -> str:
    """What the study says, one clause for each super-resolution arm."""
    clauses = [_clause(study, name) for name in study.networks]
    if not clauses:
        return "No super-resolution arm was measured."
    return f"Against {study.reference} at the same geometry: {'; '.join(clauses)}."


def _clause(study: Findings, name: str) -> str:
    gain = study.gain(name, "AP")
    if gain is None:
        return f"{name} was not measured"
    says = {"helps": "helps", "hurts": "hurts", "inconclusive": "is inconclusive"}[gain.verdict]
    interval = f"95 % interval {100 * gain.low:+.1f} to {100 * gain.high:+.1f}"
    clause = f"{name} {says}, AP {100 * gain.difference:+.1f} points ({interval})"
    return clause + _recovered(study, gain)


def _recovered(study: Findings, gain: Gain) -> str:
    """The share of what perfect super-resolution would give, where that is anything."""
    oracle = next((arm.name for arm in study.arms if arm.spec == ORIGINAL), None)
    ceiling = study.gain(oracle, "AP") if oracle else None
    if ceiling is None or ceiling.low <= 0 or gain.difference <= 0:
        return ""
    return (
        f", {100 * gain.difference / ceiling.difference:.0f} % of what the original pictures give"
    )


def study_view(study: Findings) -> StudyView:
    """The report's content."""
    count = len(study.pictures.truth.images)
    arms = [
        ArmView(a.name, a.name, a.evaluation.metrics, a.seconds_per_picture, a.megapixels / count)
        for a in study.arms
    ]
    gains = [GainView(g.arm, g.metric, g.difference, g.low, g.high, g.verdict) for g in study.gains]
    return StudyView(
        title=study.title,
        verdict=verdict(study),
        protocol=_protocol(study),
        reference=study.reference,
        arms=arms,
        gains=gains,
        curve=[view for arm in study.arms for view in _curve(study, arm)],
        coverage=_coverage(study.coverage),
        costs=_costs(study),
        gallery=gallery(study),
        training=study.training,
        settings={str(key): str(value) for key, value in study.settings.items()},
        notes=_notes(study),
    )


def _protocol(study: Findings) -> str:
    pictures = study.pictures
    count, objects = len(pictures.truth.images), sum(len(b) for b in pictures.truth.boxes.values())
    if pictures.degradation is None:
        form = "native protocol: the pictures as they are"
    else:
        times = pictures.reduction
        form = f"synthetic protocol: pictures reduced {times} times by antialiased bicubic"
    return (
        f"{form}; {count} pictures, {objects} objects; COCO evaluation in original pixels; "
        f"{study.settings['resamples']} paired bootstrap resamples over pictures."
    )


def _curve(study: Findings, arm: ArmResult) -> list[BinView]:
    if arm.name == study.reference:
        return []
    points = []
    for low, high in BINS:
        name = bin_name(low, high)
        gain = study.gain(arm.name, f"AP_{name}")
        if gain is not None and gain.objects:
            points.append(
                BinView(
                    arm.name,
                    low,
                    high,
                    gain.objects,
                    gain.value,
                    gain.difference,
                    gain.low,
                    gain.high,
                )
            )
    return points


def _coverage(covered: Coverage) -> dict[str, str]:
    return {
        "small objects inside a window (the others no upscaler can mend)": (
            f"{100 * covered.share:.1f} %"
        ),
        "small objects": str(covered.small_objects),
        "windows per picture": f"{covered.windows_per_image:.1f}",
        "original megapixels inside windows": f"{covered.megapixels:.1f}",
    }


def _costs(study: Findings) -> dict[str, str]:
    count = len(study.pictures.truth.images)
    costs = {}
    for arm in study.arms:
        upscaler = study.upscalers[arm.name]
        size = f", {upscaler.parameters:,} parameters" if upscaler and upscaler.parameters else ""
        costs[arm.name] = (
            f"{1e3 * arm.upscale_seconds / count:.1f} ms enlarging + "
            f"{1e3 * arm.detect_seconds / count:.1f} ms detecting a picture{size}"
        )
    return costs


def _notes(study: Findings) -> list[str]:
    """What changed object by object, and what a reader must know."""
    by_name = {arm.name: arm for arm in study.arms}
    truth, reference = study.pictures.truth, by_name[study.reference]
    notes = []
    for name in study.networks:
        rows = transitions(
            truth, reference.found, by_name[name].found, bins=[(0, 1e5)], score=SHOWN_SCORE
        )
        before, after = (
            false_positives_per_megapixel(truth, by_name[n].found, score=SHOWN_SCORE)
            for n in (study.reference, name)
        )
        notes.append(
            f"{name} against {study.reference} at score {SHOWN_SCORE}: "
            f"{rows[0].found} objects newly found, {rows[0].lost} newly missed, "
            f"{rows[0].both} found by both, {rows[0].neither} by neither; "
            f"false boxes per megapixel {before:.1f} -> {after:.1f}."
        )
    if truth.skipped:
        notes.append(
            f"{len(truth.skipped)} annotations were left out or mended, the first: "
            f"{truth.skipped[0]}"
        )
    return notes


def gallery(study: Findings, *, each: int = 3) -> list[GalleryRow]:
    """Objects that the last network found and the reference missed, and the other way round.

    At most one row a picture and kind; where nothing changed, the smallest objects.
    """
    if not study.networks:
        return []
    name = study.networks[-1]
    by_name = {arm.name: arm for arm in study.arms}
    truth = study.pictures.truth
    was, now = (
        found_objects(truth, by_name[n].found, score=SHOWN_SCORE) for n in (study.reference, name)
    )
    kinds = {
        f"found by {name}, missed by {study.reference}": {i: now[i] & ~was[i] for i in now},
        f"missed by {name}, found by {study.reference}": {i: was[i] & ~now[i] for i in now},
        "the smallest": {i: torch.ones_like(now[i]) for i in now},
    }
    rows: list[GalleryRow] = []
    for title, chosen in kinds.items():
        if title == "the smallest" and rows:
            break
        rows += [
            _gallery_row(study, image, box, title) for image, box in _smallest(study, chosen)[:each]
        ]
    return rows


def _smallest(study: Findings, chosen: Mapping[int, Tensor]) -> list[tuple[int, Tensor]]:
    """The smallest chosen object of each picture, smallest first, as image id and box ``(4,)``."""
    picked = []
    for image, mask in chosen.items():
        objects = study.pictures.truth.objects[image]
        boxes, sizes = objects.boxes[mask], objects.areas[mask]
        if len(boxes):
            picked.append((float(sizes.min()), image, boxes[sizes.argmin()]))
    return [(image, box) for _, image, box in sorted(picked, key=lambda row: row[:2])]


def _region(study: Findings, image: int, box: Tensor) -> Window:
    """A square around a box, wide enough to see what it is, on whole given pixels."""
    r = study.pictures.reduction
    height, width = study.pictures.original(image).shape[-2:]
    side = int(max(SHOWN_SIDE, 2 * float((box[2:] - box[:2]).max())))
    wide, high = (min(side, length) // r * r for length in (width, height))
    x, y = (
        int(min(max(0.0, float(middle) - length / 2), limit - length)) // r * r
        for middle, length, limit in zip(
            (box[:2] + box[2:]) / 2, (wide, high), (width, height), strict=True
        )
    )
    return Window(x, y, wide, high)


def _inside(boxes: Tensor, window: Window) -> Tensor:
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    low = torch.tensor([window.x, window.y])
    high = torch.tensor([window.x + window.width, window.y + window.height])
    return ((middle >= low) & (middle < high)).all(dim=1)


def _gallery_row(study: Findings, image: int, box: Tensor, title: str) -> GalleryRow:
    """Given | each arm's picture with its boxes | original, all at the original's size."""
    pictures, window = study.pictures, _region(study, image, box)
    r = pictures.reduction
    rows = slice(window.y // r, (window.y + window.height) // r)
    columns = slice(window.x // r, (window.x + window.width) // r)
    given = pictures.given(image)[:, rows, columns]
    truth = _local(pictures.truth.boxes[image], window)
    size = (window.height, window.width)
    tiles = [Tile("given", to_uint8(F.interpolate(given[None], size=size)[0]), truth)]
    for arm in study.arms:
        if arm.spec != NONE:
            found = _confident(arm.found[image], window)
            tiles.append(
                Tile(arm.name, to_uint8(_shown(study, arm, given, image, window)), truth, found)
            )
    names = pictures.truth.categories
    objects = pictures.truth.objects[image]
    label = names[int(objects.labels[(objects.boxes == box).all(dim=1)][0])]
    side = float((box[2:] - box[:2]).prod().sqrt())
    name = Path(pictures.paths[image]).name
    return GalleryRow(f"{label} of {side:.0f} px in {name}: {title}", tiles)


def _shown(study: Findings, arm: ArmResult, given: Tensor, image: int, window: Window) -> Tensor:
    """What the arm's detector saw, at the size of the window's original pixels."""
    if arm.spec == ORIGINAL:
        rows = slice(window.y, window.y + window.height)
        return study.pictures.original(image)[:, rows, window.x : window.x + window.width]
    upscaler = study.upscalers[arm.name]
    assert upscaler is not None
    enlarged = upscaler(given[None])
    return F.interpolate(enlarged, size=(window.height, window.width), mode="area")[0]


def _local(boxes: Tensor, window: Window) -> Tensor:
    kept = boxes[_inside(boxes, window)]
    return kept - kept.new_tensor([window.x, window.y, window.x, window.y])


def _confident(found: Detections, window: Window) -> Tensor:
    return _local(found.boxes[found.scores >= SHOWN_SCORE], window)


def file_name(name: str) -> str:
    """An arm's name as part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", name)
