"""The study itself: the same windows, the same detector, one arm for every way to enlarge.

Two protocols, never in one table. *native*: the pictures as they are; windows are enlarged.
*synthetic*: the pictures are first reduced by the project's one definition of low resolution, boxes
stay in original coordinates, and an arm "original" shows what perfect super-resolution would give.
"""

import filecmp
import functools
import hashlib
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from detection.boxes import Detections, Detector
from detection.calibration import Calibration, Reliability
from detection.coco import Evaluation
from detection.crops import Pixels
from detection.ignored import split_ignored
from detection.merge_tuning import TunedMerge
from detection.truth import CocoSet, Objects, Picture, read_coco
from detection.windows import WindowPlan
from pipeline import vast
from pipeline.annotated import check_annotated
from pipeline.fingerprints import alike, fingerprint
from pipeline.look import Look, Looking, Opener, look_at_all
from pipeline.pictures import read_picture, to_float
from pipeline.vast import open_vast
from sr_module.degrade import AnyDegradation
from sr_module.resize import crop_to_multiple

logger = logging.getLogger(__name__)

Found = dict[int, Detections]

IGNORED = "ignored regions"
"""VisDrone's word for regions in which nothing was annotated, as ``srdet convert`` writes it."""


@dataclass(frozen=True)
class Pictures:
    """The pictures of a study, with what is true of them, in the form that its arms are given.

    ``degradation`` is None in a native study. ``regions`` ``(R, 4)`` of an image are those in which
    nothing was annotated: what is found there counts in no arm.
    """

    truth: CocoSet
    paths: Mapping[int, Path]
    degradation: AnyDegradation | None
    regions: Mapping[int, Tensor] = field(default_factory=dict)

    @property
    def reduction(self) -> int:
        """Original pixels per given pixel."""
        return self.degradation.scale if self.degradation else 1

    @property
    def digest(self) -> str:
        """SHA-256 over names, sizes and dates of the files, and over what is done to them."""
        rows = [repr(self.degradation)]
        for picture in self.truth.images:
            said = self.paths[picture.id].stat()
            rows.append(f"{picture.id} {picture.file_name} {said.st_size} {said.st_mtime_ns}")
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()

    def vast(self, image: int) -> bool:
        """Whether a picture is too large to be read at once."""
        return self._sizes[image] > vast.PIXELS

    def original(self, image: int) -> Pixels:
        """``(3, H, W)`` in [0, 1], cut to a multiple of the reduction."""
        if self.vast(image):
            return open_vast(self.paths[image], self.reduction, None)
        return self._whole(image)

    def _whole(self, image: int) -> Tensor:
        return crop_to_multiple(to_float(read_picture(self.paths[image])), self.reduction)

    def given(self, image: int) -> Pixels:
        """What an arm may see of a picture."""
        if self.vast(image):
            return open_vast(self.paths[image], self.reduction, self.degradation)
        original = self._whole(image)
        if self.degradation is None:
            return original
        # The noise of a picture is its own: the same in every arm and every run.
        noise = torch.Generator().manual_seed(image)
        return self.degradation(original[None], noise)[0]

    def only(self, images: Sequence[int]) -> "Pictures":
        """The same pictures restricted to some image ids."""
        return replace(self, truth=self.truth.subset(images))

    @functools.cached_property
    def _sizes(self) -> dict[int, int]:
        return {picture.id: picture.width * picture.height for picture in self.truth.images}

    def each(self, form: Callable[[int], Pixels]) -> Iterator[tuple[int, Pixels]]:
        """Image id and picture, one read at a time."""
        return ((picture.id, form(picture.id)) for picture in self.truth.images)


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
    calibration: Calibration | None = None
    merge: TunedMerge | None = None
    """How its detections were merged, where that was tuned."""
    others: tuple["ArmResult", ...] = ()
    """Further trainings of the same arm."""
    trust: Mapping[str, tuple[Reliability, Reliability]] = field(default_factory=dict)
    """Source to how far its scores can be believed in the evaluated pictures: raw, calibrated."""

    @property
    def evaluations(self) -> list[Evaluation]:
        """Of each of its trainings."""
        return [self.evaluation, *(other.evaluation for other in self.others)]

    @property
    def metrics(self) -> dict[str, float]:
        """Means over its trainings."""
        each = [evaluation.metrics for evaluation in self.evaluations]
        return {name: sum(m[name] for m in each) / len(each) for name in each[0]}

    @property
    def seconds_per_picture(self) -> float:
        """Enlarging and detecting, without reading files."""
        return (self.upscale_seconds + self.detect_seconds) / len(self.evaluation.images)


