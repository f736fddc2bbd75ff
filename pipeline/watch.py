"""What a person sees of a training run while it goes: speed, pictures, the state of the network."""

import logging
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import Logger
from torch import Tensor
from torch.nn import functional as F

from pipeline.profiling import LoaderClock
from pipeline.tracking import Run
from sr_module.net import evaluating
from sr_module.resize import imresize
from sr_module.training import Batch, SRTraining

ZOOM = 2
STRIP_SIDE = 128  # hr pixels of the middle of a picture that a strip shows
APART = 8  # pixels between the strips of a sheet
SHEET = "validation.png"
"""A run's newest strips, among its artifacts."""


class Throughput(pl.Callback):
    """Logs images a second, the share of time waiting for data, learning rate, images seen."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.seen = 0
        """Images of all ranks so far, those before a resume included."""
        self._before, self._began, self._stopped = 0.0, 0.0, 0.0
        self._loader = LoaderClock()
        self._restart()

    @property
    def seconds(self) -> float:
        """Training and validating so far; what came after the last checkpoint of a stop is lost."""
        return self._before + self._stopped - self._began

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clocks."""
        given = getattr(trainer, "profiler", None)
        self._loader = given if isinstance(given, LoaderClock) else LoaderClock()
        trainer.profiler = self._loader  # type: ignore[attr-defined]
        self._began = self._stopped = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stops it, behind the last validation."""
        self._stopped = time.perf_counter()

    def _restart(self) -> None:
        self._since, self._images = time.perf_counter(), 0
        self._waited = self._loader.waited

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validation and worker start between epochs are not training speed."""
        self._restart()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Counts, and logs every ``every`` steps."""
        self._stopped = time.perf_counter()
        images = len(batch[1]) * trainer.world_size
        self._images += images
        self.seen += images
        if trainer.global_step % self.every:
            return
        seconds = self._stopped - self._since
        pl_module.log("train/images_per_s", self._images / seconds, prog_bar=True)
        pl_module.log(
            "train/data_wait", (self._loader.waited - self._waited) / seconds, prog_bar=True
        )
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
    """Logs strips ``LR | bicubic | SR | HR`` of the first validation pictures, with their step.

    The newest of them also stand below one another in the file ``SHEET``, for the run's page.

    Args:
        count: pictures that are shown.
        first: gives the first so many of them on a device. With it they are shown before the first
            step too: MLflow's image grid opens at step 0, and is empty where no picture is.
    """

    def __init__(
        self, count: int, first: Callable[[int, torch.device], Iterable[Batch]] | None = None
    ) -> None:
        self.count, self.first = count, first
        self._strips: list[Tensor] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What the network draws before it has learnt anything."""
        if self.first is None or trainer.global_step:
            return
        with evaluating(pl_module):
            for number, batch in enumerate(self.first(self.count, pl_module.device)):
                self._show(trainer, pl_module, batch, number)
        self._write_sheet(trainer)

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
        if batch_idx < self.count and not trainer.sanity_checking:
            self._show(trainer, pl_module, batch, batch_idx)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The sheet of the strips just made."""
        self._write_sheet(trainer)

    def _show(
        self, trainer: pl.Trainer, model: pl.LightningModule, batch: Batch, number: int
    ) -> None:
        assert isinstance(model, SRTraining)
        assert isinstance(trainer.logger, Recorder)
        self._strips.append(strip(model, *batch))
        trainer.logger.picture(f"pictures/validation_{number}", self._strips[-1])

    def _write_sheet(self, trainer: pl.Trainer) -> None:
        if self._strips:
            assert isinstance(trainer.logger, Recorder)
            # Not zoomed, they fit beside the columns of MLflow's page.
            strips = [picture[:, ::ZOOM, ::ZOOM] for picture in self._strips]
            trainer.logger.run.sheet(below_one_another(strips), SHEET)
            self._strips.clear()


def below_one_another(pictures: Sequence[Tensor]) -> Tensor:
    """Pictures ``(3, h, w)`` in [0, 1] of any sizes as one, on white, a little apart."""
    width = max(picture.shape[2] for picture in pictures)
    rows = [
        F.pad(picture, (0, width - picture.shape[2], 0, APART), value=1.0) for picture in pictures
    ]
    return torch.cat(rows, dim=1)[:, :-APART]


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


class Reporter(pl.Callback):
    """Hands every validation's metrics to a function, such as a sweep's."""

    def __init__(self, report: Callable[[dict[str, float]], None]) -> None:
        self.report = report

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """All metrics so far, with the step."""
        if not trainer.sanity_checking:
            metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
            self.report({**metrics, "step": float(trainer.global_step)})


def quiet_lightning() -> None:
    """Keeps Lightning's start-up notes and advice off the terminal; its errors stay."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"pytorch_lightning|lightning_fabric|torch\.")
