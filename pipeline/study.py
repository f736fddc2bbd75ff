"""The study itself: the same windows, the same detector, one arm for every way to enlarge.

Two protocols, never in one table. *native*: the pictures as they are; windows are enlarged.
*synthetic*: the pictures are first reduced by the project's one definition of low resolution, boxes
stay in original coordinates, and an arm "original" shows what perfect super-resolution would give.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from detection.boxes import Detections, Detector
from detection.coco import Evaluation, evaluate
from detection.crops import detect_full, detect_windows
from detection.merge import merge
from detection.truth import CocoSet, Objects, Picture, read_coco
from detection.windows import Window, WindowPlan, grid_windows, guided_windows
from pipeline.pictures import read_picture, to_float
from pipeline.progress import bar
from pipeline.upscalers import Upscaler
from sr_module.degrade import Degradation
from sr_module.resize import crop_to_multiple

Found = dict[int, Detections]
Form = Literal["native", "synthetic"]

NONE = "none"
"""The arm without windows: the detector sees the whole given picture once."""
ORIGINAL = "original"
"""The arm whose windows are cut from the original pictures: the ceiling of a synthetic study."""


@dataclass(frozen=True)
class Pictures:
    """The pictures of a study, with what is true of them, in the form that its arms are given.

    ``degradation`` is None in a native study.
    """

    truth: CocoSet
    paths: Mapping[int, Path]
    degradation: Degradation | None

    @property
    def reduction(self) -> int:
        """Original pixels per given pixel."""
        return self.degradation.scale if self.degradation else 1

    def original(self, image: int) -> Tensor:
        """``(3, H, W)`` in [0, 1], cut to a multiple of the reduction."""
        return crop_to_multiple(to_float(read_picture(self.paths[image])), self.reduction)

    def given(self, image: int) -> Tensor:
        """What an arm may see of a picture."""
        original = self.original(image)
        if self.degradation is None:
            return original
        # The noise of a picture is its own: the same in every arm and every run.
        noise = torch.Generator().manual_seed(image)
        return self.degradation(original[None], noise)[0]

    def each(self, form: Callable[[int], Tensor]) -> Iterator[tuple[int, Tensor]]:
        """Image id and picture, one read at a time."""
        return ((picture.id, form(picture.id)) for picture in self.truth.images)


@dataclass(frozen=True)
class Geometry:
    """How windows are laid and their results joined; sides in original pixels.

    Attributes:
        windows: "grid" covers the picture, "guided" only what the whole-picture pass left doubtful.
        window: side of a window.
        overlap: share that neighbouring grid windows share.
        budget: most guided windows of a picture.
        small: objects below this side are what guided windows look for.
        full: join each arm with the same whole-picture detections.
        small_below: windows speak for objects below this side.
        large_above: the whole picture speaks for objects above this side.
        border: boxes so near an inner window side are dropped as cut.
        iou: boxes of one class that overlap more are one object.
    """

    windows: Literal["grid", "guided"] = "grid"
    window: int = 192
    overlap: float = 0.25
    budget: int = 8
    small: float = 48.0
    full: bool = False
    small_below: float = 1e5
    large_above: float = 0.0
    border: float = 2.0
    iou: float = 0.55


@dataclass(frozen=True)
class ArmResult:
    """What one arm found, how good it is and what it cost."""

    name: str
    spec: str
    found: Found
    evaluation: Evaluation
    upscale_seconds: float
    detect_seconds: float
    megapixels: float
    """Enlarged pixels shown to the detector, in millions, over all pictures."""

    @property
    def seconds_per_picture(self) -> float:
        """Enlarging and detecting, without reading files."""
        return (self.upscale_seconds + self.detect_seconds) / len(self.evaluation.images)


def load_pictures(
    annotations: Sequence[Path],
    images: Sequence[Path],
    *,
    degradation: Degradation | None,
    limit: int | None,
) -> Pictures:
    """Reads COCO files, each with its picture folder, as one set.

    A picture that stands in two files (same name) counts once. Category ids must agree.

    Raises:
        ValueError: unequal numbers of files and folders, or files of different categories.
    """
    if len(annotations) != len(images):
        raise ValueError(
            f"{len(annotations)} annotation files and {len(images)} picture folders; give "
            "one folder for each file"
        )
    sets = [read_coco(a, images=i) for a, i in zip(annotations, images, strict=True)]
    for other in sets[1:]:
        if other.categories != sets[0].categories:
            raise ValueError(
                f"{other.path} and {sets[0].path} have different categories; a study needs one list"
            )
    pictures: list[Picture] = []
    objects: dict[int, Objects] = {}
    paths: dict[int, Path] = {}
    names: set[str] = set()
    for coco, folder in zip(sets, images, strict=True):
        for picture in coco.images:
            if picture.file_name in names:
                continue
            names.add(picture.file_name)
            number = len(pictures) + 1
            pictures.append(replace(picture, id=number))
            objects[number] = coco.objects[picture.id]
            paths[number] = folder / picture.file_name
    skipped = list(itertools.chain.from_iterable(coco.skipped for coco in sets))
    joined = CocoSet(sets[0].path, tuple(pictures), sets[0].categories, objects, skipped)
    if limit is not None:
        joined = joined.subset([picture.id for picture in pictures[:limit]])
    return Pictures(joined, paths, degradation)


@dataclass(frozen=True)
class Full:
    """The whole-picture pass, made once and shared by all arms."""

    found: Found
    seconds: float


def find_in_full(pictures: Pictures, detector: Detector) -> Full:
    """Detects in every whole given picture."""
    detecting = _Clock()
    with bar("whole pictures", len(pictures.truth.images)) as advance:
        found = detect_full(
            pictures.each(pictures.given),
            detecting.around(detector),  # type: ignore[arg-type]
            reduction=pictures.reduction,
            progress=advance,
        )
    return Full(found, detecting.seconds)


def plan_windows(pictures: Pictures, geometry: Geometry, full: Full) -> WindowPlan:
    """The windows that every arm uses, in original pixels, on the grid of given pixels."""
    plan: dict[int, tuple[Window, ...]] = {}
    for picture in pictures.truth.images:
        width = picture.width - picture.width % pictures.reduction
        height = picture.height - picture.height % pictures.reduction
        if geometry.windows == "grid":
            windows = grid_windows(
                width,
                height,
                size=geometry.window,
                overlap=geometry.overlap,
                multiple=pictures.reduction,
            )
        else:
            windows = guided_windows(
                full.found[picture.id],
                width,
                height,
                size=geometry.window,
                small=geometry.small,
                budget=geometry.budget,
                multiple=pictures.reduction,
            )
        plan[picture.id] = tuple(windows)
    return WindowPlan(plan)


class _Clock:
    """Counts the seconds spent inside a function."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.pixels = 0

    def around(self, function: Callable[..., object]) -> Callable[..., object]:
        def timed(*inputs: object) -> object:
            started = time.perf_counter()
            result = function(*inputs)
            self.seconds += time.perf_counter() - started
            if isinstance(result, Tensor):
                self.pixels += result.numel() // result.shape[1]
            return result

        return timed


