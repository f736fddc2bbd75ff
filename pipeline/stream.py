"""Shards to batches of pictures: deterministic, shared over ranks and workers, resumable.

The stream, stage by stage: shard order of the epoch -> this reader's shards -> samples -> shuffle
buffer -> decode -> crops -> batches of uint8 ``hr``. A reader is one worker process of one rank.

Training data is split over readers by shard (by sample where there are fewer shards than readers),
and every rank yields the same number of batches. Validation reads every sample exactly once over
all readers. What the index promises and a shard does not give is skipped and counted.
"""

import http.client
import itertools
import logging
import random
import struct
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import webdataset
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info
from webdataset.tariterators import group_by_keys, tar_file_expander

from pipeline.index import open_place

logger = logging.getLogger(__name__)

Sample = dict[str, Any]

TRIES = 256
"""So many samples are looked at for one that can be used before a stream gives up."""


class ShardReader:
    """Raw samples of shards; what cannot be read is skipped and counted."""

    def __init__(self, shards: Mapping[str, int]) -> None:
        self.shards = shards
        """Path or address of each shard, with the samples that it holds by its index."""
        self.bad: Counter[str] = Counter()
        """Shard to how many of its samples could not be used."""

    def read(self, place: str) -> Iterator[Sample]:
        """Samples of one shard; a shard that breaks off ends there, what is missing is counted."""
        given, why = 0, "its table of contents is damaged"
        try:
            with open_place(place) as opened:
                files = tar_file_expander([{"url": place, "stream": opened}])
                for sample in group_by_keys(files):
                    if "png" in sample:  # a shard may break off within a sample
                        given += 1
                        yield sample
        except (
            OSError,
            tarfile.TarError,
            EOFError,
            ValueError,
            http.client.HTTPException,
        ) as error:
            why = str(error)
        # tarfile takes a damaged entry for the end of the archive; only the count tells.
        missing = self.shards[place] - given
        if missing > 0:
            self._count(place, missing, f"{missing} of its {self.shards[place]} samples ({why})")

    def number(self, places: Iterable[str]) -> Iterator[tuple[int, Sample]]:
        """Samples of several shards with their places in the sequence, which damage does not shift.

        All readers agree on them, also when one of them lost a connection.
        """
        first = 0
        for place in places:
            yield from enumerate(self.read(place), first)
            first += self.shards[place]

    def decode(self, sample: Sample) -> Tensor | None:
        """The picture of a sample, uint8 ``(3, H, W)``, or None where it is damaged (counted)."""
        try:
            return decode_png(sample["png"])
        except (ValueError, RuntimeError) as error:
            self._count(sample["__url__"], 1, f"sample {sample['__key__']} ({error})")
            return None

    def decode_crop(self, sample: Sample, crop: int) -> Tensor | None:
        """As ``decode``, and None (counted) for a picture with a side below ``crop``."""
        picture = self.decode(sample)
        if picture is None or min(picture.shape[-2:]) >= crop:
            return picture
        small = f"{picture.shape[-1]} x {picture.shape[-2]} pixels, below the crop of {crop}"
        self._count(sample["__url__"], 1, f"sample {sample['__key__']} ({small})")
        return None

    def _count(self, place: str, samples: int, what: str) -> None:
        """Counts; said once per shard, because a damaged shard comes by again and again."""
        if not self.bad[place]:
            logger.warning("shard %s: skipped %s", place, what)
        self.bad[place] += samples


def decode_png(data: bytes) -> Tensor:
    """PNG bytes of a sample to uint8 ``(3, H, W)``.

    Raises:
        ValueError: the bytes are damaged.
    """
    from torchvision.io import ImageReadMode, decode_image

    if not _is_whole(data):
        raise ValueError("its PNG is damaged")
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    picture: Tensor = decode_image(encoded, mode=ImageReadMode.RGB)
    return picture


def _is_whole(png: bytes) -> bool:
    """Whether every chunk of a PNG agrees with its checksum (PNG specification, section 5.3).

    Torchvision's decoder may end the process on a damaged file; the check is 2 % of its time.
    """
    view, kind, at = memoryview(png), b"", 8
    while at + 12 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        end = at + 8 + length
        if view[end : end + 4] != zlib.crc32(view[at + 4 : end]).to_bytes(4):
            return False
        at = end + 4
    return kind == b"IEND" and at == len(png)


