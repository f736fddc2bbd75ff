"""Shards to ``(lr, hr)`` batches for a Lightning trainer, resumable in the middle of an epoch.

Workers yield uint8 ``hr``. On the device, in one call for the batch, it becomes float, and low
resolution follows by the project's one definition (``sr_module.degrade``). Steps are the unit: an
"epoch" is ``steps_per_epoch`` batches, after which validation runs.
"""

import logging
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pipeline.index import Index, load_index
from pipeline.stream import TrainStream, ValStream
from sr_module.degrade import Degradation
from sr_module.resize import crop_to_multiple

logger = logging.getLogger(__name__)


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
        seed: of order, crops, orientations and noise.
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
        self.shards, self.batch_size, self.crop, self.scale = shards, batch_size, crop, scale
        self.steps_per_epoch, self.crops_per_picture = steps_per_epoch, crops_per_picture
        self.workers, self.shuffle_buffer, self.val_limit = workers, shuffle_buffer, val_limit
        self.degradation = degradation or Degradation(scale)
        self.seed = seed
        self.index: Index | None = None
        self._check_settings()

    def _check_settings(self) -> None:
        counts = ("batch_size", "crop", "steps_per_epoch", "crops_per_picture", "shuffle_buffer")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"data.{name} is {getattr(self, name)}; it must be 1 or more")
        if self.workers < 0:
            raise ValueError(f"data.workers is {self.workers}; 0 reads in the training process")
        if self.val_limit is not None and self.val_limit < 1:
            raise ValueError(f"data.val_limit is {self.val_limit}; 1 or more, or null for all")
        if self.crop % self.scale:
            raise ValueError(
                f"data.crop {self.crop} is not a multiple of the scale {self.scale}; choose one "
                "that is"
            )
        if self.degradation.scale != self.scale:
            raise ValueError(
                f"data.degradation reduces by {self.degradation.scale}, the network enlarges by "
                f"{self.scale}; make them equal"
            )

    def setup(self, stage: str) -> None:
        """Reads the index (every rank) and checks it."""
        self.index = load_index(self.shards)
        cut = self.index.cut["size"]
        if 0 < cut < self.crop:
            raise ValueError(
                f"data.crop {self.crop} is larger than the pieces of {cut} pixels in "
                f"'{self.shards}'; lower data.crop, or write larger pieces with: srdet shards --cut"
            )

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Batches of this rank; every pass is the next epoch, from where the trainer stands."""
        stream = TrainStream(
            self._shards_of("train"),
            batch_size=self.batch_size,
            crop=self.crop,
            batches=self.steps_per_epoch,
            crops_per_picture=self.crops_per_picture,
            buffer=self.shuffle_buffer,
            seed=self.seed,
            rank=self._rank(),
            world=self._world(),
        )
        return _TrainLoader(stream, self.workers, self._position)

    def val_dataloader(self) -> DataLoader[Tensor]:
        """Validation pictures, one a batch, each read by exactly one rank."""
        stream = ValStream(
            self._shards_of("val"), rank=self._rank(), world=self._world(), limit=self.val_limit
        )
        return DataLoader(stream, batch_size=1, **_reading(min(self.workers, 1)))

    def on_after_batch_transfer(self, batch: Tensor, dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """uint8 ``hr`` on the device -> ``(lr, hr)`` float32 in [0, 1].

        Noise is the same for the same step and rank, and for every validation.
        """
        hr = crop_to_multiple(batch, self.scale).float().div_(255)
        noise = torch.Generator(hr.device).manual_seed(self._noise_seed())
        return self.degradation(hr, noise), hr

    def _noise_seed(self) -> int:
        training = self.trainer is not None and self.trainer.training
        place = f"{self._rank()}/{self._batches_done()}" if training else "val"
        return random.Random(f"noise/{self.seed}/{place}").getrandbits(63)

    def state_dict(self) -> dict[str, int]:
        """What the place in the stream is counted in; the place itself is the trainer's count."""
        return {
            "seed": self.seed,
            "batch_size": self.batch_size,
            "steps_per_epoch": self.steps_per_epoch,
            "crops_per_picture": self.crops_per_picture,
            "shuffle_buffer": self.shuffle_buffer,
            "workers": self.workers,
            "world": self._world(),
        }

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Says where a resumed run will not see the samples that it would have seen."""
        now = self.state_dict()
        changed = [
            f"{name} {value} -> {now[name]}"
            for name, value in state_dict.items()
            if value != now.get(name)
        ]
        if changed:
            logger.warning(
                "the resumed run's data differ (%s): it goes on with another order of samples",
                ", ".join(changed),
            )

    def _position(self) -> tuple[int, int]:
        """Epoch and batch at which the trainer's next pass over the training data begins."""
        if self.trainer is None:
            return 0, 0
        limit = self.trainer.limit_train_batches
        share = limit if isinstance(limit, int) else int(limit * self.steps_per_epoch)
        return divmod(self._batches_done(), max(1, min(share, self.steps_per_epoch)))

    def _batches_done(self) -> int:
        """Over all epochs; restored with a checkpoint."""
        assert self.trainer is not None
        return self.trainer.fit_loop.epoch_loop.batch_progress.total.ready

    def _shards_of(self, name: str) -> dict[str, int]:
        """Path or address of each shard of a split, with its samples."""
        if self.index is None:
            self.setup("fit")
        assert self.index is not None
        split = self.index.splits.get(name)
        if split is None or not split.samples:
            cure = "; write them with --val above 0 from two or more pictures"
            raise ValueError(
                f"the shards in '{self.shards}' have no {name} samples{cure * (name == 'val')}"
            )
        return {f"{self.shards.rstrip('/')}/{s.name}": s.samples for s in split.shards}

    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    def _world(self) -> int:
        return self.trainer.world_size if self.trainer else 1


class _TrainLoader(DataLoader[Tensor]):
    """Tells its stream, at the start of every pass, where the trainer stands."""

    def __init__(
        self, stream: TrainStream, workers: int, position: Callable[[], tuple[int, int]]
    ) -> None:
        super().__init__(stream, batch_size=None, **_reading(workers))
        self.stream, self.position = stream, position

    def __iter__(self) -> Iterator[Tensor]:  # type: ignore[override]
        self.stream.epoch, self.stream.skip = self.position()
        return super().__iter__()


def _reading(workers: int) -> dict[str, Any]:
    return {
        "num_workers": workers,
        "pin_memory": torch.cuda.is_available(),
        # fork is Linux's default up to Python 3.13 and starts in milliseconds; the readers use no
        # threads.
        "multiprocessing_context": "fork" if workers else None,
    }
