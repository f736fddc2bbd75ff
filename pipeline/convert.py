r"""``srdet convert``: annotations of other kinds become COCO; large pictures become slices.

    srdet convert --kind yolo --images train/images --labels train/labels --names data.yaml \
        --out train.json
    srdet convert --kind voc --images JPEGImages --labels Annotations --out voc.json
    srdet convert --kind visdrone --images images --labels annotations --out visdrone.json
    srdet convert --kind coco --images train --labels train.json --out sliced --slice 512

Each picture's labels have its name and another suffix. With ``--slice`` the pictures are cut, too:
``out`` becomes a folder with ``images`` and ``annotations.json``, ready for ``srdet detect train``.
"""

import difflib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import yaml

from detection.formats.mark import Mark
from detection.formats.visdrone import NAMES, read_visdrone
from detection.formats.voc import read_voc
from detection.formats.yolo import read_yolo
from detection.truth import read_coco
from pipeline.files import atomic_file
from pipeline.options import run_function
from pipeline.picture_files import find_pictures
from pipeline.progress import bar, console
from pipeline.raster import open_raster
from pipeline.slicing import Slicing, slice_set

Kind = Literal["yolo", "voc", "visdrone", "coco"]
Reader = Callable[[Path, tuple[int, int]], list[Mark]]

SUFFIX = {"yolo": ".txt", "voc": ".xml", "visdrone": ".txt"}
LARGEST = 100_000
"""Pixels a side that a picture may claim; only its header is read here."""


@dataclass(frozen=True)
class Converted:
    """What was written, and what could not be taken over."""

    path: Path
    pictures: int
    objects: int
    skipped: list[str] = field(default_factory=list)


def main(words: list[str]) -> None:
    """The command."""
    run_function(convert, words, name="convert")


def convert(
    kind: Kind,
    images: Path,
    labels: Path,
    out: Path,
    *,
    names: Path | None = None,
    origin: Literal[0, 1] = 1,
    slice: int | None = None,
    overlap: float = 0.2,
    visible: float = 0.5,
    empty: float = 1.0,
    overwrite: bool = False,
) -> Converted:
    """Writes a COCO file of annotations of another kind, or a sliced set.

    Args:
        kind: "yolo", "voc" (Pascal), "visdrone", or "coco", which is only sliced.
        images: folder of the pictures, all levels.
        labels: folder of the label files, with the same folders inside; of "coco" the JSON file.
        out: the COCO file to write; with `slice` the folder.
        names: of the categories, in the order of their numbers: a YAML file with `names` as YOLO's
            trainers read it, or a text file, one name a line. Needed for "yolo"; for "voc" it
            fixes the categories, which are otherwise those found, by name.
        origin: of "voc": number of the first pixel. 1 as in VOC; 0 for tools that count from 0.
        slice: side of the slices in pixels; smaller pictures stay whole.
        overlap: share that neighbouring slices share.
        visible: an object of which less than this share lies in a slice becomes a crowd region
            there: what remains of it is neither to be found nor wrong to find.
        empty: share of the slices without an object that are kept.
        overwrite: replace what is there.

    Returns:
        What was written.
    """
    if slice is None and kind == "coco":
        raise ValueError("a COCO file is COCO already; --slice 512 cuts its pictures")
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} exists; choose another name, or add --overwrite true")
    skipped: list[str] = []
    if kind == "coco":
        skipped += read_coco(labels, images=images, allow_empty=True).skipped
        content = json.loads(labels.read_text())
    else:
        content = _as_coco(kind, images, labels, names, origin, skipped)
    if slice is not None:
        how = Slicing(slice, overlap, visible, empty)
        return slice_coco(content, labels, images, out, how, skipped, overwrite=overwrite)
    with atomic_file(out) as temporary:
        temporary.write_text(json.dumps(content))
    truth = read_coco(out, allow_empty=True)  # what the other commands will say of it
    result = Converted(
        out, len(content["images"]), len(content["annotations"]), skipped + truth.skipped
    )
    _tell(result)
    return result


def slice_coco(
    content: Mapping[str, Any],
    path: Path,
    images: Path,
    out: Path,
    how: Slicing,
    skipped: list[str],
    *,
    overwrite: bool,
) -> Converted:
    """A COCO set cut into slices: ``images`` and ``annotations.json`` in a folder."""
    pictures, objects = slice_set(content, path, images, out, how, overwrite=overwrite)
    result = Converted(out, pictures, objects, skipped)
    _tell(result)
    return result


