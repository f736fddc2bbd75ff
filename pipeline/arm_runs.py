"""One arm of a study over all pictures: looked at, calibrated, merged, evaluated."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import torch

from detection.boxes import Detections, Detector
from detection.calibration import Reliability
from detection.coco import MAX_DETECTIONS, evaluate
from detection.group import Merge
from detection.ignored import outside_regions
from detection.merge import fuse
from pipeline.arms import LARGER, NONE, ORIGINAL, identity, is_larger
from pipeline.calibrating import WHOLE, WINDOWS, apply, calibrated, chosen_merge, trust
from pipeline.kept import Sight
from pipeline.look import Look, Looking, Opener, look_at_all
from pipeline.study import ArmResult, Found, Pictures, Split
from pipeline.study_settings import Join
from pipeline.upscalers import Upscaler


@dataclass(frozen=True)
class Rules:
    """How every arm of a study is run.

    ``batch_size``: windows enlarged at once; ``max_detections``: the best so many of a picture
    count, over all categories, in every arm; ``looking``: how the pictures are looked at;
    ``zooms``: what each arm of larger pictures, by its words, enlarges them by; ``calibrate``,
    ``tune``: what is learnt on pictures set aside, where there are any.
    """

    detector: Detector
    join: Join
    merge: Merge
    batch_size: int = 16
    max_detections: int = MAX_DETECTIONS
    looking: Looking = field(default_factory=Looking)
    zooms: Mapping[str, float] = field(default_factory=dict)
    calibrate: bool = True
    tune: bool = False


def run_arm(
    name: str,
    spec: str,
    *,
    split: Split,
    rules: Rules,
    upscaler: Upscaler | None,
    held: Split | None = None,
    again: Opener | None = None,
) -> ArmResult:
    """One arm over all pictures.

    Args:
        name: of the arm.
        spec: "none", "original", "crops", a larger picture, or what ``upscaler`` was opened from.
        split: the pictures that are evaluated; the time of the first look counts where it is used.
        rules: of the study.
        upscaler: what enlarges the windows; None where nothing does.
        held: other pictures, on which scores are calibrated; None leaves scores as they are.
        again: opens the detector and the upscaler in a worker.
    """
    look = partial(_look, spec=spec, rules=rules, upscaler=upscaler, again=again)
    sight, sources = look(f"arm {name}", split=split)
    calibration, trusted, tuned = None, {}, None
    if held is not None and (rules.calibrate or rules.tune):
        _, seen = look(f"arm {name}, to calibrate", split=held)
        # what lies where nothing was annotated is neither true nor false
        seen = {key: outside_regions(f, held.pictures.regions) for key, f in seen.items()}
        if rules.calibrate:
            calibration = calibrated(held.truth, seen)
            raw, sources = sources, {key: apply(calibration, key, f) for key, f in sources.items()}
            seen = {key: apply(calibration, key, f) for key, f in seen.items()}
            trusted = {key: (_trust(split, raw[key]), _trust(split, sources[key])) for key in raw}
        if rules.tune:
            unmerged = {p.id: _joined(p.id, seen, rules.join) for p in held.truth.images}
            tuned = chosen_merge(held.truth, unmerged, name)
    merge = tuned.best if tuned else rules.merge
    joined = {p.id: _joined(p.id, sources, rules.join) for p in split.truth.images}
    found = _counted(joined, merge, split.pictures, rules.max_detections)
    return ArmResult(
        name,
        spec,
        found,
        evaluate(split.truth, found, max_detections=rules.max_detections),
        upscale_seconds=sight.enlarging,
        detect_seconds=sight.detecting + (split.full.seconds if _shares_look(spec, sources) else 0),
        megapixels=sight.pixels / 1e6,
        calibration=calibration,
        merge=tuned,
        trust=trusted,
    )


def _trust(split: Split, found: Found) -> Reliability:
    return trust(split.truth, outside_regions(found, split.pictures.regions))


def _counted(joined: Found, merge: Merge, pictures: Pictures, limit: int) -> Found:
    """What is left of detections after merging: the best, of those that no region takes."""
    merged = {i: fuse(each, merge, max_detections=None) for i, each in joined.items()}
    left = outside_regions(merged, pictures.regions)
    return {i: each.select(torch.arange(min(limit, len(each)))) for i, each in left.items()}


def _shares_look(spec: str, sources: Mapping[str, Found]) -> bool:
    return WHOLE in sources and not is_larger(spec)


def _look(
    title: str,
    *,
    spec: str,
    split: Split,
    rules: Rules,
    upscaler: Upscaler | None,
    again: Opener | None,
) -> tuple[Sight, dict[str, Found]]:
    """What the sources of an arm found, not merged, and what its windows took."""
    if spec == NONE:
        return Sight({}), {WHOLE: split.full.found}
    if is_larger(spec):  # two that enlarge by one factor see the same, for whatever reason
        sight = look_at_all(
            Look(split.pictures, None, 1, zoom=rules.zooms[spec]), (rules.detector, None),
            rules.looking, title=title, spec=LARGER, again=again,
        )  # fmt: skip
        return sight, {WHOLE: {image: seen.found for image, seen in sight.seen.items()}}
    look = Look(split.pictures, split.plan, rules.batch_size, original=spec == ORIGINAL)
    # Of a network that trains there is no file, and nothing of what it sees is kept.
    kept_as = identity(spec) if rules.looking.folder else spec
    sight = look_at_all(
        look, (rules.detector, upscaler), rules.looking, title=title, spec=kept_as, again=again
    )  # fmt: skip
    inside = {image: rules.join.cut.apply(each) for image, each in sight.seen.items()}
    return sight, {WINDOWS: inside} | ({WHOLE: split.full.found} if rules.join.full else {})


def _joined(image: int, sources: Mapping[str, Found], join: Join) -> Detections:
    """What counts of both sources; the whole picture alone where there are no windows."""
    if WINDOWS not in sources:
        return sources[WHOLE][image]
    full = sources[WHOLE][image] if WHOLE in sources else None
    return join.gate.join(sources[WINDOWS][image], full)
