"""Shards to ``(lr, hr)`` batches for a Lightning trainer, resumable in the middle of an epoch.

Workers yield uint8 ``hr``. On the device, in one call for the batch, it becomes float, and low
resolution follows by the project's one definition (``sr_module.degrade``). Steps are the unit: an
"epoch" is ``steps_per_epoch`` batches, after which validation runs.
"""

import logging
import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pipeline.cache import GIB, Cache
from pipeline.damage import Damage, Skipped
from pipeline.index import Index, Opener, Shard, load_index, open_shard
from pipeline.loaders import Loader, TrainLoader, reading
from pipeline.pairs import pair
from pipeline.samples import ShardReader
from pipeline.shard_checks import check_cache, check_frames, check_pieces
from pipeline.stream import TrainStream, ValStream
from pipeline.transfer import Retry, is_remote
from sr_module.degrade import AnyDegradation, Degradation

logger = logging.getLogger(__name__)


class ShardData(pl.LightningDataModule):
    """Training and validation batches ``(lr, hr)`` from the shards that ``srdet shards`` wrote.

    For a network of several frames ``lr`` is a clip and ``hr`` its middle frame.

    Args:
        shards: folder or address (http, https, s3, gs, ...) that holds index.json.
        scale: enlargement the network is trained for; hr is cut to its multiples.
        frames: that the network reads; 1 or as many as the clips of the shards have, or fewer.
        repeat_still: whether a network of several frames may be given shards of single pictures,
            each repeated as if nothing moved.
        batch_size: crops a step and rank.
        crop: side of an hr crop in pixels.
        steps_per_epoch: training steps between two validations.
        crops_per_picture: crops cut from each decoded picture.
        workers: processes that read and decode.
        shuffle_buffer: samples (undecoded) that a reader draws from.
        val_limit: at most so many validation pictures; null takes all.
        degradation: what makes lr of hr besides the reduction; null is the reduction alone.
        margin: hr pixels around a training crop that are degraded with it and then cut off, each
            crop at a place of its own, so that borders and JPEG's blocks lie anywhere.
        seed: of order, crops, orientations and noise.
        cache: folder for copies of shards that come over the network; null keeps none.
        cache_gib: bound of all copies together.
        retry_s: seconds that a server may be away before the run stops.
        max_bad_share: share of the samples that may be damaged or out of reach before it stops.
        pin_memory: whether batches go to the device through page-locked memory.
    """

    def __init__(
        self,
        shards: str,
        *,
        scale: int = 4,
        frames: int = 1,
        repeat_still: bool = False,
        batch_size: int = 16,
        crop: int = 96,
        steps_per_epoch: int = 1000,
        crops_per_picture: int = 1,
        workers: int = 2,
        shuffle_buffer: int = 256,
        val_limit: int | None = None,
        degradation: AnyDegradation | None = None,
        margin: int = 0,
        seed: int = 0,
        cache: Path | None = None,
        cache_gib: float = 50.0,
        retry_s: float = 300.0,
        max_bad_share: float = 0.1,
        pin_memory: bool = False,
    ) -> None:
        super().__init__()
        self.shards, self.batch_size, self.crop, self.scale = shards, batch_size, crop, scale
        self.frames, self.repeat_still = frames, repeat_still
        self.steps_per_epoch, self.crops_per_picture = steps_per_epoch, crops_per_picture
        self.workers, self.shuffle_buffer, self.val_limit = workers, shuffle_buffer, val_limit
        self.degradation = degradation or Degradation(scale)
        self.margin, self.seed = margin, seed
        self.cache, self.cache_gib, self.retry = cache, cache_gib, Retry(total_s=retry_s)
        self.max_bad_share, self.pin_memory = max_bad_share, pin_memory
        self.index: Index | None = None
        self._damage: dict[str, Damage] = {}
        self._check_settings()

    def _check_settings(self) -> None:
        self._check_numbers()
        if self.workers < 0:
            raise ValueError(f"data.workers is {self.workers}; 0 reads in the training process")
        if self.val_limit is not None and self.val_limit < 1:
            raise ValueError(f"data.val_limit is {self.val_limit}; 1 or more, or null for all")
        if self.crop % self.scale:
            raise ValueError(
                f"data.crop {self.crop} is not a multiple of the scale {self.scale}; choose one "
                "that is"
            )
        if self.margin < 0 or self.margin % self.scale:
            raise ValueError(
                f"data.margin is {self.margin}; 0, or a multiple of the scale {self.scale}"
            )
        if self.degradation.scale != self.scale:
            raise ValueError(
                f"data.degradation reduces by {self.degradation.scale}, the network enlarges by "
                f"{self.scale}; make them equal"
            )

    def _check_numbers(self) -> None:
        counts = ("batch_size", "crop", "steps_per_epoch", "crops_per_picture", "shuffle_buffer")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"data.{name} is {getattr(self, name)}; it must be 1 or more")
        if not self.cache_gib > 0:
            raise ValueError(f"data.cache_gib is {self.cache_gib}; it must be above 0")
        if not self.retry.total_s >= 0:
            raise ValueError(f"data.retry_s is {self.retry.total_s}; 0 asks once, or more")
        if not 0 <= self.max_bad_share <= 1:
            raise ValueError(f"data.max_bad_share is {self.max_bad_share}; a share from 0 to 1")

    def setup(self, stage: str) -> None:
        """Reads the index (every rank, once) and checks it."""
        if self.index is None:
            self.index = load_index(self.shards, retry=self.retry, most=self.max_bad_share)
        check_pieces(self.index, self.shards, crop=self.crop, margin=self.margin)
        check_frames(self.index, self.shards, frames=self.frames, repeat_still=self.repeat_still)
        if self.cache:
            check_cache(self.index, self.shards, limit_gib=self.cache_gib)

    @property
    def digest(self) -> str:
        """Of the shards, whose index ``setup`` has read."""
        assert self.index is not None
        return self.index.digest()

    @property
    def validation(self) -> dict[str, str]:
        """What scores have in common that can be compared."""
        return {
            "shards": self.digest,
            "val_limit": str(self.val_limit),
            "degradation": repr(self.degradation),
            "seed": str(self.seed),
        }

    def skipped(self, over: Callable[[Tensor], Tensor] = lambda found: found) -> Skipped:
        """What could not be used so far of both splits: by this rank, or ``over`` all ranks."""
        # All ranks take the splits in one order: each waits for the others' sums.
        return sum((self._damage[name].totals(over) for name in sorted(self._damage)), Skipped())

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Batches of this rank; every pass is the next epoch, from where the trainer stands."""
        stream = TrainStream(
            self._reader("train"),
            batch_size=self.batch_size,
            crop=self._read_side(),
            frames=self.frames,
            batches=self.steps_per_epoch,
            crops_per_picture=self.crops_per_picture,
            buffer=self.shuffle_buffer,
            seed=self.seed,
            rank=self._rank(),
            world=self._world(),
        )
        how = reading(self.workers, pin_memory=self.pin_memory)
        return TrainLoader(stream, how, self._position)

    def val_dataloader(self) -> DataLoader[Tensor]:
        """Validation pictures, one a batch, each read by exactly one rank."""
        how = reading(min(self.workers, 1), pin_memory=self.pin_memory)
        return Loader(self._validated(), batch_size=1, **how)

    def _validated(self) -> ValStream:
        return ValStream(
            self._reader("val"),
            frames=self.frames,
            rank=self._rank(),
            world=self._world(),
            limit=self.val_limit,
        )

    def first_validated(self, count: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """The first pictures of this rank's validation as it takes them, read in this process."""
        for picture in islice(self._validated(), count):
            yield self._pair(picture.unsqueeze(0).to(device), training=False)

    def on_after_batch_transfer(self, batch: Tensor, dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """uint8 ``hr`` on the device -> ``(lr, hr)`` float32 in [0, 1].

        What is random in it is the same for the same step and rank, and in validation for the same
        picture.
        """
        return self._pair(batch, training=self.trainer is not None and self.trainer.training)

    def _pair(self, batch: Tensor, *, training: bool) -> tuple[Tensor, Tensor]:
        place = f"{self._rank()}/{self._batches_done()}" if training else f"val/{int(batch.sum())}"
        return pair(
            batch,
            self.degradation,
            frames=self.frames,
            rng=random.Random(f"noise/{self.seed}/{place}"),
            crop=self.crop if training and self.margin else None,
        )

    def _read_side(self) -> int:
        """Side of what is cut from a training picture."""
        return self.crop + 2 * self.margin

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
        before, ranks = state_dict.get("world", now["world"]), now["world"]
        if self._rank():
            return  # one rank says it
        if before != ranks:
            batch, whole = now["batch_size"], state_dict.get("batch_size", now["batch_size"])
            logger.warning(
                "the run goes on with %d ranks instead of %d: steps, weights and optimisers are "
                "exact, the place in the shards is not (samples of this epoch may come again or "
                "not at all), and a step takes %d images instead of %d",
                ranks, before, ranks * batch, before * whole,
            )  # fmt: skip
        changed = [
            f"{name} {value} -> {now[name]}"
            for name, value in state_dict.items()
            if name != "world" and value != now.get(name)
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

    def _reader(self, name: str) -> ShardReader:
        """The samples of a split, with the count of what was skipped of it so far."""
        shards = self._shards_of(name)
        if name not in self._damage:
            self._damage[name] = Damage(shards, most=self.max_bad_share, world=self._world())
        assert self.index is not None
        return ShardReader(
            shards,
            opener=self._opener(),
            damage=self._damage[name],
            frames=self.index.frames,
        )

    def _opener(self) -> Opener:
        fetch = partial(open_shard, retry=self.retry)
        if self.cache is None or not is_remote(self.shards):
            return fetch
        return Cache(self.cache, limit=int(self.cache_gib * GIB), fetch=fetch).open

    def _shards_of(self, name: str) -> dict[str, Shard]:
        """Path or address of each shard of a split, with what the index says of it."""
        if self.index is None:
            self.setup("fit")
        assert self.index is not None
        split = self.index.splits.get(name)
        if split is None or not split.samples:
            cure = "; write them with --val above 0 from two or more pictures"
            raise ValueError(
                f"the shards in '{self.shards}' have no {name} samples{cure * (name == 'val')}"
            )
        return {f"{self.shards.rstrip('/')}/{shard.name}": shard for shard in split.shards}

    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    def _world(self) -> int:
        return self.trainer.world_size if self.trainer else 1