def _as_coco(
    kind: Kind, images: Path, labels: Path, names: Path | None, origin: int, skipped: list[str]
) -> dict[str, Any]:
    pictures = find_pictures([images])
    if not labels.is_dir():
        raise FileNotFoundError(f"no folder {labels}; give the one that the label files are in")
    fixed = read_names(names) if names else None
    read = _reader(kind, fixed, origin)
    rows: list[dict[str, Any]] = []
    marks: list[list[Mark]] = []
    files = [_labels_of(picture, images, labels, SUFFIX[kind]) for picture in pictures]
    _check_pairs(pictures, files, labels, SUFFIX[kind], skipped)
    with bar("reading annotations", len(pictures)) as advance:
        for number, (picture, file) in enumerate(zip(pictures, files, strict=True), start=1):
            height, width = open_raster(picture, max_pixels=LARGEST**2).size
            name = picture.relative_to(images).as_posix()
            rows.append({"id": number, "file_name": name, "width": width, "height": height})
            marks.append(read(file, (width, height)) if file.is_file() else [])
            advance(1)
    ids = _category_ids(kind, fixed, marks, names)
    return {
        "images": rows,
        "categories": [{"id": key, "name": name} for name, key in ids.items()],
        "annotations": list(_annotations(marks, ids)),
    }


def _reader(kind: Kind, names: Sequence[str] | None, origin: int) -> Reader:
    if kind == "visdrone":
        return lambda path, _: read_visdrone(path)
    if kind == "voc":
        return partial(read_voc, origin=origin)
    if names is None:
        raise ValueError(
            "YOLO's label files number their classes; give their names with --names data.yaml "
            "(or a text file, one name a line)"
        )
    return partial(read_yolo, names=names)


def read_names(path: Path) -> list[str]:
    """Category names by number, out of a YOLO trainer's YAML or a text file.

    Raises:
        ValueError: no names there, numbers that do not count from 0, or a name twice.
    """
    if path.suffix in (".yaml", ".yml"):
        content = yaml.safe_load(path.read_text())
        said = content.get("names") if isinstance(content, dict) else None
        if isinstance(said, dict):
            if sorted(said) != list(range(len(said))):
                raise ValueError(f"{path}: the numbers of 'names' must be 0, 1, 2, ...: {said}")
            said = [said[number] for number in range(len(said))]
    else:
        said = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    if not isinstance(said, list) or not said:
        raise ValueError(f"{path} has no 'names'; a list, or a mapping of numbers to names")
    names = [str(name) for name in said]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{path}: the name '{twice}' is there twice; categories need one each")
    return names


def _labels_of(picture: Path, images: Path, labels: Path, suffix: str) -> Path:
    inside = picture.relative_to(images) if images.is_dir() else Path(picture.name)
    return labels / inside.with_suffix(suffix)


def _check_pairs(
    pictures: Sequence[Path],
    files: Sequence[Path],
    labels: Path,
    suffix: str,
    skipped: list[str],
) -> None:
    """Pictures without labels are empty, labels without one are told, no labels at all refused."""
    there = [file for file in files if file.is_file()]
    if not there:
        raise FileNotFoundError(
            f"none of {len(pictures)} pictures has a label file, the first should be {files[0]}; "
            f"labels have their picture's name and end in {suffix}"
        )
    names = {"classes.txt", "train.txt", "val.txt", "test.txt"}  # lists, beside YOLO's labels
    lost = sorted(
        file for file in {*labels.rglob(f"*{suffix}")} - {*files} if file.name not in names
    )
    if lost:
        skipped.append(f"{len(lost)} label files have no picture, the first is {lost[0]}")
    if missing := len(files) - len(there):
        skipped.append(f"{missing} pictures have no label file and count as empty")


def _category_ids(
    kind: Kind, fixed: list[str] | None, marks: Iterable[Sequence[Mark]], names: Path | None
) -> dict[str, int]:
    if kind == "visdrone":
        return {name: number for number, name in enumerate(NAMES)}
    found = sorted({mark.category for each in marks for mark in each})
    if fixed is None:
        return {name: number for number, name in enumerate(found, start=1)}
    for name in found:
        if name not in fixed:
            near = difflib.get_close_matches(name, fixed, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ValueError(f"category '{name}' is none of {names}{hint}")
    return {name: number for number, name in enumerate(fixed, start=1)}


def _annotations(
    marks: Iterable[Sequence[Mark]], ids: Mapping[str, int]
) -> Iterable[dict[str, Any]]:
    number = 0
    for image, each in enumerate(marks, start=1):
        for mark in each:
            number += 1
            yield {
                "id": number, "image_id": image, "category_id": ids[mark.category],
                "bbox": [round(side, 4) for side in mark.box],
                "area": round(math.prod(mark.box[2:]), 4), "iscrowd": int(mark.crowd),
            }  # fmt: skip


def _tell(result: Converted) -> None:
    for sentence in result.skipped[:5]:
        console.print(sentence, highlight=False, markup=False)
    if len(result.skipped) > 5:
        console.print(f"... and {len(result.skipped) - 5} more", highlight=False)
    console.print(
        f"{result.path}: {result.pictures:,} pictures, {result.objects:,} objects", highlight=False
    )
