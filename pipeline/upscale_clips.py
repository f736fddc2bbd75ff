"""Enlarging clips frame by frame: videos with their sound, and folders of frames.

A window of frames is held at a time, so that the memory taken does not grow with the length.
"""

import functools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pipeline.clips import check_sizes, find_footage, is_video, read_frames, windows
from pipeline.files import atomic_file
from pipeline.picture_files import PictureError
from pipeline.pictures import to_float, to_uint8, write_picture
from pipeline.progress import bar
from pipeline.upscalers import Upscaler
from pipeline.video import Frame, VideoReader
from pipeline.video_writer import WRITTEN, VideoWriter

logger = logging.getLogger(__name__)


def parted(paths: Sequence[Path]) -> tuple[list[Path], dict[Path, Path]]:
    """What holds pictures, and every video with the folder that it was found in.

    A path that is missing or holds neither counts as one of pictures.
    """
    pictures: list[Path] = []
    videos: dict[Path, Path] = {}
    for path in paths:
        try:
            found = find_footage([path])
        except FileNotFoundError:
            found = [path]  # to be looked into as a picture or a folder of them, and named there
        films = [each for each in found if is_video(each)]
        videos.update((film, path if path.is_dir() else path.parent) for film in films)
        if len(films) < len(found):
            pictures.append(path)
    return pictures, videos


def places_of_videos(videos: Mapping[Path, Path], out: Path) -> dict[Path, Path]:
    """Each video and where it goes: its place below the folder it was found in.

    Raises:
        ValueError: two results in one place, or one over its own source.
    """
    places: dict[Path, Path] = {}
    taken: dict[Path, Path] = {}
    for film, root in videos.items():
        place = out / film.relative_to(root)
        if place.suffix.lower() not in WRITTEN:
            logger.warning("%s: %s videos are written as .mkv", film, place.suffix)
            place = place.with_suffix(".mkv")
        other = taken.setdefault(place, film)
        if other != film or place.resolve() == film.resolve():
            raise ValueError(
                f"{film} would be written over {other} ({place}); choose another --out"
            )
        places[film] = place
    return places


@dataclass(frozen=True)
class Limits:
    """What clips are taken, and how videos are written."""

    quality: int
    """x264's constant rate factor."""
    max_pixels: int
    """Larger frames are refused."""
    repeat_still: bool
    """Whether clips are taken that are shorter than the network reads."""


def enlarge_clips(places: Mapping[Path, Path], upscaler: Upscaler, limits: Limits) -> int:
    """Enlarges videos, and the pictures of each folder as the frames of a clip.

    What cannot be read is skipped; what else was wrong is told. A clip that breaks off is kept as
    far as it went.

    Args:
        places: each video or picture and where it goes; frames not named here are only looked at.
        upscaler: of any number of frames.
        limits: what is taken.

    Returns:
        How many files were written.

    Raises:
        PictureError: nothing was written; why the last of the clips was not. Of the others that is
            told already.
        ValueError: the network's output is not a number.
    """
    written = 0
    videos = [path for path in places if is_video(path)]
    folders = dict.fromkeys(path.parent for path in places if not is_video(path))
    works = [functools.partial(_video, path, places[path], upscaler, limits) for path in videos]
    works += [functools.partial(_frames, folder, places, upscaler, limits) for folder in folders]
    for left, work in zip(reversed(range(len(works))), works, strict=True):
        try:
            written += work()
        except PictureError as error:
            if not left and not written:
                raise
            logger.warning("skipped: %s", error)
    return written


def _video(path: Path, place: Path, upscaler: Upscaler, limits: Limits) -> int:
    form = WRITTEN[place.suffix.lower()]
    with (
        VideoReader(path, max_pixels=limits.max_pixels) as reader,
        atomic_file(place) as temporary,
        VideoWriter(temporary, form, reader, quality=limits.quality) as writer,
        bar(f"enlarging {path.name} {upscaler.scale} times", reader.expected) as advance,
    ):
        for frame, sr in _enlarged(reader, path, upscaler, limits):
            writer.put(sr, frame.pts)
            advance(1)
        silent = writer.silent
    for said in [*reader.remarks(), *(["it has no sound"] if silent else [])]:
        logger.warning("%s: %s", path, said)
    return 1


def _frames(folder: Path, places: Mapping[Path, Path], upscaler: Upscaler, limits: Limits) -> int:
    check_sizes(folder)
    written = 0
    mine = [path for path in places if path.parent == folder]
    with bar(f"enlarging frames of {folder.name} {upscaler.scale} times", len(mine)) as advance:
        frames = read_frames(folder, max_pixels=limits.max_pixels)
        try:
            for frame, sr in _enlarged(frames, folder, upscaler, limits):
                if frame.source is not None and frame.source in places:
                    write_picture(sr, places[frame.source])
                    written += 1
                    advance(1)
        except PictureError as error:
            if not written:
                raise
            logger.warning("%s; only %d frames before it are written", error, written)
    return written


def _enlarged(
    frames: Iterable[Frame], path: Path, upscaler: Upscaler, limits: Limits
) -> Iterator[tuple[Frame, Tensor]]:
    """Each frame with its enlargement, uint8 ``(3, scale * H, scale * W)``."""
    for frame, window in windows(
        frames, upscaler.frames, name=str(path), repeat_still=limits.repeat_still
    ):
        lr = to_float(window)
        try:
            sr = upscaler(lr if upscaler.frames == 1 else lr[None])
        except FloatingPointError as error:
            raise ValueError(
                f"{upscaler.name} fails on frame {frame.number} of {path}: {error}"
            ) from error
        yield frame, to_uint8(sr[0])
