"""Clips to score against: every frame with the low resolution of itself and of those around it."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from torch import Tensor

from pipeline.clips import check_sizes, find_footage, frame_files, is_video, read_frames, windows
from pipeline.pictures import to_float, to_uint8
from pipeline.truth import DataSet, Truth, named_folder, split_name
from pipeline.video import Frame, VideoReader
from sr_module.resize import crop_to_multiple, imresize


def open_clips(words: Sequence[str]) -> list[DataSet]:
    """The sets that ``words`` name, each a folder of clips, ``NAME=FOLDER``, or a video.

    A clip is a video or a folder of frames; it takes the place that a picture has in other sets.

    Raises:
        FileNotFoundError: a path is missing, or holds no clip.
        ValueError: two clips would have the same name.
    """
    sets: dict[str, DataSet] = {}
    for word in words:
        name, place = split_name(word)
        path = Path(place).expanduser()
        root = path if path.is_dir() else path.parent
        data_set = sets.setdefault(
            name or named_folder(root), DataSet(name or named_folder(root), {})
        )
        for clip in find_footage([path]):
            called = (
                clip.relative_to(root).with_suffix("").as_posix() if clip != root else clip.name
            )
            if data_set.pictures.setdefault(called, clip) != clip:
                raise ValueError(
                    f"{data_set.pictures[called]} and {clip} would both be called '{called}' in "
                    "the table; rename one of them"
                )
    return list(sets.values())


def count_frames(sets: Sequence[DataSet]) -> int:
    """How many pictures there are, or frames, which a video's header may not tell."""
    return sum(_length(clip) for each in sets for clip in each.pictures.values())


def _length(clip: Path) -> int:
    if not is_video(clip):
        return len(frame_files(clip)) if clip.is_dir() else 1
    with VideoReader(clip) as reader:
        return reader.expected or 0


def clip_truths(
    data_set: DataSet, scale: int, frames: int, *, repeat_still: bool = False
) -> Iterator[Truth]:
    """The frames of all clips in turn, as they are read.

    Args:
        data_set: of ``open_clips``.
        scale: between the two resolutions; low resolution is MATLAB's bicubic in 8 bits.
        frames: of the longest window that a row reads.
        repeat_still: take clips that are shorter than that, too.

    Raises:
        ValueError: a clip is damaged, changes size, or is shorter than a window.
    """
    for name, path in data_set.pictures.items():
        check_sizes(path)
        waiting: deque[Tensor] = deque()  # high resolution, of frames whose window is not complete
        reduced = _reduced(read_frames(path), scale, waiting)
        for frame, around in windows(reduced, frames, name=str(path), repeat_still=repeat_still):
            low = to_float(around)[None]
            yield Truth(
                data_set.name,
                f"{name}/{frame.number:05d}",
                path,
                waiting.popleft(),
                low[:, frames // 2],
                scale,
                clip=name,
                around=low,
            )


def _reduced(frames: Iterable[Frame], scale: int, waiting: "deque[Tensor]") -> Iterator[Frame]:
    for frame in frames:
        hr = crop_to_multiple(to_float(frame.picture)[None], scale)
        waiting.append(hr)
        yield replace(frame, picture=to_uint8(imresize(hr, Fraction(1, scale))[0]))
