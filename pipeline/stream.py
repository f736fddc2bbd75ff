"""Shards to batches of pictures: deterministic, shared over ranks and workers, resumable.

The stream, stage by stage: shard order of the epoch -> this reader's shards -> samples -> shuffle
buffer -> decode -> crops -> batches of uint8 ``hr``. A reader is one worker process of one rank.

Training data is split over readers by shard (by sample where there are fewer shards than readers),
and every rank yields the same number of batches. Validation reads every sample exactly once over
all readers. What the index promises and a shard does not give is skipped and counted.
"""

import itertools
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
import webdataset
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from pipeline.samples import Sample, ShardReader

TRIES = 256
"""So many samples are looked at for one that can be used before a stream gives up."""


class TrainStream(IterableDataset[Tensor]):
    """An epoch of uint8 ``hr`` batches: ``(B, 3, crop, crop)``, of clips ``(B, frames, 3, ...)``.

    ``crops_per_picture`` crops are cut from each decoded picture and dealt to as many consecutive
    batches, so that decoding, the wall of most runs, is paid once for them; of a picture no row
    below its crops is decoded. The first ``skip`` batches are passed over without being decoded.
    """

    def __init__(
        self,
        reader: ShardReader,
        *,
        batch_size: int,
        crop: int,
        batches: int,
        frames: int = 1,
        crops_per_picture: int = 1,
        buffer: int = 256,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        epoch: int = 0,
        skip: int = 0,
    ) -> None:
        super().__init__()
        self.reader = reader
        self.batch_size, self.crop, self.batches = batch_size, crop, batches
        self.frames = frames
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
            pictures = self._filled(drawn, worker, workers, rng)
            yield from (torch.stack(batch) for batch in list(zip(*pictures, strict=True))[inside:])
            inside = 0

    def _filled(
        self, drawn: Iterable[Sample], worker: int, workers: int, rng: random.Random
    ) -> list[list[Tensor]]:
        """The crops of ``batch_size`` pictures.

        For one that cannot be used a good one of the same draw is cut once more, so batches stay
        whole.
        """
        cut = [(sample, self._crops(sample, rng)) for sample in drawn]
        good = [(sample, crops) for sample, crops in cut if crops]
        if not good:
            good = [self._spare(worker, workers, rng)]
        again = itertools.cycle([sample for sample, _ in good])
        filled = [crops for _, crops in good]
        while len(filled) < self.batch_size:
            filled.append(self._crops(next(again), rng))
        return filled

    def _crops(self, sample: Sample, rng: random.Random) -> list[Tensor]:
        """Crops of a sample, each ``(..., 3, crop, crop)``; none where it cannot be used."""
        if not self.reader.holds(sample, self.crop):
            return []
        height, width = self.reader.size(sample)
        windows = [
            draw_window(height, width, self.crop, rng) for _ in range(self.crops_per_picture)
        ]
        if self.reader.frames > 1:
            windows = [draw_frames(w, self.reader.frames, self.frames, rng) for w in windows]
        rows = max(window.y for window in windows) + self.crop
        picture = self.reader.decode(sample, rows=rows)
        return [] if picture is None else [window.of(picture) for window in windows]

    def _spare(self, worker: int, workers: int, rng: random.Random) -> tuple[Sample, list[Tensor]]:
        """The first usable sample of this reader, for a draw that holds none.

        It comes of a stream of its own, so that it does not depend on where a resume began.
        """
        for sample in itertools.islice(self._samples(worker, workers), TRIES):
            if crops := self._crops(sample, rng):
                return sample, crops
        raise ValueError(
            f"none of {TRIES} samples of {', '.join(list(self.reader.shards)[:3])} can be used: "
            f"each is damaged or smaller than the crop of {self.crop} pixels; lower data.crop, or "
            "write shards of larger pieces with: srdet shards --cut"
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
        empty, order = 0, list(self.reader.shards)
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
    """Whole uint8 pictures ``(3, H, W)``, each exactly once over all ranks and workers.

    Of clips the middle ``frames`` are read, ``(frames, 3, H, W)``.
    """

    def __init__(
        self,
        reader: ShardReader,
        *,
        frames: int = 1,
        rank: int = 0,
        world: int = 1,
        limit: int | None = None,
    ) -> None:
        super().__init__()
        self.reader, self.frames = reader, frames
        self.rank, self.world, self.limit = rank, world, limit

    def __iter__(self) -> Iterator[Tensor]:
        worker, workers = _worker()
        mine, readers = self.rank * workers + worker, self.world * workers
        for number, sample in self.reader.number(self._places()):
            if self.limit is not None and number >= self.limit:
                return
            if number % readers == mine and (picture := self.reader.decode(sample)) is not None:
                yield self._middle(picture)

    def _middle(self, picture: Tensor) -> Tensor:
        if self.reader.frames == 1:
            return picture
        first = (self.reader.frames - self.frames) // 2
        return picture[first : first + self.frames]

    def _places(self) -> Iterator[str]:
        """The shards that hold what is asked for; a limit leaves the others unread."""
        first = 0
        for place, shard in self.reader.shards.items():
            if self.limit is not None and first >= self.limit:
                return
            yield place
            first += shard.samples


def _worker() -> tuple[int, int]:
    info = get_worker_info()
    return (info.id, info.num_workers) if info else (0, 1)


@dataclass(frozen=True)
class Window:
    """Where a crop lies, and in which of its eight orientations it is taken.

    Of a clip also which frames, and whether time runs backwards.
    """

    y: int
    x: int
    size: int
    turns: int
    flip: bool
    frames: tuple[int, int] = (0, 1)
    """First and one past the last, of a clip."""
    backwards: bool = False

    def of(self, picture: Tensor) -> Tensor:
        """The crop ``(..., C, size, size)`` of a picture ``(..., C, H, W)``."""
        if picture.ndim == 4:
            picture = picture[slice(*self.frames)]
            picture = picture.flip(0) if self.backwards else picture
        crop = picture[..., self.y : self.y + self.size, self.x : self.x + self.size]
        crop = torch.rot90(crop, self.turns, (-2, -1))
        return crop.flip(-1) if self.flip else crop


def draw_window(height: int, width: int, size: int, rng: random.Random) -> Window:
    """Any window of a picture of ``height`` x ``width``, all being equally likely."""
    y, x = rng.randint(0, height - size), rng.randint(0, width - size)
    turns, flip = divmod(rng.randrange(8), 2)
    return Window(y, x, size, turns, bool(flip))


def draw_frames(window: Window, stored: int, frames: int, rng: random.Random) -> Window:
    """The window with ``frames`` of the ``stored`` ones of a clip, forwards or backwards."""
    first = rng.randint(0, stored - frames)
    return replace(window, frames=(first, first + frames), backwards=rng.random() < 0.5)
