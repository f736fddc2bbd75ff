"""Named sets of high-resolution pictures, each with its low resolution: what is scored against."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from torch import Tensor

from pipeline.picture_files import find_pictures
from pipeline.pictures import read_grey_or_rgb, to_float
from sr_module.resize import crop_to_multiple, imresize

_SAYS_NOTHING = ("hr", "gt", "gtmod12", "original", "images", "pictures")
"""Folders that are called after what they hold; the one above has the set's name."""


@dataclass(frozen=True)
class DataSet:
    """Pictures that are averaged over, such as Set5."""

    name: str
    pictures: dict[str, Path]
    """Files by the name they have in tables: the path below the folder, without suffix."""


@dataclass(frozen=True)
class Truth:
    """A high-resolution picture and its low resolution, both ``(1, C, H, W)``, C = 1 where grey."""

    data_set: str
    name: str
    path: Path
    hr: Tensor
    lr: Tensor
    scale: int
    clip: str = ""
    """That it is a frame of."""
    around: Tensor | None = None
    """Low resolution of a frame and of those around it, ``(1, T, C, h, w)``."""

    def frames(self, count: int) -> Tensor:
        """The low resolution that a network of ``count`` frames reads.

        Raises:
            ValueError: it is a single picture, and the network reads several frames.
        """
        if count == 1:
            return self.lr.expand(-1, 3, -1, -1)
        if self.around is None:
            raise ValueError(
                f"the network reads {count} frames of a clip, this is a single picture; score it "
                "on clips with --clips true, or have pictures repeated with --repeat_still true"
            )
        first = (self.around.shape[1] - count) // 2
        return self.around[:, first : first + count]

    def corner(self, side: int) -> "Truth":
        """The part of it whose low resolution is ``side`` pixels wide and high at most."""
        hr = self.hr[..., : side * self.scale, : side * self.scale]
        around = None if self.around is None else self.around[..., :side, :side]
        return replace(self, hr=hr, lr=self.lr[..., :side, :side], around=around)


def split_name(word: str) -> tuple[str, str]:
    """``"Set5=folder"`` -> ``("Set5", "folder")``; the name is empty where ``word`` gives none."""
    named = re.fullmatch(r"([^/\\=]+)=(.+)", word)
    return (named[1], named[2]) if named and not Path(word).exists() else ("", word)


def open_sets(words: Sequence[str]) -> list[DataSet]:
    """The sets that ``words`` name, each a folder, ``NAME=FOLDER``, or files.

    A folder has its own name, or that of the one above where it is called ``HR`` or the like. The
    files of one folder are one set.

    Raises:
        FileNotFoundError: a path is missing, or holds no picture.
        ValueError: two folders or two pictures would have the same name.
    """
    sets: dict[str, DataSet] = {}
    folders: dict[str, Path] = {}
    for word in words:
        name, place = split_name(word)
        path = Path(place).expanduser()
        folder = path if path.is_dir() else path.parent
        name = name or named_folder(folder)
        if folders.setdefault(name, folder).resolve() != folder.resolve():
            raise ValueError(
                f"{folders[name]} and {folder} are both called '{name}'; give each a name of its "
                f"own: --hr first={folders[name]} second={folder}"
            )
        data_set = sets.setdefault(name, DataSet(name, {}))
        for picture in find_pictures([path]):
            _add(data_set, picture, folder)
    return list(sets.values())


def named_folder(folder: Path) -> str:
    """What a set in ``folder`` is called."""
    folder = folder.resolve()
    return (folder.parent if folder.name.lower() in _SAYS_NOTHING else folder).name or "pictures"


def _add(data_set: DataSet, picture: Path, folder: Path) -> None:
    name = picture.relative_to(folder).with_suffix("").as_posix()
    other = data_set.pictures.setdefault(name, picture)
    if other != picture:
        raise ValueError(
            f"{other} and {picture} would both be called '{name}' in the table; rename one of them"
        )


def belonging(data_set: DataSet, folder: Path) -> dict[Path, Path]:
    """For each picture of the set, the file in ``folder`` that was made from or for it.

    A file belongs to the picture with the longest name that the file's name begins with. A
    sub-folder that is called as the set is looked into instead of ``folder``.

    Raises:
        FileNotFoundError: a picture has no file, or several of which none has exactly its name.
    """
    inside = folder / data_set.name
    folder = inside if inside.is_dir() else folder
    found: dict[str, list[Path]] = {}
    stems = sorted({path.stem for path in data_set.pictures.values()}, key=len, reverse=True)
    for file in find_pictures([folder]):
        # img10_x4 does not belong to img1.
        owner = next((s for s in stems if re.match(rf"{re.escape(s)}(?!\d)", file.stem)), "")
        found.setdefault(owner, []).append(file)
    return {
        path: _the_one(path, found.get(path.stem, []), folder)
        for path in data_set.pictures.values()
    }


def _the_one(path: Path, files: list[Path], folder: Path) -> Path:
    files = [file for file in files if file.stem == path.stem] or files
    if len(files) != 1:
        raise FileNotFoundError(
            f"{len(files)} pictures in {folder} belong to {path.name}; exactly one should be named "
            f"{path.stem} or begin so"
        )
    return files[0]


def truth_reader(
    data_set: DataSet, scale: int, *, lr: Path | None = None
) -> Callable[[str], Truth]:
    """Reads the set's pictures by their name, cropped to multiples of the scale.

    Args:
        data_set: the pictures.
        scale: between the two resolutions.
        lr: folder of low-resolution pictures; without it MATLAB's bicubic makes them, in 8 bits.
    """
    given = belonging(data_set, lr) if lr else {}

    def read(name: str) -> Truth:
        path = data_set.pictures[name]
        whole = to_float(read_grey_or_rgb(path))[None]  # whose errors name the file
        try:
            hr = crop_to_multiple(whole, scale)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        low = read_like(given[path], hr) if lr else imresize(hr, Fraction(1, scale))
        return Truth(data_set.name, name, path, hr, low, scale)

    return read


def picture_truths(data_set: DataSet, scale: int, *, lr: Path | None = None) -> Iterator[Truth]:
    """The set's pictures in turn; the arguments of ``truth_reader``, which looks for them all."""
    return map(truth_reader(data_set, scale, lr=lr), data_set.pictures)


def read_like(path: Path, truth: Tensor) -> Tensor:
    """A picture ``(1, C, H, W)`` of as many channels as ``truth`` has."""
    return channels_like(to_float(read_grey_or_rgb(path))[None], truth)


def channels_like(picture: Tensor, truth: Tensor) -> Tensor:
    """Grey for grey, three channels for colour."""
    if truth.shape[1] == 1:
        return picture.mean(1, keepdim=True)
    return picture.expand(-1, 3, -1, -1)
