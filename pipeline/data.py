"""Shards to ``(lr, hr)`` batches, the same for the same seed, resumable in the middle of an epoch.

The stream, stage by stage: shard order of the epoch -> this reader's shards -> samples -> shuffle buffer
-> decode -> crops -> batches of uint8 ``hr``. On the device, in one call for the batch: float, and low
resolution by the project's one definition (``sr_module.degrade``). Steps are the unit: an "epoch" is
``steps_per_epoch`` batches, after which validation runs.

Training data is split over ranks and workers by shard (by sample where there are fewer shards than
readers), and every rank yields the same number of batches. Validation reads every sample exactly once
over all ranks and workers.
"""

import io
import itertools
import logging
import random
import tarfile
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytorch_lightning as pl
import torch
import webdataset
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from webdataset.tariterators import group_by_keys, tar_file_expander

from pipeline.shards import INDEX, Index, Split, decode_png, read_index
from sr_module.degrade import Degradation
from sr_module.resize import crop_to_multiple

logger = logging.getLogger(__name__)

Sample = dict[str, Any]
TIMEOUT_S = 30


def is_url(place: str) -> bool:
    """Whether a place is read over http(s) rather than from disk."""
    return place.startswith(("http://", "https://"))


def open_place(place: str) -> IO[bytes]:
    """Opens a local file or an http(s) address for reading.

    Raises:
        FileNotFoundError: nothing there; says where it looked.
        ConnectionError: the server does not answer.
    """
    if not is_url(place):
        return Path(place).open("rb")
    try:
        return urllib.request.urlopen(place, timeout=TIMEOUT_S)  # type: ignore[no-any-return]
    except urllib.error.HTTPError as error:
        raise FileNotFoundError(
            f"{place}: the server answered {error.code} {error.reason}"
        ) from error
    except urllib.error.URLError as error:
        raise ConnectionError(f"{place}: cannot be reached ({error.reason})") from error


def load_index(shards: str) -> Index:
    """The index of a folder or web address of shards; local shards are checked for their size.

    Raises:
        FileNotFoundError: no index, or a shard that it names is missing.
        ValueError: not an index, or a shard is cut short.
    """
    place = f"{shards.rstrip('/')}/{INDEX}"
    try:
        with open_place(place) as opened:
            text = io.TextIOWrapper(opened, "utf-8").read()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no shards in '{shards}' (looked for {place}); write them with: "
            f"srdet shards --images PICTURES --out {shards}"
        ) from error
    index = read_index(text, where=place)
    if not is_url(shards):
        _check_sizes(index, Path(shards))
    return index


def _check_sizes(index: Index, folder: Path) -> None:
    for shard in itertools.chain.from_iterable(split.shards for split in index.splits.values()):
        path = folder / shard.name
        if not path.exists():
            raise FileNotFoundError(
                f"shard {path} is missing; copy it again or write the set again"
            )
        size = path.stat().st_size
        if size != shard.bytes:
            raise ValueError(
                f"shard {path} has {size} bytes, the index says {shard.bytes}: it is cut short or changed; "
                "copy it again or write the set again with: srdet shards"
            )


class ShardReader:
    """Raw samples of shards; what cannot be read is skipped and counted."""

    def __init__(self) -> None:
        self.bad: Counter[str] = Counter()

    def read(self, place: str) -> Iterator[Sample]:
        """Samples of one shard; a shard that breaks off ends there."""
        try:
            with open_place(place) as opened:
                stage = tar_file_expander([{"url": place, "stream": opened}])
                yield from group_by_keys(stage)
        except (OSError, tarfile.TarError, EOFError, ValueError) as error:
            self.bad[place] += 1
            logger.warning(
                "shard %s breaks off (%s); its remaining samples are skipped", place, error
            )

    def decode(self, sample: Sample) -> Tensor | None:
        """The picture of a sample, or None where it is damaged (counted, said once per shard)."""
        try:
            return decode_png(sample["png"])
        except (RuntimeError, KeyError) as error:
            place = sample.get("__url__", "?")
            if not self.bad[place]:
                logger.warning(
                    "sample %s in %s is skipped: %s", sample.get("__key__"), place, error
                )
            self.bad[place] += 1
            return None


