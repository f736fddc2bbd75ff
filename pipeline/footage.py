"""Clips for shards: what is found, and how it is cut in time and in space."""

import logging
from collections.abc import Sequence
from pathlib import Path

from pipeline.clips import find_footage, read_frames, runs
from pipeline.fingerprints import fingerprint
from pipeline.index import Index
from pipeline.picture_files import PictureError
from pipeline.pieces import cuts
from pipeline.shard_writer import ShardWriter

logger = logging.getLogger(__name__)


def footage_in(paths: Sequence[Path]) -> dict[Path, str]:
    """Videos and folders of frames, each with its name below the path it was found under."""
    roots = [path if path.is_dir() else path.parent for path in paths]
    named = {}
    for found in find_footage(paths):
        root = next(root for root in roots if found.is_relative_to(root))
        name = found.relative_to(root).as_posix()
        named[found] = found.name if name == "." else name
    return named


def write_footage(
    writer: ShardWriter, path: Path, name: str, index: Index, *, step: int, max_pixels: int
) -> None:
    """Writes the clips of a video or a folder of frames; what cannot be read is noted in the index.

    Args:
        writer: of the split.
        path: the video or folder.
        name: its name in the index.
        index: of the set; says how many frames a clip has and how it is cut.
        step: frames from the beginning of a clip to that of the next.
        max_pixels: larger frames are refused.
    """
    writer.split.pictures += 1
    written = 0
    try:
        for start, clip in runs(read_frames(path, max_pixels=max_pixels), index.frames, step=step):
            index.fingerprints.append(fingerprint(clip[len(clip) // 2]))
            for piece in cuts(clip, size=index.cut["size"], step=index.cut["step"]):
                key = f"{writer.name}{writer.split.pictures:06d}_{start:06d}_{piece.y}_{piece.x}"
                meta = {"file": name, "frame": start, "x": piece.x, "y": piece.y}
                writer.write(key, piece.picture, meta)
                written += 1
    except (PictureError, FileNotFoundError) as error:
        said = f"{error} ({written} clips before it are kept)" if written else str(error)
    else:
        said = "" if written else f"{path} has no {index.frames} frames in a row"
    if said:
        index.skipped.append({"file": name, "reason": said})
        logger.warning("skipped: %s", said)
    writer.split.pictures -= not written
