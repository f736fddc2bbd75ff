"""``srdet shards``: pictures become WebDataset shards with an index.

    srdet shards --images photos/ --out shards/ --cut 480 --step 240
    srdet shards --images drone/images --coco drone/annotations.json --out shards/ --source "HIT-UAV, CC BY 4.0"

A sample is ``KEY.png`` (8-bit RGB, lossless) and ``KEY.json`` (source file, place of the cut, boxes). The
split into train and val is by picture, never by cut, so no part of a val picture is seen in training.
``index.json`` names every shard with its samples, bytes and sha256.
"""

import hashlib
import io
import json
import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import webdataset
from PIL import Image
from rich.console import Console
from torch import Tensor

from detection.truth import CocoSet, read_coco
from pipeline.files import atomic_folder
from pipeline.options import run_function
from pipeline.pictures import MAX_PIXELS, PictureError, find_pictures, read_picture
from pipeline.progress import bar

logger = logging.getLogger(__name__)

INDEX = "index.json"
FORMAT = 1


@dataclass
class Shard:
    """One tar file of the set."""

    name: str
    samples: int
    bytes: int
    sha256: str


@dataclass
class Split:
    """The shards of ``train`` or ``val``."""

    pictures: int = 0
    samples: int = 0
    shards: list[Shard] = field(default_factory=list)


@dataclass
class Index:
    """What ``index.json`` holds."""

    format: int
    source: str
    cut: dict[str, int]
    categories: dict[int, str]
    splits: dict[str, Split]
    skipped: list[dict[str, str]]

    def digest(self) -> str:
        """One sha256 over all shards: the data's name in a run's tags."""
        names = "".join(shard.sha256 for split in self.splits.values() for shard in split.shards)
        return hashlib.sha256(names.encode()).hexdigest()


@dataclass(frozen=True)
class Cut:
    """A piece of a picture: its corner in the picture and its pixels."""

    x: int
    y: int
    picture: Tensor


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
    shard_mb: float = 256.0,
    val: float = 0.05,
    seed: int = 0,
    source: str = "",
    max_pixels: int = MAX_PIXELS,
    overwrite: bool = False,
) -> Index:
    """Writes WebDataset shards from folders of pictures or from a COCO set.

    Args:
        images: folders (all levels) or files.
        out: folder for the shards and index.json.
        coco: COCO annotation file; its pictures are looked up in the one images folder.
        cut: side of the square pieces in pixels; 0 keeps pictures whole.
        step: distance of neighbouring pieces in pixels.
        shard_mb: a shard is closed when it passes this size.
        val: share of the pictures that goes to the val split, whole pictures, at least one above 0.
        seed: of the split.
        source: where the pictures come from and under which licence; kept in the index.
        max_pixels: larger pictures are skipped and counted.
        overwrite: replace an existing folder, once the new one is complete.

    Returns:
        The index, as written.
    """
    _check(cut=cut, step=step, val=val, shard_mb=shard_mb)
    truth = read_coco(coco) if coco else None
    boxes = _boxes_by_path(truth, images) if truth else dict.fromkeys(find_pictures(images))
    paths = list(boxes)
    splits = split_pictures(paths, val=val, seed=seed)
    index = Index(
        FORMAT, source, {"size": cut, "step": step}, truth.categories if truth else {}, {}, []
    )
    with (
        atomic_folder(out, overwrite=overwrite) as folder,
        bar("writing shards", len(paths)) as advance,
    ):
        for name, members in splits.items():
            writer = _Writer(folder, name, limit=int(shard_mb * 2**20))
            for path in members:
                _write_picture(writer, path, index, boxes=boxes[path], max_pixels=max_pixels)
                advance(1)
            index.splits[name] = writer.close()
        if not index.splits["train"].samples:
            raise ValueError(_nothing_readable(index))
        text = json.dumps(asdict(index), indent=1)
        (folder / INDEX).write_text(text + "\n")
    _tell(index, out)
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
    if shard_mb <= 0:
        raise ValueError(f"--shard_mb {shard_mb}: above 0")


Boxes = list[tuple[list[float], int]]
"""``(x0, y0, x1, y1)`` in the picture's pixels, with the category id."""


def _boxes_by_path(truth: CocoSet, images: Sequence[Path]) -> dict[Path, Boxes | None]:
    if len(images) != 1 or not images[0].is_dir():
        raise ValueError(
            f"--coco goes with exactly one --images folder, got {', '.join(map(str, images))}"
        )
    by_path: dict[Path, Boxes | None] = {}
    for picture in truth.images:
        found = truth.objects[picture.id]
        by_path[images[0] / picture.file_name] = list(
            zip(found.boxes.tolist(), found.labels.tolist(), strict=True)
        )
    return by_path


def split_pictures(paths: Sequence[Path], *, val: float, seed: int) -> dict[str, list[Path]]:
    """Deals pictures to train and val; the same seed and list give the same split."""
    order = sorted(paths)
    random.Random(seed).shuffle(order)
    held = max(1, round(val * len(order))) if val and len(order) > 1 else 0
    return {"train": sorted(order[held:]), "val": sorted(order[:held])}


