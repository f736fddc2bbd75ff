"""What training could not use of its shards, told with its curves."""

import pytorch_lightning as pl
from torch import Tensor

from pipeline.damage import SKIPPED_SAMPLES, SKIPPED_SHARDS, SMALL_SAMPLES
from pipeline.data import ShardData


class TellSkipped(pl.Callback):
    """Logs at each validation what all ranks together have skipped so far, each sample once."""

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Every rank's part: ranks read different samples and find different damage."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.sanity_checking or not isinstance(data, ShardData):
            return

        def over_ranks(found: Tensor) -> Tensor:
            total = trainer.strategy.reduce(found.to(pl_module.device), reduce_op="sum")
            assert isinstance(total, Tensor)
            return total.cpu()

        told = data.skipped(over_ranks)
        counts = {
            SKIPPED_SAMPLES: told.samples, SKIPPED_SHARDS: told.shards, SMALL_SAMPLES: told.small,
        }  # fmt: skip
        pl_module.log_dict({name: float(count) for name, count in counts.items()})