def run_arm(
    name: str,
    spec: str,
    *,
    pictures: Pictures,
    plan: WindowPlan,
    geometry: Geometry,
    full: Full,
    upscaler: Upscaler | None,
    detector: Detector,
    batch_size: int,
) -> ArmResult:
    """One arm over all pictures.

    Args:
        name: of the arm.
        spec: "none", "original", or what ``upscaler`` was opened from.
        pictures: of the study.
        plan: windows that all arms share.
        geometry: of the study.
        full: the whole-picture pass that all arms share; its time counts where it is used.
        upscaler: what enlarges the windows; None for "none" and "original".
        detector: the same for all arms.
        batch_size: windows enlarged at once.
    """
    enlarging, detecting = _Clock(), _Clock()
    inside: Found = {}
    if spec != NONE:
        total = sum(len(windows) for windows in plan.windows.values())
        source, reduction = (
            (pictures.original, 1) if spec == ORIGINAL else (pictures.given, pictures.reduction)
        )
        with bar(f"arm {name}", total) as advance:
            inside = detect_windows(
                pictures.each(source),
                plan,
                enlarging.around(upscaler or _as_it_is),  # type: ignore[arg-type]
                detecting.around(detector),  # type: ignore[arg-type]
                scale=upscaler.scale if upscaler else 1,
                reduction=reduction,
                batch_size=batch_size,
                border=geometry.border,
                progress=advance,
            )
    found = {
        picture.id: _join(picture.id, inside, full.found, geometry, alone=spec == NONE)
        for picture in pictures.truth.images
    }
    whole = full.seconds if spec == NONE or geometry.full else 0.0
    return ArmResult(
        name,
        spec,
        found,
        evaluate(pictures.truth, found),
        upscale_seconds=enlarging.seconds,
        detect_seconds=detecting.seconds + whole,
        megapixels=enlarging.pixels / 1e6,
    )


def _as_it_is(windows: Tensor) -> Tensor:
    return windows


def _join(image: int, inside: Found, full: Found, geometry: Geometry, *, alone: bool) -> Detections:
    if alone:
        return merge(full[image], None, iou=geometry.iou)
    return merge(
        inside[image],
        full[image] if geometry.full else None,
        iou=geometry.iou,
        small_below=geometry.small_below if geometry.full else float("inf"),
        large_above=geometry.large_above if geometry.full else 0.0,
    )
