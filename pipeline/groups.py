"""Scenes: pictures that are alike and must be drawn, swapped and set aside together.

Frames of a recording or tiles of one scene say the same thing many times. An interval that takes
each for a picture of its own is too narrow.
"""

import csv
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from detection.truth import CocoSet

ALLOWED = (
    "groups is a field of the images in the COCO file (video_id), a pattern with parentheses that "
    "is looked for in the file name ('^(\\d+_\\d+)_'), or a file: CSV rows FILE_NAME,GROUP or JSON "
    "{FILE_NAME: GROUP}"
)


def scene_groups(how: str | None, truth: CocoSet, coco: Sequence[Path]) -> dict[int, str]:
    """Image id to the name of its scene; empty without ``how``.

    Args:
        how: a field of COCO's images, a pattern with parentheses, or a file.
        truth: the set of the study.
        coco: the annotation files that it comes from.

    Raises:
        ValueError: a picture without a scene, or only one scene.
    """
    if how is None:
        return {}
    named = _namer(how, coco)
    groups: dict[int, str] = {}
    for picture in truth.images:
        group = named(picture.file_name)
        if group is None:
            raise ValueError(f"groups '{how}' names no group for {picture.file_name}; {ALLOWED}")
        groups[picture.id] = group
    if len(set(groups.values())) < 2:
        raise ValueError(
            f"groups '{how}' puts all {len(groups)} pictures into one group; two or more are "
            f"needed to tell a difference from luck"
        )
    return groups


def _namer(how: str, coco: Sequence[Path]) -> Callable[[str], str | None]:
    if Path(how).is_file():
        return _of_file(Path(how)).get
    if "(" in how:
        try:
            pattern = re.compile(how)
        except re.error as error:
            raise ValueError(f"groups '{how}' is no pattern ({error}); {ALLOWED}") from error
        return lambda name: "/".join(found.groups("")) if (found := pattern.search(name)) else None
    return _of_field(how, coco).get


def _of_file(path: Path) -> dict[str, str]:
    if path.suffix == ".json":
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"{path} holds no object; {ALLOWED}")
        return {str(name): str(group) for name, group in content.items()}
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if row]
    if wrong := [row for row in rows if len(row) != 2]:
        raise ValueError(f"{path} has the row {','.join(wrong[0])!r}; {ALLOWED}")
    return dict(rows)


def _of_field(field: str, coco: Sequence[Path]) -> dict[str, str]:
    rows = [row for path in coco for row in json.loads(path.read_text(encoding="utf-8"))["images"]]
    if not any(field in row for row in rows):
        known = ", ".join(sorted({key for row in rows for key in row}))
        raise ValueError(
            f"groups '{field}' is no field of the images, which have {known}; {ALLOWED}"
        )
    return {row["file_name"]: str(row[field]) for row in rows if field in row}
