"""Clips: frames in a row, of a folder of pictures or of a video."""

import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor

from pipeline.picture_files import SUFFIXES, PictureError, files_inside, upright_size
from pipeline.pictures import read_picture
from pipeline.video import VIDEO_SUFFIXES, Frame, VideoReader


def is_video(path: Path) -> bool:
    """Whether a file is called as videos are."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def find_footage(paths: Sequence[Path]) -> list[Path]:
    """Videos, and folders that hold frames, under ``paths`` (all levels, sorted).

    What is hidden is left out.

    Raises:
        FileNotFoundError: a path is missing, or there is neither video nor picture.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"no such file or folder: {path}")
        if path.is_file():
            found[path if is_video(path) else path.parent] = None
            continue
        for file in files_inside(path, (*VIDEO_SUFFIXES, *SUFFIXES)):
            found[file if is_video(file) else file.parent] = None
    if not found:
        raise FileNotFoundError(
            f"no videos and no frames in {', '.join(map(str, paths))}; videos end in "
            f"{', '.join(VIDEO_SUFFIXES)}, frames in {', '.join(SUFFIXES)}"
        )
    return list(found)


def frame_files(folder: Path) -> list[Path]:
    """The pictures of a folder in the order that their names count: frame 2 before frame 10."""
    files = (p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    return sorted((p for p in files if not p.name.startswith(".")), key=_counted)


def _counted(path: Path) -> list[tuple[int, str]]:
    """Numbers in the name by their value, what is between them by its letters."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def read_frames(path: Path, *, max_pixels: int | None = None) -> Iterator[Frame]:
    """The frames of a video or of a folder, one at a time.

    Raises:
        PictureError: it is damaged, or a frame has another size than most.
    """
    if path.is_dir():
        yield from _of_folder(path, max_pixels)
        return
    with closing(VideoReader(path, max_pixels=max_pixels)) as reader:
        yield from reader


def check_sizes(path: Path) -> None:
    """Refuses a folder whose frames have several sizes, by their headers; videos pass.

    Raises:
        PictureError: a frame has another size than most, or its header is damaged.
    """
    if not path.is_dir():
        return
    sizes = {file: upright_size(file) for file in frame_files(path)}
    if len(set(sizes.values())) < 2:
        return
    (usual, many), *_ = Counter(sizes.values()).most_common(1)
    odd, *others = (file for file, size in sizes.items() if size != usual)
    more = f", as {len(others)} more are not" if others else ""
    raise PictureError(
        f"{odd} is {_told(sizes[odd])} pixels, not {_told(usual)} as {many} of the {len(sizes)} "
        f"frames of this clip are{more}; bring it to that size or remove it, or give each size a "
        "folder of its own"
    )


def _told(size: Sequence[int]) -> str:
    return f"{size[1]} x {size[0]}"


def _of_folder(folder: Path, max_pixels: int | None) -> Iterator[Frame]:
    size: torch.Size | None = None
    for number, file in enumerate(frame_files(folder)):
        picture = read_picture(file, max_pixels=max_pixels)
        if picture.shape != (size or picture.shape):
            check_sizes(folder)
            assert size is not None
            raise PictureError(
                f"{file} is {_told(picture.shape[-2:])} pixels, the frames before it "
                f"{_told(size[-2:])}, and its header says otherwise; save it anew or remove it"
            )
        size = picture.shape
        yield Frame(picture, number, number, source=file)


def windows(
    frames: Iterable[Frame], length: int, *, name: str, repeat_still: bool = False
) -> Iterator[tuple[Frame, Tensor]]:
    """Every frame with its window ``(length, 3, H, W)``, in whose middle it stands.

    At both ends of a clip the first and the last frame are repeated. So many frames are held at a
    time as a window has.

    Args:
        frames: of one clip.
        length: of the windows, odd.
        name: how errors call the clip.
        repeat_still: take clips that are shorter than a window, too.

    Raises:
        PictureError: the clip is shorter than a window.
    """
    half, count = length // 2, 0
    held: deque[Frame] = deque(maxlen=length)

    def around(number: int) -> tuple[Frame, Tensor]:
        # Mirrored frames would be new to a network: it learnt from neighbours on both sides.
        places = (min(max(number + n, 0), count - 1) for n in range(-half, half + 1))
        window = [held[place - count + len(held)] for place in places]
        return window[half], _stacked(window)

    for frame in frames:
        held.append(frame)
        count += 1
        if count >= length:
            yield from map(around, range(count - half - 1 if count > length else 0, count - half))
    if 0 < count < length and not repeat_still:
        raise PictureError(
            f"{name} has {count} frames, the network reads {length} at a time; give longer clips, "
            "or take shorter ones, too, with --repeat_still true"
        )
    yield from map(around, range(count - half if count >= length else 0, count))


def runs(frames: Iterable[Frame], length: int, *, step: int) -> Iterator[tuple[int, Tensor]]:
    """Clips ``(length, 3, H, W)`` that begin ``step`` frames apart, each with its first number.

    None reaches across frames that are missing.
    """
    held: deque[Frame] = deque(maxlen=length)
    wait = 0
    for frame in frames:
        if not frame.follows:
            held.clear()
            wait = 0
        held.append(frame)
        wait -= 1
        if len(held) == length and wait <= 0:
            yield held[0].number, _stacked(held)
            wait = step


def _stacked(frames: Iterable[Frame]) -> Tensor:
    return torch.stack([frame.picture for frame in frames])
