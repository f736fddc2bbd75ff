"""The beginning of a study: what is refused before hours are spent, what is set aside, and windows.

Nothing of this differs between arms.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from detection.errors import found_objects
from detection.sanity import check_perfect
from pipeline.arms import is_larger, weights_of
from pipeline.fingerprints import fingerprint, seen_before
from pipeline.pictures import read_picture
from pipeline.plans import plan_windows
from pipeline.ray_session import check_address
from pipeline.spread import RaySpread
from pipeline.study import Full, Pictures, Split
from pipeline.study_settings import Join, Windows

Aside = Callable[[list[int]], tuple[list[int], list[int]]]
"""Image ids to those that are evaluated and those that are set aside."""


def check_study(
    pictures: Pictures,
    windows: Windows,
    aside: Aside | None,
    *,
    specs: Mapping[str, str],
    detector: str,
    max_detections: int,
    tune_merge: bool,
) -> None:
    """Refuses what cannot be measured.

    Raises:
        ValueError: the truth as detections does not score 1.0, windows cut given pixels, too few
            pictures are set aside, a merge is to be tuned on none, or pictures are to be enlarged
            for a detector that makes all equally large.
    """
    check_perfect(pictures.truth, max_detections=max_detections)
    _check_windows(windows, pictures)
    larger = [name for name, spec in specs.items() if is_larger(spec)]
    if larger and Path(detector).suffix == ".onnx":
        raise ValueError(
            f"arm '{larger[0]}' enlarges whole pictures, and {Path(detector).name} resizes to its "
            f"own input whatever it is given: it would see no more of them; leave the arm out"
        )
    if aside is not None:
        aside([picture.id for picture in pictures.truth.images])
    elif tune_merge:
        raise ValueError("tune_merge needs pictures set aside; say how many: --calibrate_on 0.3")


def learners_seen(pictures: Pictures, detector: str, specs: Mapping[str, str]) -> dict[str, int]:
    """Who learnt from pictures of the study, and from how many; who does not say is left out."""
    learners = {name: files for name, spec in specs.items() if (files := weights_of(spec))}
    if Path(detector).is_file():
        learners["the detector"] = [Path(detector)]
    ordinary = [p.id for p in pictures.truth.images if not pictures.vast(p.id)]
    marks = {image: fingerprint(read_picture(pictures.paths[image])) for image in ordinary}
    return {name: len(images) for name, images in seen_before(marks, learners).items()}


def ray_spread(workers: int, address: str | None) -> RaySpread | None:
    """Who shares the pictures; an address where nothing answers is told before anything is read.

    Raises:
        ConnectionError: that.
    """
    if not workers:
        return None
    check_address(address)
    return RaySpread(workers, address, 1.0 if torch.cuda.is_available() else 0.0)


def lay_splits(
    pictures: Pictures,
    windows: Windows,
    first_look: Callable[..., Full],
    aside: Aside | None,
) -> tuple[Split, Split | None]:
    """What is evaluated, and what is set aside to calibrate on."""

    def lay(chosen: Pictures, title: str = "whole pictures") -> Split:
        full = first_look(chosen, title=title)
        return Split(chosen, plan_windows(chosen, windows, full.found), full)

    if aside is None:
        return lay(pictures), None
    kept, held = aside([p.id for p in pictures.truth.images])
    return lay(pictures.only(kept)), lay(pictures.only(held), "whole pictures, to calibrate")


def first_finds(split: Split, join: Join) -> dict[int, Tensor] | None:
    """Objects that the first look finds by itself, where its detections count in every arm."""
    if not join.full:
        return None
    found = found_objects(split.truth, split.full.found, score=0.0)
    return {i: found[i][~objects.crowds] for i, objects in split.truth.objects.items()}


def _check_windows(windows: Windows, pictures: Pictures) -> None:
    if rest := windows.size % pictures.reduction:
        raise ValueError(
            f"windows.size {windows.size} is not a multiple of the reduction "
            f"{pictures.reduction}; choose {windows.size - rest}"
        )
