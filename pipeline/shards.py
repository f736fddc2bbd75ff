r"""``srdet shards``: pictures become WebDataset shards with an index.

    srdet shards --images photos/ --out shards/ --cut 480 --step 240
    srdet shards --images drone/images --coco drone/annotations.json --out shards/ \
        --source "HIT-UAV, CC BY 4.0"
    srdet shards --images videos/ --out shards/ --frames 5 --cut 192 --step 192

A sample is ``KEY.png`` (8-bit RGB, lossless) and ``KEY.json`` (source file, place of the cut,
boxes). With ``--frames`` it is a clip of videos or of folders of frames, its frames one below the
other. The split into train and val is by picture, never by cut, so no part of a val picture is
seen in training. ``index.json`` names every shard with its samples, bytes and sha256, and every
picture by a fingerprint, so that no study tests a network on pictures it has learnt from unnoticed.
"""

import json
import logging
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from detection.truth import CocoSet, read_coco
from pipeline.annotated import check_annotated_size
from pipeline.files import atomic_folder
from pipeline.fingerprints import fingerprint
from pipeline.footage import footage_in, write_footage
from pipeline.index import FORMAT, INDEX, Index
from pipeline.options import run_function
from pipeline.picture_files import MAX_PIXELS, PictureError, find_pictures
from pipeline.pictures import read_picture
from pipeline.pieces import Box, boxes_inside, cuts
from pipeline.progress import bar
from pipeline.shard_writer import ShardWriter

logger = logging.getLogger(__name__)


def main(words: list[str]) -> None:
    """The command."""
    run_function(shards, words, name="shards")


def shards(
    images: list[Path],
    out: Path,
    *,
    coco: Path | None = None,
    cut: int = 480,
    step: int = 240,
    frames: int = 1,
    frame_step: int | None = None,
    shard_mb: float = 256.0,
    val: float = 0.05,
    seed: int = 0,
    source: str = "",
    max_pixels: int = MAX_PIXELS,
    overwrite: bool = False,
) -> Index:
    """Writes WebDataset shards from folders of pictures, from videos, or from a COCO set.

    Args:
        images: folders (all levels) or files; for clips, videos and folders of frames.
        out: folder for the shards and index.json.
        coco: COCO annotation file; its pictures are looked up in the one images folder.
        cut: side of the square pieces in pixels; 0 keeps pictures whole.
        step: distance of neighbouring pieces in pixels.
        frames: frames of a clip; 1 makes shards of single pictures.
        frame_step: frames from the beginning of a clip to that of the next; their length without
            it, so that each frame is in one clip.
        shard_mb: a shard is closed when it passes this size.
        val: share of the pictures (or videos) that goes to the val split, whole, at least one
            above 0.
        seed: of the split.
        source: where the pictures come from and under which licence; kept in the index.
        max_pixels: larger pictures are skipped and counted.
        overwrite: replace an existing folder, once the new one is complete.

    Returns:
        The index, as written.
    """
    _check(cut=cut, step=step, val=val, shard_mb=shard_mb)
    _check_clips(frames, frame_step, coco)
    truth = read_coco(coco) if coco else None
    files = _files_of(truth, images) if truth else _files_in(images, clips=frames > 1)
    _check_out(out, [*files, *([coco] if coco else [])], overwrite=overwrite)
    categories = truth.categories if truth else {}
    index = Index(FORMAT, source, {"size": cut, "step": step}, categories, {}, [], frames=frames)
    with (
        atomic_folder(out, overwrite=overwrite) as folder,
        bar("writing shards", len(files)) as advance,
    ):
        for name, members in split_pictures(list(files), val=val, seed=seed).items():
            with ShardWriter(folder, name, limit=int(shard_mb * 2**20)) as writer:
                for path in members:
                    if frames > 1:
                        every = frame_step or frames
                        named = path, files[path].name
                        write_footage(writer, *named, index, step=every, max_pixels=max_pixels)
                    else:
                        _write_picture(writer, files[path], index, max_pixels=max_pixels)
                    advance(1)
            index.splits[name] = writer.split
        if not index.splits["train"].samples:
            raise ValueError(_nothing_readable(index))
        (folder / INDEX).write_text(json.dumps(asdict(index), indent=1) + "\n", encoding="utf-8")
    _tell(index, out, mended=truth.skipped if truth else [])
    return index


def _check(*, cut: int, step: int, val: float, shard_mb: float) -> None:
    if cut < 0 or (cut and cut < 32):
        raise ValueError(
            f"--cut {cut}: a piece has 32 pixels or more a side, or 0 to keep pictures whole"
        )
    if cut and not 0 < step <= cut:
        raise ValueError(f"--step {step}: allowed is 1 to --cut ({cut}), so that no pixel is lost")
    if not 0 <= val < 1:
        raise ValueError(f"--val {val}: a share from 0 to below 1")
    if not 0 < shard_mb < math.inf:
        raise ValueError(f"--shard_mb {shard_mb}: a size above 0")


def _check_clips(frames: int, frame_step: int | None, coco: Path | None) -> None:
    if frames < 1 or (frames > 1 and frames % 2 == 0):
        raise ValueError(
            f"--frames {frames}: clips have 3, 5 or another odd number of frames, so that one is "
            "in the middle; 1 makes shards of pictures"
        )
    if frame_step is not None and (frame_step < 1 or frames == 1):
        raise ValueError(f"--frame_step {frame_step}: 1 or more, and only with --frames")
    if coco and frames > 1:
        raise ValueError("--coco is of single pictures; leave out --frames")


