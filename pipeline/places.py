"""Where enlarged pictures go, settled before any work: names, what stands there, what fits."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pipeline.picture_files import SUFFIXES, find_pictures

Suffix = Literal["same", "png", "jpg", "webp", "tiff", "bmp"]
Existing = Literal["error", "skip", "overwrite"]


def places_for(pictures: list[Path], out: Path, suffix: Suffix) -> dict[Path, Path]:
    """Each picture and where it goes: its place below the folder it was found in.

    Raises:
        ValueError: two results in one place, one over its own source, or a suffix that cannot be
            written.
        FileNotFoundError: a path is missing, or there is no picture at all.
    """
    places: dict[Path, Path] = {}
    taken: dict[Path, Path] = {}
    for given in pictures:
        base = given if given.is_dir() else given.parent
        for path in find_pictures([given]):
            named = path.relative_to(base)
            place = out / (named if suffix == "same" else named.with_suffix(f".{suffix}"))
            if path not in places:
                _refuse_loss(path, place, taken.setdefault(place, path))
                places[path] = place
    return places


def _refuse_loss(path: Path, place: Path, taken_by: Path) -> None:
    if place.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"{path}: results are written as {', '.join(SUFFIXES)}; choose one with --suffix png"
        )
    if taken_by != path or place.resolve() == path.resolve():
        whose = "itself" if taken_by == path else str(taken_by)
        raise ValueError(
            f"{path} would be written over {whose} ({place}); choose another --out, or enlarge the "
            "folders one by one"
        )


def without_existing(places: Mapping[Path, Path], existing: Existing) -> dict[Path, Path]:
    """What is to be made, of ``places``, by the rule for results that stand there already.

    Raises:
        FileExistsError: some do, and the rule is "error".
    """
    standing = [place for place in places.values() if place.exists()]
    if standing and existing == "error":
        raise FileExistsError(
            f"{len(standing)} of {len(places)} results exist already, the first of them "
            f"{standing[0]}; keep them with --existing skip, replace them with --existing "
            "overwrite, or choose another --out"
        )
    if existing == "overwrite":
        return dict(places)
    return {path: place for path, place in places.items() if not place.exists()}


def make_folder(out: Path) -> None:
    """Makes the folder of the results.

    Raises:
        NotADirectoryError: a file stands in its place.
        PermissionError: nothing may be written there.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(
            f"{out} cannot be a folder: a file has that name, or a part of it"
        ) from error
    except PermissionError as error:
        raise PermissionError(
            f"{out} cannot be made: its folder is not yours to write; choose another --out"
        ) from error
    if not os.access(out, os.W_OK | os.X_OK):
        raise PermissionError(f"nothing may be written to {out}; choose another --out")
