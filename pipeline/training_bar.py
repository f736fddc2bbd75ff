"""The bar of a training on a terminal, and its lines in a log: where it stands and how it goes."""

import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
from rich.progress import TaskID

from pipeline.outcome import Best
from pipeline.progress import StepsBar, console
from sr_module.training import Batch

SPEED = ("train/images_per_s", "train/data_wait", "train/learning_rate")
TOLD = {
    "train/images_per_s": "{:.1f} images/s",
    "train/data_wait": "{:.0%} waiting for data",
    "train/learning_rate": "learning rate {:.3g}",
    "train/loss": "loss {:.4g}",
    "val/psnr_y": "PSNR {:.2f} dB",
}
"""What the bar says of each number."""


def _no_best() -> None:
    """What a run that keeps none says of its best network."""


class Bar(pl.Callback):
    """A bar over all steps of the run, with loss, speed, data wait, rate, scores, best, time left.

    Args:
        what: is done.
        every: steps between two looks at the numbers. They are those that were logged then, so that
            no step waits for a device on the bar's account.
        best: tells the best network so far.
    """

    def __init__(
        self, what: str, *, every: int = 50, best: Callable[[], Best | None] = _no_best
    ) -> None:
        self.what, self.every, self.best = what, every, best
        self._progress = StepsBar()
        self._task: TaskID | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Opens the bar where the run stands, which after a resume is not at 0."""
        total = trainer.max_steps if trainer.max_steps >= 0 else None
        self._task = self._progress.add_task(
            self.what, total=total, completed=trainer.global_step, said="speed follows soon"
        )
        self._progress.start()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Advances."""
        assert self._task is not None
        self._progress.update(self._task, completed=trainer.global_step)
        if trainer.global_step % self.every == 0:
            self._say(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """New scores."""
        if self._task is not None:
            self._say(trainer)

    def _say(self, trainer: pl.Trainer) -> None:
        assert self._task is not None
        numbers = {name: float(value) for name, value in trainer.callback_metrics.items()}
        told = [text.format(numbers[name]) for name, text in TOLD.items() if name in numbers]
        best = self.best()
        told += [f"best {best.score:.4g} at step {best.step}"] if best else []
        self._progress.update(self._task, said=" · ".join(told))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leaves the full bar on the terminal."""
        self._progress.stop()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Gives the terminal back before the error is printed."""
        self._progress.stop()


class Lines(pl.Callback):
    """One line a validation, where the output is no terminal and a bar would only fill the log."""

    def __init__(self, best: Callable[[], Best | None] = _no_best) -> None:
        self.best = best
        self._began, self._first = 0.0, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Notes from when and where the time left is reckoned."""
        self._began, self._first = time.perf_counter(), trainer.global_step

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prints step, scores, speed, and how long the run will yet take."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        scores = {k: float(v) for k, v in trainer.callback_metrics.items()}
        kept = [k for k in scores if k.startswith(("val/", "train/loss")) or k in SPEED]
        said = ", ".join(f"{k} {scores[k]:.4g}" for k in kept)
        best = self.best()
        told = [said, *([f"best {best}"] if best else []), self._left(trainer)]
        line = f"step {trainer.global_step}: {'; '.join(told)}"
        console.print(line, highlight=False, soft_wrap=True)

    def _left(self, trainer: pl.Trainer) -> str:
        done, left = trainer.global_step - self._first, trainer.max_steps - trainer.global_step
        if left <= 0 <= trainer.max_steps:
            return "no steps left"
        if not done or trainer.max_steps < 0:
            return "no end known"
        seconds = round((time.perf_counter() - self._began) / done * left)
        return f"{left} steps and {timedelta(seconds=seconds)} left"


def show(
    what: str, *, every: int = 50, best: Callable[[], Best | None] = _no_best
) -> list[pl.Callback]:
    """The bar on a terminal, lines in a log.

    Args:
        what: is done.
        every: steps between two points of the curves.
        best: is asked for the best network so far.
    """
    if sys.stderr.isatty():
        return [Bar(what, every=every, best=best)]
    console.print(f"{what} ...", highlight=False)
    return [Lines(best)]