class TrainStream(IterableDataset[Tensor]):
    """An epoch of uint8 ``hr`` batches ``(B, 3, crop, crop)``.

    ``crops_per_picture`` crops are cut from each decoded picture and dealt to as many consecutive
    batches, so that decoding, the wall of most runs, is paid once for them.
    """

    def __init__(
        self,
        places: list[str],
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
        self.places, self.reader = places, ShardReader()
        self.batch_size, self.crop, self.batches = batch_size, crop, batches
        self.crops_per_picture, self.buffer = crops_per_picture, buffer
        self.seed, self.rank, self.world = seed, rank, world
        self.epoch, self.skip = epoch, skip

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Tensor]:
        worker, workers = _worker()
        # Batches come from the workers in turn; after a resume the turn starts at the skipped count.
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
            pictures = self._pictures(samples)
            crops = [
                [random_crop(p, self.crop, rng) for p in pictures]
                for _ in range(self.crops_per_picture)
            ]
            yield from (torch.stack(batch) for batch in crops[inside:])
            inside = 0

    def _pictures(self, samples: Iterator[Sample]) -> list[Tensor]:
        """The next ``batch_size`` pictures; a damaged one is replaced by a good one of the same draw."""
        drawn = [
            self.reader.decode(sample) for sample in itertools.islice(samples, self.batch_size)
        ]
        good = [p for p in drawn if p is not None and min(p.shape[-2:]) >= self.crop]
        if not good:
            raise ValueError(
                f"none of {self.batch_size} samples in a row can be used: each is damaged or smaller than "
                f"the crop of {self.crop} pixels; lower data.crop or write shards of larger pieces"
            )
        return [good[i % len(good)] for i in range(self.batch_size)]

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
        rng = random.Random(f"shards/{self.seed}/{self.epoch}")  # the same for all readers
        by_shard = len(self.places) >= readers
        while True:
            places = rng.sample(self.places, len(self.places))
            mine = places[reader::readers] if by_shard else places
            seen = 0
            for sample in itertools.chain.from_iterable(map(self.reader.read, mine)):
                if by_shard or seen % readers == reader:
                    yield sample
                seen += 1
            if not seen:
                raise ValueError(
                    f"the shards {', '.join(mine[:3])} give no sample; check or rewrite them"
                )


class ValStream(IterableDataset[Tensor]):
    """Whole uint8 pictures ``(3, H, W)``, each exactly once over all ranks and workers."""

    def __init__(
        self, places: list[str], *, rank: int = 0, world: int = 1, limit: int | None = None
    ) -> None:
        super().__init__()
        self.places, self.reader = places, ShardReader()
        self.rank, self.world, self.limit = rank, world, limit

    def __iter__(self) -> Iterator[Tensor]:
        worker, workers = _worker()
        samples = itertools.chain.from_iterable(map(self.reader.read, self.places))
        every = itertools.islice(samples, self.limit)
        mine = itertools.islice(every, self.rank * workers + worker, None, self.world * workers)
        return (picture for picture in map(self.reader.decode, mine) if picture is not None)


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