def cuts(picture: Tensor, *, size: int, step: int) -> Iterator[Cut]:
    """Square pieces of a ``(3, H, W)`` picture that cover it; the last ones are shifted inside."""
    height, width = picture.shape[-2:]
    if not size or (height <= size and width <= size):
        yield Cut(0, 0, picture)
        return
    for y in _starts(height, size, step):
        for x in _starts(width, size, step):
            yield Cut(x, y, picture[:, y : y + size, x : x + size])


def _starts(length: int, size: int, step: int) -> list[int]:
    last = max(0, length - size)
    return sorted({*range(0, last, step), last})


class _Writer:
    """Writes one split, shard after shard, with the digest of each."""

    def __init__(self, folder: Path, name: str, *, limit: int) -> None:
        self.folder, self.name, self.limit = folder, name, limit
        self.split = Split()
        self._buffer: io.BufferedWriter | None = None

    def write(self, key: str, png: bytes, meta: dict[str, Any]) -> None:
        if self._buffer is None:
            self._path = self.folder / f"{self.name}-{len(self.split.shards):06d}.tar"
            self._buffer = self._path.open("wb")
            # A fixed time makes equal input give equal bytes, so that the digest names the data.
            self._tar = webdataset.TarWriter(self._buffer, mtime=0)
            self._samples = 0
        self._tar.write({"__key__": key, "png": png, "json": json.dumps(meta).encode()})
        self._samples += 1
        if self._buffer.tell() >= self.limit:
            self._finish()

    def close(self) -> Split:
        self._finish()
        return self.split

    def _finish(self) -> None:
        if self._buffer is None:
            return
        self._tar.close()
        self._buffer.close()
        self._buffer = None
        with self._path.open("rb") as written:
            digest = hashlib.file_digest(written, "sha256").hexdigest()
        size = self._path.stat().st_size
        self.split.shards.append(Shard(self._path.name, self._samples, size, digest))
        self.split.samples += self._samples


def _write_picture(
    writer: _Writer, path: Path, index: Index, *, boxes: Boxes | None, max_pixels: int
) -> None:
    try:
        picture = read_picture(path, max_pixels=max_pixels)
    except (PictureError, FileNotFoundError) as error:
        index.skipped.append({"file": path.name, "reason": str(error)})
        logger.warning("skipped: %s", error)
        return
    writer.split.pictures += 1
    for piece in cuts(picture, size=index.cut["size"], step=index.cut["step"]):
        meta: dict[str, Any] = {"file": path.name, "x": piece.x, "y": piece.y}
        if boxes is not None:
            meta["boxes"] = _boxes_inside(boxes, piece)
        writer.write(
            f"{writer.name}{writer.split.pictures:06d}_{piece.y}_{piece.x}", _png(piece), meta
        )


def _png(piece: Cut) -> bytes:
    encoded = io.BytesIO()
    # Level 1: a tenth larger than level 6 and several times faster to write.
    Image.fromarray(piece.picture.permute(1, 2, 0).numpy()).save(encoded, "PNG", compress_level=1)
    return encoded.getvalue()


def _boxes_inside(boxes: Boxes, piece: Cut) -> list[dict[str, Any]]:
    """Boxes of which at least half lies in the piece, clipped, in the piece's pixels (x, y, w, h)."""
    height, width = piece.picture.shape[-2:]
    inside = []
    for (x0, y0, x1, y1), label in boxes:
        left, right = max(x0 - piece.x, 0), min(x1 - piece.x, width)
        top, bottom = max(y0 - piece.y, 0), min(y1 - piece.y, height)
        area = max(0.0, right - left) * max(0.0, bottom - top)
        if area >= 0.5 * (x1 - x0) * (y1 - y0):
            inside.append({"bbox": [left, top, right - left, bottom - top], "category_id": label})
    return inside


def _nothing_readable(index: Index) -> str:
    reasons = "; ".join(skip["reason"] for skip in index.skipped[:3])
    return f"no picture could be read, so no shards were written ({reasons})"


def _tell(index: Index, out: Path) -> None:
    console = Console()
    for name, split in index.splits.items():
        size = sum(shard.bytes for shard in split.shards) / 2**20
        console.print(
            f"{name}: {split.samples} samples of {split.pictures} pictures in {len(split.shards)} shards, "
            f"{size:.1f} MiB"
        )
    if index.skipped:
        console.print(
            f"skipped: {len(index.skipped)} files, the first: {index.skipped[0]['reason']}"
        )
    console.print(f"written: {out / INDEX}")


def read_index(text: str, *, where: str) -> Index:
    """Parses an index.json.

    Raises:
        ValueError: not an index of this format; the message names ``where`` and the cure.
    """
    try:
        raw = json.loads(text)
        splits = {
            name: Split(s["pictures"], s["samples"], [Shard(**shard) for shard in s["shards"]])
            for name, s in raw["splits"].items()
        }
        categories = {int(key): value for key, value in raw["categories"].items()}
        index = Index(raw["format"], raw["source"], raw["cut"], categories, splits, raw["skipped"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{where} is not a shard index ({type(error).__name__}: {error}); write one with: srdet shards"
        ) from error
    if index.format != FORMAT:
        raise ValueError(
            f"{where} has format {index.format}, this version reads {FORMAT}; write it again"
        )
    return index


def decode_png(data: bytes) -> Tensor:
    """PNG bytes of a sample to uint8 ``(3, H, W)``."""
    from torchvision.io import ImageReadMode, decode_image

    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    picture: Tensor = decode_image(encoded, mode=ImageReadMode.RGB)
    return picture
