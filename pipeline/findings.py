"""A finished study in the words and pictures that a reader sees."""

import re
from collections.abc import Mapping, Sequence
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
    if ceiling is None or ceiling.low <= 0:
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
        form = f"synthetic protocol: pictures reduced {pictures.reduction} times by antialiased bicubic"
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
        "small objects inside a window (no upscaler can mend the others)": f"{100 * covered.share:.1f} %",
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
            f"{name} against {study.reference} at score {SHOWN_SCORE}: {rows[0].found} objects newly found, "
            f"{rows[0].lost} newly missed, {rows[0].both} found by both, {rows[0].neither} by neither; "
            f"false boxes per megapixel {before:.1f} -> {after:.1f}."
        )
    if truth.skipped:
        notes.append(
            f"{len(truth.skipped)} annotations were left out or mended, the first: {truth.skipped[0]}"
        )
    return notes


def gallery(study: Findings, *, rows: int = 3) -> list[GalleryRow]:
    """The windows in which the first network won and lost the most objects against the reference."""
    if not study.networks:
        return []
    changes = _changes(study, study.networks[-1])
    best = [c for c in sorted(changes, key=lambda c: -c[0])[:rows] if c[0] > 0]
    worst = [c for c in sorted(changes, key=lambda c: c[0])[:rows] if c[0] < 0]
    chosen = best + worst or sorted(changes, key=lambda c: -c[1])[:rows]
    return [_gallery_row(study, image, window, change) for change, _, image, window in chosen]


Change = tuple[int, int, int, Window]
"""Objects won less objects lost, objects, image id, window."""


def _changes(study: Findings, name: str) -> list[Change]:
    by_name = {arm.name: arm for arm in study.arms}
    truth = study.pictures.truth
    was, now = (
        found_objects(truth, by_name[n].found, score=SHOWN_SCORE) for n in (study.reference, name)
    )
    changes = []
    for image, windows in study.plan.windows.items():
        boxes = truth.objects[image].boxes
        for window in windows:
            inside = _inside(boxes, window)
            change = int((now[image] & inside).sum()) - int((was[image] & inside).sum())
            changes.append((change, int(inside.sum()), image, window))
    return changes


def _inside(boxes: Tensor, window: Window) -> Tensor:
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    low = torch.tensor([window.x, window.y])
    high = torch.tensor([window.x + window.width, window.y + window.height])
    return ((middle >= low) & (middle < high)).all(dim=1)


def _gallery_row(study: Findings, image: int, window: Window, change: int) -> GalleryRow:
    """LR | each arm's picture with its boxes | original, all at the original's size."""
    pictures = study.pictures
    r = pictures.reduction
    given = pictures.given(image)[
        :,
        window.y // r : (window.y + window.height) // r,
        window.x // r : (window.x + window.width) // r,
    ]
    truth = _local(pictures.truth.boxes[image], window)
    size = (window.height, window.width)
    tiles = [Tile("given", to_uint8(F.interpolate(given[None], size=size)[0]), truth)]
    for arm in study.arms:
        if arm.spec == NONE:
            continue
        shown = _shown(study, arm, given, image, window)
        found = _confident(arm.found[image], window)
        tiles.append(Tile(arm.name, to_uint8(shown), truth, found))
    name = Path(pictures.paths[image]).name
    sign = f"{abs(change)} objects {'won' if change > 0 else 'lost'}" if change else "no change"
    return GalleryRow(f"{name}, window at {window.x}, {window.y}: {sign}", tiles)


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
