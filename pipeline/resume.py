"""Going on after a stop: the checkpoint of a run's whole state, written so that nothing is lost."""

import signal
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

LAST = "last.ckpt"


class KeepLast(Checkpoint):
    """Writes the state of the run to ``last.ckpt``, every so many steps and after the last one.

    It is written inside the step's end, where the loops' counters say exactly which batch comes
    next: a later place, such as the end of ``fit``, would count an unfinished epoch as finished.

    Args:
        folder: of the run.
        every: steps between two checkpoints.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.path, self.every = folder / LAST, every
        self._written = -1

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Writes where it is due; batches between two steps (accumulation) are no place to stop."""
        step = trainer.global_step
        due = step % self.every == 0 or _ends(trainer)
        if due and step != self._written:
            trainer.save_checkpoint(self.path)
            self._written = step


def _ends(trainer: pl.Trainer) -> bool:
    """Whether the run ends with this batch, by steps, by epochs or by another callback's wish."""
    last_epoch = trainer.max_epochs == trainer.current_epoch + 1
    steps = trainer.global_step >= trainer.max_steps >= 0
    return steps or trainer.should_stop or (last_epoch and trainer.is_last_batch)


def resume_point(folder: Path, resume: str) -> str | None:
    """The checkpoint in ``folder`` to go on from, if there is one.

    Args:
        folder: of the run.
        resume: "auto" goes on, "never" refuses a folder that holds a run.

    Raises:
        ValueError: ``resume`` is another word.
        FileExistsError: the folder holds a run and ``resume`` is "never".
    """
    last = folder / LAST
    if resume not in ("auto", "never"):
        raise ValueError(f"run.resume is '{resume}'; choose from auto, never")
    if not last.exists():
        return None
    if resume == "never":
        raise FileExistsError(
            f"{last} exists; go on with --run.resume auto, or choose another --run.out"
        )
    return str(last)


def fit_or_stop(
    trainer: pl.Trainer,
    model: pl.LightningModule,
    data: pl.LightningDataModule,
    *,
    checkpoint: str | None,
) -> None:
    """``trainer.fit``, where a stop from outside looks like one.

    Raises:
        KeyboardInterrupt: Ctrl-C; Lightning would end the process as if by a mistake of ours.
        SystemExit: SIGTERM, with status 143; Lightning's own would claim success.
    """
    try:
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint)
    except SystemExit as stop:
        if trainer.received_sigterm:
            raise SystemExit(143) from stop
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise  # somebody else's wish, such as a sweep's that stops a laggard
        signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning switched it off
        raise KeyboardInterrupt from stop