class TrainStream(IterableDataset[Tensor]):
    """An epoch of uint8 ``hr`` batches ``(B, 3, crop, crop)``.

    ``crops_per_picture`` crops are cut from each decoded picture and dealt to as many consecutive
    batches, so that decoding, the wall of most runs, is paid once for them. The first ``skip``
    batches are passed over without being decoded.
    """

    def __init__(
        self,
        shards: Mapping[str, int],
        *,
        batch_size: int,
        crop: int,
        batches: int,
        crops_per_picture: int = 1,
        buffer: int = 256,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        epoch: int = 0,
        skip: int = 0,
    ) -> None:
        super().__init__()
        self.shards, self.reader = shards, ShardReader(shards)
        self.batch_size, self.crop, self.batches = batch_size, crop, batches
        self.crops_per_picture, self.buffer = crops_per_picture, buffer
        self.seed, self.rank, self.world = seed, rank, world
        self.epoch, self.skip = epoch, skip

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Tensor]:
        worker, workers = _worker()
        # Batches come from the workers in turn; after a resume the turn starts behind the skipped.
        worker = (worker + self.skip) % workers
        mine = range(worker, self.batches, workers)
        done = len(range(worker, min(self.skip, self.batches), workers))
        yield from itertools.islice(self._batches(worker, workers, start=done), len(mine) - done)

    def _batches(self, worker: int, workers: int, *, start: int) -> Iterator[Tensor]:
        """All batches of a reader from its ``start``-th on; what lies before is not decoded."""
        group, inside = divmod(start, self.crops_per_picture)
        samples = itertools.islice(self._samples(worker, workers), group * self.batch_size, None)
        for number in itertools.count(group):
            rng = random.Random(f"crops/{self.seed}/{self.epoch}/{self.rank}/{worker}/{number}")
            drawn = itertools.islice(samples, self.batch_size)
            good = self._usable(drawn) or [self._spare(worker, workers)]
            # A damaged picture is replaced by a good one of the same draw, so batches stay whole.
            pictures = [good[i % len(good)] for i in range(self.batch_size)]
            crops = [
                [random_crop(p, self.crop, rng) for p in pictures]
                for _ in range(self.crops_per_picture)
            ]
            yield from (torch.stack(batch) for batch in crops[inside:])
            inside = 0

    def _usable(self, samples: Iterable[Sample]) -> list[Tensor]:
        pictures = (self.reader.decode_crop(sample, self.crop) for sample in samples)
        return [picture for picture in pictures if picture is not None]

    def _spare(self, worker: int, workers: int) -> Tensor:
        """The first usable picture of this reader, for a draw that holds none.

        It comes of a stream of its own, so that it does not depend on where a resume began.
        """
        for sample in itertools.islice(self._samples(worker, workers), TRIES):
            if usable := self._usable([sample]):
                return usable[0]
        raise ValueError(
            f"none of {TRIES} samples of {', '.join(list(self.shards)[:3])} can be used: each is "
            f"damaged or smaller than the crop of {self.crop} pixels; lower data.crop, or write "
            "shards of larger pieces with: srdet shards --cut"
        )

    def _samples(self, worker: int, workers: int) -> Iterator[Sample]:
        """Endless shuffled samples of this reader: lap after lap over its shards."""
        shuffled = webdataset.shuffle(
            self.buffer, rng=random.Random(f"buffer/{self.seed}/{self.epoch}/{self.rank}/{worker}")
        )
        stream: Iterator[Sample] = shuffled(
            self._laps(self.rank * workers + worker, self.world * workers)
        )
        return stream

    def _laps(self, reader: int, readers: int) -> Iterator[Sample]:
        """Laps over the parts of the data: each lap this reader takes another part of them."""
        rng = random.Random(f"shards/{self.seed}/{self.epoch}")  # the same for all readers
        empty, order = 0, list(self.shards)
        for lap in itertools.count():
            if lap % readers == 0:
                rng.shuffle(order)
            given = 0
            for sample in self._part(order, (reader + lap) % readers, readers):
                given += 1
                yield sample
            empty = 0 if given else empty + 1
            if empty == 2 * readers:  # by then each shard had its turn, whatever the order
                raise ValueError(
                    f"the shards {', '.join(order[:3])} give no sample; copy them again, or write "
                    "the set again with: srdet shards"
                )

    def _part(self, order: list[str], part: int, parts: int) -> Iterator[Sample]:
        """Every ``parts``-th shard, or every ``parts``-th sample where the shards are fewer."""
        if len(order) >= parts:
            return itertools.chain.from_iterable(map(self.reader.read, order[part::parts]))
        numbered = self.reader.number(order)
        return (sample for number, sample in numbered if number % parts == part)


class ValStream(IterableDataset[Tensor]):
    """Whole uint8 pictures ``(3, H, W)``, each exactly once over all ranks and workers."""

    def __init__(
        self,
        shards: Mapping[str, int],
        *,
        rank: int = 0,
        world: int = 1,
        limit: int | None = None,
    ) -> None:
        super().__init__()
        self.shards, self.reader = shards, ShardReader(shards)
        self.rank, self.world, self.limit = rank, world, limit

    def __iter__(self) -> Iterator[Tensor]:
        worker, workers = _worker()
        reader, readers = self.rank * workers + worker, self.world * workers
        for number, sample in self.reader.number(self.shards):
            if self.limit is not None and number >= self.limit:
                return
            if number % readers == reader and (picture := self.reader.decode(sample)) is not None:
                yield picture


def _worker() -> tuple[int, int]:
    info = get_worker_info()
    return (info.id, info.num_workers) if info else (0, 1)


def random_crop(picture: Tensor, size: int, rng: random.Random) -> Tensor:
    """A ``size`` x ``size`` crop of ``(C, H, W)`` in one of its eight orientations."""
    height, width = picture.shape[-2:]
    y, x = rng.randint(0, height - size), rng.randint(0, width - size)
    crop = picture[:, y : y + size, x : x + size]
    turns, flip = divmod(rng.randrange(8), 2)
    crop = torch.rot90(crop, turns, (1, 2))
    return crop.flip(2) if flip else crop