class ShardData(pl.LightningDataModule):
    """Training and validation batches ``(lr, hr)`` from the shards that ``srdet shards`` wrote.

    Args:
        shards: folder or http(s) address that holds index.json.
        scale: enlargement the network is trained for; hr is cut to its multiples.
        batch_size: crops a step and rank.
        crop: side of an hr crop in pixels.
        steps_per_epoch: training steps between two validations.
        crops_per_picture: crops cut from each decoded picture.
        workers: processes that read and decode.
        shuffle_buffer: samples (undecoded) that a reader draws from.
        val_limit: at most so many validation pictures; null takes all.
        degradation: blur, noise and JPEG besides the reduction; null is the reduction alone.
        seed: of order, crops and orientations.
    """

    def __init__(
        self,
        shards: str,
        *,
        scale: int = 4,
        batch_size: int = 16,
        crop: int = 96,
        steps_per_epoch: int = 1000,
        crops_per_picture: int = 1,
        workers: int = 2,
        shuffle_buffer: int = 256,
        val_limit: int | None = None,
        degradation: Degradation | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if crop % scale:
            raise ValueError(
                f"data.crop {crop} is not a multiple of the scale {scale}; choose one that is"
            )
        self.shards, self.batch_size, self.crop, self.scale = shards, batch_size, crop, scale
        self.steps_per_epoch, self.crops_per_picture = steps_per_epoch, crops_per_picture
        self.workers, self.shuffle_buffer, self.val_limit = workers, shuffle_buffer, val_limit
        self.degradation = degradation or Degradation(scale)
        self.seed = seed
        self.index: Index | None = None
        self._position = (0, 0)  # epoch and batch at which a resumed run goes on

    def setup(self, stage: str) -> None:
        """Reads the index (every rank) and checks it."""
        self.index = load_index(self.shards)

    def train_dataloader(self) -> DataLoader[Tensor]:
        """This epoch's batches on this rank; made anew every epoch."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        resumed, batch = self._position
        stream = TrainStream(
            self._places("train"),
            batch_size=self.batch_size,
            crop=self.crop,
            batches=self.steps_per_epoch,
            crops_per_picture=self.crops_per_picture,
            buffer=self.shuffle_buffer,
            seed=self.seed,
            rank=self._rank(),
            world=self._world(),
            epoch=epoch,
            skip=batch if epoch == resumed else 0,
        )
        return _loader(stream, self.workers)

    def val_dataloader(self) -> DataLoader[Tensor]:
        """Validation pictures, one a batch, each read by exactly one rank."""
        stream = ValStream(
            self._places("val"), rank=self._rank(), world=self._world(), limit=self.val_limit
        )
        return _loader(stream, min(self.workers, 1), batch=_one)

    def on_after_batch_transfer(self, batch: Tensor, dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """uint8 ``hr`` on the device -> ``(lr, hr)`` float32 in [0, 1]."""
        hr = crop_to_multiple(batch, self.scale).float().div_(255)
        return self.degradation(hr), hr

    def state_dict(self) -> dict[str, int]:
        """Where the stream is: Lightning's own counters, the seed and what they are counted in."""
        progress = self.trainer.fit_loop.epoch_loop.batch_progress.current if self.trainer else None
        return {
            "epoch": self.trainer.current_epoch if self.trainer else 0,
            "batch": progress.ready if progress else 0,
            "seed": self.seed,
        }

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Goes on at the stored place of the same stream."""
        if state_dict["seed"] != self.seed:
            logger.warning("data.seed differs from the resumed run's; the order of samples changes")
        self._position = (state_dict["epoch"], state_dict["batch"])

    def _places(self, name: str) -> list[str]:
        split = self._split(name)
        return [f"{self.shards.rstrip('/')}/{shard.name}" for shard in split.shards]

    def _split(self, name: str) -> Split:
        if self.index is None:
            self.setup("fit")
        assert self.index is not None
        split = self.index.splits.get(name)
        if split is None or not split.samples:
            raise ValueError(
                f"the shards in '{self.shards}' have no {name} samples; write them with --val above 0"
                if name == "val"
                else f"the shards in '{self.shards}' have no {name} samples"
            )
        return split

    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    def _world(self) -> int:
        return self.trainer.world_size if self.trainer else 1


def _one(pictures: list[Tensor]) -> Tensor:
    return pictures[0][None]


def _loader(
    stream: IterableDataset[Tensor],
    workers: int,
    *,
    batch: Callable[[list[Tensor]], Tensor] | None = None,
) -> DataLoader[Any]:
    return DataLoader(
        stream,
        batch_size=1 if batch else None,
        collate_fn=batch,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        # fork is Linux's default up to Python 3.13 and starts in milliseconds; the readers use no threads.
        multiprocessing_context="fork" if workers else None,
    )
