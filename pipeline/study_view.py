"""A finished study in the numbers and words that its report shows."""

import math
from collections.abc import Mapping
from typing import Any

from detection.coco import BINS, bin_name
from detection.errors import (
    false_positives_per_megapixel,
    transitions,
)
from detection.precision_recall import precision_curve
from detection.tide import KINDS
from detection.windows import Coverage
from pipeline.arms import ORIGINAL, shift_warnings
from pipeline.findings import SHOWN_SCORE, Findings, verdict
from pipeline.larger import unequal_times
from pipeline.report import (
    ArmView,
    BinView,
    ErrorView,
    GainView,
    GalleryRow,
    StudyView,
    TableView,
    TrustView,
)
from pipeline.study import ArmResult
from pipeline.study_tables import (
    finetuned_table,
    larger_table,
    objects_table,
    study_tables,
    trust_table,
)
from pipeline.tracking import flatten

SHOWN_DETECTIONS = 10
"""A share of true detections among fewer is no point of a reliability diagram."""


def study_view(study: Findings, gallery: list[GalleryRow]) -> StudyView:
    """The report's content."""
    count = len(study.pictures.truth.images)
    arms = [
        ArmView(
            a.name, a.name, a.metrics, a.seconds_per_picture, a.megapixels / count,
            ceiling=a.spec == ORIGINAL,
        )
        for a in study.arms
    ]  # fmt: skip
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
        gallery=gallery,
        training=study.training,
        settings=flatten(_listed(study.settings)),
        notes=_notes(study),
        warnings=[
            *_seen_warnings(study),
            *shift_warnings(study.moved),
            *unequal_times(study.larger, {a.name: a.seconds_per_picture for a in study.arms}),
        ],
        tables=_tables(study),
        trust=_trust(study),
        errors=[
            ErrorView(name, kind, errors.gains[kind])
            for name, errors in study.measures.errors.items()
            for kind in KINDS
        ],
        precision={
            arm.name: tuple(precision_curve(arm.evaluation.matches["all"]).tolist())
            for arm in study.arms
        },
        upper_bound=study.plan.oracle,
    )


def _seen_warnings(study: Findings) -> list[str]:
    count = len(study.pictures.truth.images)
    return [
        f"{name} learnt from {number} of the {count} pictures of this study, or from frames right "
        f"beside them: its numbers are no test. Take other pictures, or train on others."
        for name, number in study.seen.items()
        if number
    ]


def _listed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with lists as a person writes them."""
    return {
        key: ", ".join(map(str, value)) if isinstance(value, list) else value
        for key, value in settings.items()
    }


def _tables(study: Findings) -> list[TableView]:
    tables = study_tables(study.measures, study.moved, reference=study.reference)
    tables.append(objects_table(study.changes, study.invented))
    if study.larger:
        tables.insert(0, larger_table(study.arms, study.measures, study.larger))
    if study.finetuned is not None:
        tables.insert(0, finetuned_table(study.finetuned.arms, study.finetuned.measures))
    trust = trust_table({arm.name: arm.trust for arm in study.arms})
    return [*tables, trust] if trust.rows else tables


def _trust(study: Findings) -> list[TrustView]:
    return [
        TrustView(
            arm.name,
            source,
            calibrated,
            tuple(
                (confidence, precision)
                for confidence, precision, count in zip(
                    each.confidence, each.precision, each.count, strict=True
                )
                if count >= SHOWN_DETECTIONS
            ),
        )
        for arm in study.arms
        for source, both in arm.trust.items()
        for calibrated, each in zip((False, True), both, strict=True)
    ]


def _protocol(study: Findings) -> str:
    pictures = study.pictures
    count, objects = len(pictures.truth.images), sum(len(b) for b in pictures.truth.boxes.values())
    if pictures.degradation is None:
        form = "native protocol: the pictures as they are"
    else:
        times = pictures.reduction
        form = f"synthetic protocol: pictures reduced {times} times by antialiased bicubic"
    if aside := study.settings["pictures"] - count:
        form += f"; {aside} pictures set aside to calibrate scores on"
    return (
        f"{form}; {count} pictures, {objects} objects; COCO evaluation in original pixels; "
        f"{study.settings['statistics']['resamples']} paired bootstrap resamples over "
        f"{_drawn(study)}."
    )


def _drawn(study: Findings) -> str:
    """What the bootstrap draws."""
    units = next((gain.units for gain in study.gains if gain.units), 0)
    return "pictures" if units in (0, len(study.pictures.truth.images)) else f"{units} scenes"


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
        **_ceiling(covered),
        "small objects": str(covered.small_objects),
        "windows per picture": f"{covered.windows_per_image:.1f}",
        "original megapixels inside windows": f"{covered.megapixels:.1f}",
    }


def _ceiling(covered: Coverage) -> dict[str, str]:
    if math.isnan(covered.ceiling) or covered.ceiling == covered.share:
        return {}
    what = "... or found without one (the greatest recall that an arm can have)"
    return {what: f"{100 * covered.ceiling:.1f} %"}


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
    for arm in study.arms:
        if arm.calibration and arm.calibration.fallbacks:
            notes.append(
                f"Calibration of {arm.name}: too few detections were set aside for "
                f"{len(arm.calibration.fallbacks)} of its curves, the first: "
                f"{arm.calibration.fallbacks[0]}."
            )
    if truth.skipped:
        notes.append(
            f"{len(truth.skipped)} annotations were left out or mended, the first: "
            f"{truth.skipped[0]}"
        )
    return notes
