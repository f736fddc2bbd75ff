"""The gallery of a study: windows and objects at which arms differ most, each seen by the arms."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from detection.errors import false_boxes, found_objects
from detection.windows import Window
from pipeline.arms import ORIGINAL
from pipeline.findings import SHOWN_SCORE, Findings
from pipeline.report import GalleryRow
from pipeline.shown import middles_inside, shown
from pipeline.study import ArmResult

SHOWN_SIDE = 64
"""Original pixels a side that the picture of an object shows at least."""


def gallery(study: Findings, *, each: int = 3) -> list[GalleryRow]:
    """The best and the worst windows of a network against the reference, then single objects.

    The network is the one of the best AP, the last of equal ones. At most one row a picture and
    kind; where nothing changed, the smallest objects are shown.
    """
    if not study.networks:
        return []
    by_name = {arm.name: arm for arm in study.arms}
    network = max(reversed(study.networks), key=lambda name: by_name[name].metrics["AP"])
    was, now = by_name[study.reference], by_name[network]
    return [*_windows(study, was, now, each), *_objects(study, was, now, each)]


def _windows(study: Findings, was: ArmResult, now: ArmResult, each: int) -> list[GalleryRow]:
    """Windows in which the most was won, then those in which the most was lost."""
    changes = sorted(_changes(study, was, now), key=lambda row: row[0])
    original = [arm.name for arm in study.arms if arm.spec == ORIGINAL]
    rows = []
    for kind, ranked in (("best", reversed(changes)), ("worst", iter(changes))):
        pictures: set[int] = set()
        for change, image, window, told in ranked:
            if len(pictures) == each or (change <= 0 if kind == "best" else change >= 0):
                break
            if image not in pictures:
                pictures.add(image)
                name = Path(study.pictures.paths[image]).name
                title = f"{kind} windows of {now.name}, in {name}: {told} than with {was.name}"
                rows.append(shown(study, image, window, title, [was.name, now.name, *original]))
    return rows


def _changes(study: Findings, was: ArmResult, now: ArmResult) -> list[tuple[int, int, Window, str]]:
    """Every window: objects more, less false boxes more; the picture, the window, in words."""
    truth = study.pictures.truth
    hits = [found_objects(truth, arm.found, score=SHOWN_SCORE) for arm in (was, now)]
    false = [false_boxes(truth, arm.found, score=SHOWN_SCORE) for arm in (was, now)]
    rows = []
    for image, windows in study.plan.windows.items():
        objects = truth.objects[image]
        for window in windows:
            inside = middles_inside(objects.boxes, window)
            found = [int((hit[image] & inside).sum()) for hit in hits]
            wrong = [int(middles_inside(each[image], window).sum()) for each in false]
            more, worse = found[1] - found[0], wrong[1] - wrong[0]
            told = [_counted(more, "object", "s"), _counted(worse, "false box", "es")]
            rows.append((more - worse, image, window, " and ".join(filter(None, told))))
    return rows


def _counted(change: int, what: str, plural: str) -> str:
    """In words, nothing where nothing changed."""
    if not change:
        return ""
    ending = plural if abs(change) > 1 else ""
    return f"{abs(change)} {what}{ending} {'more' if change > 0 else 'fewer'}"


def _objects(study: Findings, was: ArmResult, now: ArmResult, each: int) -> list[GalleryRow]:
    """Objects that the network found and the reference missed, and the other way round."""
    before, after = (
        found_objects(study.pictures.truth, arm.found, score=SHOWN_SCORE) for arm in (was, now)
    )
    kinds = {
        f"found by {now.name}, missed by {was.name}": {i: after[i] & ~before[i] for i in after},
        f"missed by {now.name}, found by {was.name}": {i: before[i] & ~after[i] for i in after},
        "the smallest": {i: torch.ones_like(after[i]) for i in after},
    }
    rows: list[GalleryRow] = []
    for title, chosen in kinds.items():
        if title == "the smallest" and rows:
            break
        rows += [
            _object(study, image, box, title) for image, box in _smallest(study, chosen)[:each]
        ]
    return rows


def _object(study: Findings, image: int, box: Tensor, title: str) -> GalleryRow:
    """An object as all arms see it."""
    names = study.pictures.truth.categories
    objects = study.pictures.truth.objects[image]
    label = names[int(objects.labels[(objects.boxes == box).all(dim=1)][0])]
    side = float((box[2:] - box[:2]).prod().sqrt())
    title = f"{label} of {side:.0f} px in {Path(study.pictures.paths[image]).name}: {title}"
    others = [arm for arm in study.arms if arm.name != study.reference]
    arms = [study.reference, *(a.name for a in sorted(others, key=lambda a: a.spec == ORIGINAL))]
    return shown(study, image, _region(study, image, box), title, arms)


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