def _check_out(out: Path, inputs: Sequence[Path], *, overwrite: bool) -> None:
    """Replacing a folder deletes what is in it: that must be shards, and never the input."""
    place = out.resolve()
    within = next((path for path in inputs if path.resolve().is_relative_to(place)), None)
    if within is not None:
        raise ValueError(f"--out {out} holds the input {within}; choose another folder")
    foreign = out.is_dir() and any(out.iterdir()) and not (out / INDEX).exists()
    if overwrite and foreign:
        raise FileExistsError(
            f"{out} holds files but no {INDEX}, so it is not a set of shards and is not replaced; "
            "choose another folder"
        )


@dataclass(frozen=True)
class PictureFile:
    """A picture to cut, and what an annotation file says of it."""

    path: Path
    name: str
    """Of the file below its images folder."""
    size: tuple[int, int] | None = None
    """Annotated width and height."""
    boxes: tuple[Box, ...] | None = None


def _files_in(images: Sequence[Path], *, clips: bool) -> dict[Path, PictureFile]:
    if clips:
        return {path: PictureFile(path, name) for path, name in footage_in(images).items()}
    roots = [path if path.is_dir() else path.parent for path in images]
    found = {}
    for path in find_pictures(images):
        root = next(root for root in roots if path.is_relative_to(root))
        found[path] = PictureFile(path, path.relative_to(root).as_posix())
    return found


def _files_of(truth: CocoSet, images: Sequence[Path]) -> dict[Path, PictureFile]:
    if len(images) != 1 or not images[0].is_dir():
        raise ValueError(
            f"--coco goes with exactly one --images folder, got {', '.join(map(str, images))}"
            + "".join(f"; there is no {path}" for path in images if not path.exists())
        )
    files: dict[Path, PictureFile] = {}
    for picture in truth.images:
        path = images[0] / picture.file_name
        if path in files:
            raise ValueError(
                f"{truth.path} names the picture {picture.file_name} twice (the second time as id "
                f"{picture.id}); give each file one entry"
            )
        found = truth.objects[picture.id]
        rows = zip(found.boxes.tolist(), found.labels.tolist(), found.crowds.tolist(), strict=True)
        boxes = tuple(Box(tuple(corners), label, crowd) for corners, label, crowd in rows)
        files[path] = PictureFile(path, picture.file_name, (picture.width, picture.height), boxes)
    return files


def split_pictures(paths: Sequence[Path], *, val: float, seed: int) -> dict[str, list[Path]]:
    """Deals pictures to train and val; the same seed and list give the same split.

    Where ``val`` is above 0, each side gets at least one of two or more pictures.
    """
    order = sorted(paths)
    random.Random(seed).shuffle(order)
    held = min(max(1, round(val * len(order))), len(order) - 1) if val else 0
    return {"train": sorted(order[held:]), "val": sorted(order[:held])}


def _write_picture(
    writer: ShardWriter, file: PictureFile, index: Index, *, max_pixels: int
) -> None:
    try:
        picture = _read(file, max_pixels)
    except (PictureError, FileNotFoundError) as error:
        index.skipped.append({"file": file.name, "reason": str(error)})
        logger.warning("skipped: %s", error)
        return
    writer.split.pictures += 1
    index.fingerprints.append(fingerprint(picture))
    for piece in cuts(picture, size=index.cut["size"], step=index.cut["step"]):
        meta: dict[str, Any] = {"file": file.name, "x": piece.x, "y": piece.y}
        if file.boxes is not None:
            meta["boxes"] = boxes_inside(file.boxes, piece)
        key = f"{writer.name}{writer.split.pictures:06d}_{piece.y}_{piece.x}"
        writer.write(key, piece.picture, meta)


def _read(file: PictureFile, max_pixels: int) -> Tensor:
    try:
        picture = read_picture(file.path, max_pixels=max_pixels)
    except FileNotFoundError:
        raise FileNotFoundError(f"{file.path} is missing; copy it there") from None
    if file.size is not None:
        check_annotated_size(file.path, (picture.shape[2], picture.shape[1]), file.size)
    return picture


def _nothing_readable(index: Index) -> str:
    reasons = "; ".join(skip["reason"] for skip in index.skipped[:3])
    return f"no picture could be read, so no shards were written ({reasons})"


def _tell(index: Index, out: Path, *, mended: Sequence[str]) -> None:
    lines = []
    what = "pictures" if index.frames == 1 else f"videos, {index.frames} frames each,"
    for name, split in index.splits.items():
        size = sum(shard.bytes for shard in split.shards) / 2**20
        lines.append(
            f"{name}: {split.samples} samples of {split.pictures} {what} in "
            f"{len(split.shards)} shards, {size:.1f} MiB"
        )
    if index.skipped:
        first = index.skipped[0]["reason"]
        lines.append(f"skipped: {len(index.skipped)} files, the first: {first}")
    if mended:
        lines.append(f"annotations left out or mended: {len(mended)}, the first: {mended[0]}")
    lines.append(f"written: {out / INDEX}")
    # Plain, since file names may look like markup.
    Console().print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
