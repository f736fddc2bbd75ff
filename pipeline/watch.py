"""What a person sees of a training run while it goes: speed, pictures, the state of the network."""

import logging
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import Logger
from rich.progress import TaskID
from torch import Tensor
from torch.nn import functional as F

from pipeline.outcome import Best
from pipeline.progress import console, steps_bar
from pipeline.tracking import Run
from sr_module.resize import imresize
from sr_module.training import Batch, SRTraining

ZOOM = 2
STRIP_SIDE = 128  # hr pixels of the middle of a picture that a strip shows


class Throughput(pl.Callback):
    """Logs images a second, the share of time waiting for data, learning rate, images seen."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.seen = 0
        """Images of all ranks so far, those before a resume included."""
        self._before, self._began, self._stopped = 0.0, 0.0, 0.0
        self._restart()

    @property
    def seconds(self) -> float:
        """Training and validating so far; what came after the last checkpoint of a stop is lost."""
        return self._before + self._stopped - self._began

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock."""
        self._began = self._stopped = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stops it, behind the last validation."""
        self._stopped = time.perf_counter()

    def _restart(self) -> None:
        self._since, self._images, self._waited = time.perf_counter(), 0, 0.0
        self._ended = self._since

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validation and worker start between epochs are not training speed."""
        self._restart()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """What passed since the last step's end was waiting for data."""
        self._waited += time.perf_counter() - self._ended

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Counts, and logs every ``every`` steps."""
        self._ended = self._stopped = time.perf_counter()
        images = len(batch[1]) * trainer.world_size
        self._images += images
        self.seen += images
        if trainer.global_step % self.every:
            return
        seconds = self._ended - self._since
        pl_module.log("train/images_per_s", self._images / seconds, prog_bar=True)
        pl_module.log("train/data_wait", self._waited / seconds, prog_bar=True)
        pl_module.log("train/learning_rate", trainer.optimizers[0].param_groups[0]["lr"])
        pl_module.log("train/images_seen", float(self.seen))
        self._restart()

    def state_dict(self) -> dict[str, float]:
        """Images seen and the time they took survive a resume."""
        return {"seen": self.seen, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Images seen and the time they took survive a resume."""
        self.seen, self._before = int(state_dict["seen"]), state_dict.get("seconds", 0.0)


class Recorder(Logger):
    """Writes a trainer's metrics, and pictures, down for MLflow; nothing waits for the store.

    Every point stands at the number of steps that the network has made, whatever Lightning counts:
    its own axis begins at 0, and counts batches where several make a step.

    Args:
        run: the open run.
        trainer: whose steps count.
    """

    def __init__(self, run: Run, trainer: pl.Trainer) -> None:
        super().__init__()
        self.run, self.trainer = run, trainer

    @property
    def name(self) -> str:
        """Of the experiment, in MLflow's numbering."""
        return self.run.experiment_id

    @property
    def version(self) -> str:
        """Of the run."""
        return self.run.run_id

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Nothing: the resolved config is logged where the run is opened."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """One point of each metric; without Lightning's epochs, which are none of the data."""
        told = {key: value for key, value in metrics.items() if key != "epoch"}
        self.run.metrics(told, step=self.trainer.global_step)

    def picture(self, key: str, picture: Tensor) -> None:
        """One picture."""
        self.run.picture(key, picture, step=self.trainer.global_step)


class ValidationPictures(pl.Callback):
    """Logs strips ``LR | bicubic | SR | HR`` of the first validation pictures, with their step."""

    def __init__(self, count: int) -> None:
        self.count = count

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """One strip for each of the first ``count`` pictures; none in the sanity check."""
        if batch_idx >= self.count or trainer.sanity_checking:
            return
        assert isinstance(pl_module, SRTraining)
        assert isinstance(trainer.logger, Recorder)
        picture = strip(pl_module, *batch)
        trainer.logger.picture(f"validation_{batch_idx}", picture)


def strip(model: SRTraining, lr: Tensor, hr: Tensor) -> Tensor:
    """``LR | bicubic | SR | HR`` of a picture's middle, ``(3, h, 4 * w)`` in [0, 1]."""
    scale = model.net.scale
    side = min(STRIP_SIDE // scale, *lr.shape[-2:])
    y, x = (lr.shape[-2] - side) // 2, (lr.shape[-1] - side) // 2
    small = model.net.middle(lr[:1])[..., y : y + side, x : x + side]
    big = (
        slice(0, 1),
        slice(None),
        slice(y * scale, (y + side) * scale),
        slice(x * scale, (x + side) * scale),
    )
    with torch.no_grad():
        sr = model(lr[:1])[big]
    tiles = [F.interpolate(small, scale_factor=scale), imresize(small, scale), sr, hr[big]]
    return F.interpolate(torch.cat(tiles, dim=3).float(), scale_factor=ZOOM)[0].clamp(0, 1).cpu()


SPEED = ("train/images_per_s", "train/data_wait", "train/learning_rate")


def _no_best() -> None:
    """What a run that keeps none says of its best network."""


class Bar(pl.Callback):
    """A bar over all steps of the run with loss, speed, data wait, rate, scores and time left."""

    def __init__(self, what: str, best: Callable[[], Best | None] = _no_best) -> None:
        self.what, self.best = what, best
        self._progress = steps_bar()
        self._task: TaskID | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Opens the bar where the run stands, which after a resume is not at 0."""
        self._task = self._progress.add_task(
            self.what, total=trainer.max_steps, completed=trainer.global_step, said=""
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
        """Advances; the numbers are those last logged, so nothing waits for the device."""
        assert self._task is not None
        said = _said(trainer.logged_metrics, ("train/loss", *SPEED))
        said += _said(trainer.callback_metrics, ("val/psnr_y",))
        best = self.best()
        said += f"  best {best.score:.4g} at {best.step}" if best else ""
        self._progress.update(self._task, completed=trainer.global_step, said=said)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leaves the full bar on the terminal."""
        self._progress.stop()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Gives the terminal back before the error is printed."""
        self._progress.stop()


def _said(metrics: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return "".join(f"  {n.split('/')[1]} {float(metrics[n]):.4g}" for n in names if n in metrics)


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
        if not done or trainer.max_steps < 0:
            return "no end known"
        seconds = round((time.perf_counter() - self._began) / done * left)
        return f"{left} steps and {timedelta(seconds=seconds)} left"


class Reporter(pl.Callback):
    """Hands every validation's metrics to a function, such as a sweep's."""

    def __init__(self, report: Callable[[dict[str, float]], None]) -> None:
        self.report = report

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """All metrics so far, with the step."""
        if not trainer.sanity_checking:
            metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
            self.report({**metrics, "step": float(trainer.global_step)})


def show(what: str, best: Callable[[], Best | None] = _no_best) -> list[pl.Callback]:
    """The bar on a terminal, lines in a log; ``best`` is asked for the best network so far."""
    if sys.stderr.isatty():
        return [Bar(what, best)]
    console.print(f"{what} ...", highlight=False)
    return [Lines(best)]


def quiet_lightning() -> None:
    """Keeps Lightning's start-up notes and advice off the terminal; its errors stay."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"pytorch_lightning|lightning_fabric|torch\.")
