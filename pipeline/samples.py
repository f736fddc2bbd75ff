"""Samples of shards, and their pictures; what is damaged is skipped and counted."""

import struct
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from webdataset.tariterators import group_by_keys, tar_file_expander

from pipeline.damage import Damage
from pipeline.index import Opener, Shard, open_shard
from pipeline.transfer import LASTING

try:
    from pyspng import load as load_png  # twice torchvision's speed where only some rows are needed
except ImportError:
    load_png = None

Sample = dict[str, Any]

NUMBER = "__number__"
"""Of a sample within its shard."""


class ShardReader:
    """Raw samples of shards; what cannot be read is skipped and counted.

    Args:
        shards: path or address of each shard, with what the index says of it.
        opener: opens them.
        damage: where is counted what cannot be used.
        frames: of each sample: one picture, or a clip.
    """

    def __init__(
        self,
        shards: Mapping[str, Shard],
        *,
        opener: Opener = open_shard,
        damage: Damage | None = None,
        frames: int = 1,
    ) -> None:
        self.shards, self.opener, self.frames = shards, opener, frames
        self.damage = damage or Damage(shards)

    def read(self, place: str) -> Iterator[Sample]:
        """Samples of one shard; a shard that breaks off ends there, what is missing is counted.

        Raises:
            ConnectionError: the server was away for longer than is allowed.
            ValueError: too much is damaged.
        """
        shard = self.shards[place]
        given, why = 0, "its table of contents is damaged"
        try:
            with self.opener(place, shard) as opened:
                files = tar_file_expander([{"url": place, "stream": opened}])
                for sample in group_by_keys(files):
                    if "png" in sample and given < shard.samples:
                        yield {**sample, NUMBER: given}
                        given += 1
        except LASTING as error:
            why = str(error)
        except ConnectionError:
            raise
        except (OSError, tarfile.TarError, EOFError, ValueError) as error:
            why = str(error)
        # tarfile takes a damaged entry for the end of the archive; only the count tells.
        missing = shard.samples - given
        if missing > 0:
            said = f"{missing} of its {shard.samples} samples ({why})"
            self.damage.broken(place, given, said)

    def number(self, places: Iterable[str]) -> Iterator[tuple[int, Sample]]:
        """Samples of several shards with their places in the sequence, which damage does not shift.

        All readers agree on them, also when one of them found a shard missing.
        """
        first = 0
        for place in places:
            yield from enumerate(self.read(place), first)
            first += self.shards[place].samples

    def decode(self, sample: Sample, *, rows: int | None = None) -> Tensor | None:
        """The first ``rows`` of a sample's picture, or all; None where it is damaged (counted).

        Returns:
            uint8 ``(3, rows, W)``, or a clip, always whole, ``(frames, 3, H, W)``.

        Raises:
            ValueError: too much is damaged.
        """
        place, number = sample["__url__"], sample[NUMBER]
        try:
            picture = decode_png(sample["png"], rows=rows if self.frames == 1 else None)
        except DamagedPNGError as error:
            self.damage.damaged(place, number, f"sample {sample['__key__']} ({error})")
            return None
        self.damage.good(place, number)
        if self.frames == 1:
            return picture
        height, width = self.size(sample)
        return picture.view(3, self.frames, height, width).transpose(0, 1)

    def size(self, sample: Sample) -> tuple[int, int]:
        """Height and width that a sample's picture, or each frame of its clip, claims."""
        height, width = png_size(sample["png"])
        return height // self.frames, width

    def holds(self, sample: Sample, crop: int) -> bool:
        """Whether a sample's picture claims no side below ``crop``; counted where it does."""
        height, width = self.size(sample)
        if min(height, width) >= crop:
            return True
        place, number, said = sample["__url__"], sample[NUMBER], f"sample {sample['__key__']}"
        if _is_whole(sample["png"]):
            small = f"{width} x {height} pixels, below the crop of {crop}"
            self.damage.small(place, number, f"{said} ({small})")
        else:
            self.damage.damaged(place, number, f"{said} (its PNG is damaged)")
        return False


class DamagedPNGError(ValueError):
    """The bytes are no whole PNG."""


def png_size(png: bytes) -> tuple[int, int]:
    """Height and width that a PNG claims; 0 and 0 where it ends before it says."""
    if len(png) < HEADER:
        return 0, 0
    width, height = struct.unpack_from(">II", png, 16)
    return height, width


HEADER = 33  # signature and first chunk, PNG specification, sections 5.2 and 11.2.1


def decode_png(png: bytes, *, rows: int | None = None) -> Tensor:
    """The first ``rows`` of a PNG, or all, as uint8 ``(3, rows, W)``.

    With pyspng installed, rows that are not asked for are not even inflated.

    Raises:
        DamagedPNGError: the bytes are damaged, be it behind those rows.
    """
    if not _is_whole(png):
        raise DamagedPNGError("its PNG is damaged")
    if load_png is None:
        return _by_torchvision(png)[:, :rows]
    interlaced = png[28]  # then the rows come in another order
    if rows is not None and rows < png_size(png)[0] and not interlaced:
        png = _cut_to(png, rows)
    try:
        pixels = load_png(png, format="RGB")
    except RuntimeError as error:
        raise DamagedPNGError(str(error)) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)[:, :rows]


def _by_torchvision(png: bytes) -> Tensor:
    from torchvision.io import ImageReadMode, decode_image

    encoded = torch.from_numpy(np.frombuffer(bytearray(png), dtype=np.uint8))
    try:
        picture: Tensor = decode_image(encoded, mode=ImageReadMode.RGB)
    except RuntimeError as error:
        raise DamagedPNGError(str(error)) from error
    return picture


def _cut_to(png: bytes, rows: int) -> bytes:
    """The same PNG with a header that ends it after ``rows``.

    libspng ignores what follows them, libpng (torchvision) complains of it on the terminal.
    """
    cut = bytearray(png)
    cut[20:24] = rows.to_bytes(4)
    cut[29:33] = zlib.crc32(cut[12:29]).to_bytes(4)
    return bytes(cut)


def _is_whole(png: bytes) -> bool:
    """Whether every chunk of a PNG agrees with its checksum (PNG specification, section 5.3).

    Damage is found wherever it lies, whatever part is decoded, and torchvision's decoder, which may
    end the process on a damaged file, never sees one; the check is 3 % of decoding.
    """
    view, kind, at = memoryview(png), b"", 8
    while at + 12 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        end = at + 8 + length
        if view[end : end + 4] != zlib.crc32(view[at + 4 : end]).to_bytes(4):
            return False
        at = end + 4
    return kind == b"IEND" and at == len(png) and len(png) >= HEADER
