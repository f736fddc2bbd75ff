"""Takes training steps as ``srdet train`` does, in whatever world a launcher started it.

See ``ranks.py``. Prints the seconds of a step, by the clock and of the processor, once a process.
"""

import sys
import time

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.train_srdet import SCALE
from pipeline.heap import keep_freed_memory
from pipeline.watch import quiet_lightning
from pipeline.world import best_precision, trainer_world
from sr_module.regression import Regression

WARM = 3
"""Steps that do not count: the first allocate memory, and DDP lays its buckets anew."""


class Clock(pl.Callback):
    """When the steps that count began and ended."""

    began = ended = (0.0, 0.0)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        """Looks at the clock."""
        self.ended = time.perf_counter(), time.process_time()
        if trainer.global_step == WARM:
            self.began = self.ended


class Same(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """The same batch for every step."""

    def __init__(self, batch: int, crop: int, steps: int) -> None:
        self.pair = (
            torch.rand(batch, 3, crop // SCALE, crop // SCALE),
            torch.rand(batch, 3, crop, crop),
        )
        self.steps = steps

    def __len__(self) -> int:
        return self.steps * 8  # Lightning deals them to the ranks

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.pair


def main(together: str, batch: str, crop: str, steps: str) -> None:
    """Trains ``steps`` steps and a few more; ``together`` is "ddp", or "alone" in every process."""
    quiet_lightning()
    keep_freed_memory()
    torch.manual_seed(0)
    world = {"accelerator": "cpu", "devices": 1, "precision": best_precision("cpu")}
    if together == "ddp":
        world = trainer_world({"accelerator": "cpu"})
    clock, last = Clock(), WARM + int(steps)
    trainer = pl.Trainer(
        **world, max_steps=last, logger=False, enable_checkpointing=False, callbacks=[clock],
        enable_model_summary=False, enable_progress_bar=False,
    )  # fmt: skip
    data = DataLoader(Same(int(batch), int(crop), last), batch_size=None)
    trainer.fit(Regression("msrresnet"), data)
    taken = [
        (end - begin) / int(steps) for begin, end in zip(clock.began, clock.ended, strict=True)
    ]
    print("seconds", *taken, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