def load_pictures(
    annotations: Sequence[Path],
    images: Sequence[Path],
    *,
    degradation: AnyDegradation | None,
    limit: int | None,
    ignored: Sequence[str] | None = None,
) -> Pictures:
    """Reads COCO files, each with its picture folder, as one set.

    A picture that stands in two files (same name) counts once. Category ids must agree. Categories
    ``ignored`` become regions in which nothing was annotated; None means ``IGNORED``, where the
    files have it.

    Raises:
        ValueError: unequal numbers of files and folders, files of different categories, or pictures
            of another size than is annotated.
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
    joined, paths = _join(sets, images)
    if limit is not None:
        joined = joined.subset([picture.id for picture in joined.images[:limit]])
    check_annotated([(paths[p.id], (p.width, p.height)) for p in joined.images])
    if told := joined.skipped:
        logger.warning("%d annotations left out or mended, the first: %s", len(told), told[0])
    joined, regions = _split_ignored(joined, ignored)
    return Pictures(joined, paths, degradation, regions)


def _join(sets: Sequence[CocoSet], images: Sequence[Path]) -> tuple[CocoSet, dict[int, Path]]:
    """One set of several, its pictures numbered anew, and where they are."""
    pictures: list[Picture] = []
    objects: dict[int, Objects] = {}
    paths: dict[int, Path] = {}
    places: dict[str, Path] = {}
    for coco, folder in zip(sets, images, strict=True):
        _refuse_twins(coco)
        for picture in coco.images:
            place = folder / picture.file_name
            if (there := places.setdefault(picture.file_name, place)) != place:
                _refuse_namesakes(there, place)
                continue
            number = len(pictures) + 1
            pictures.append(replace(picture, id=number))
            objects[number] = coco.objects[picture.id]
            paths[number] = place
    skipped = list(itertools.chain.from_iterable(coco.skipped for coco in sets))
    return CocoSet(sets[0].path, tuple(pictures), sets[0].categories, objects, skipped), paths


def _refuse_twins(coco: CocoSet) -> None:
    """Of two entries of one file either would lack the other's objects."""
    counts = Counter(picture.file_name for picture in coco.images)
    name, times = counts.most_common(1)[0]
    if times > 1:
        raise ValueError(
            f"{coco.path} names the picture {name} {times} times; give each file one entry"
        )


def _refuse_namesakes(one: Path, other: Path) -> None:
    if filecmp.cmp(one, other, shallow=False):
        return
    if not alike([fingerprint(read_picture(one))], [fingerprint(read_picture(other))]):
        raise ValueError(
            f"{one} and {other} are different pictures of one name in two sets, which would count "
            "as one; put them into sub-folders and name these in file_name, too"
        )


def _split_ignored(
    truth: CocoSet, names: Sequence[str] | None
) -> tuple[CocoSet, dict[int, Tensor]]:
    if names is None:
        names = [name for name in truth.categories.values() if name.casefold() == IGNORED]
    return split_ignored(truth, names) if names else (truth, {})


@dataclass(frozen=True)
class Full:
    """The whole-picture pass, made once and shared by all arms."""

    found: Found
    seconds: float


def find_in_full(
    pictures: Pictures,
    detector: Detector,
    looking: Looking = Looking(),  # noqa: B008 (frozen)
    again: Opener | None = None,
    title: str = "whole pictures",
) -> Full:
    """Detects in every whole given picture; ``again`` opens the detector in a worker."""
    sight = look_at_all(
        Look(pictures, None, 1), (detector, None), looking, title=title, again=again
    )
    return Full({image: seen.found for image, seen in sight.seen.items()}, sight.detecting)


@dataclass(frozen=True)
class Split:
    """Pictures with their windows and the first look at them, all of it alike for every arm."""

    pictures: Pictures
    plan: WindowPlan
    full: Full

    @property
    def truth(self) -> CocoSet:
        """What is true of the pictures."""
        return self.pictures.truth
