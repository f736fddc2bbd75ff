"""What a trial reports to Ray: each validation, with the state to go on from, and how it does.

Where a trial is started again, after a failure, a stop of the whole sweep, or because it takes over
another trial's state, it goes on from the newest checkpoint of the right origin: its own, or the
other's.
"""

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from pipeline.checkpoints import LAST, newest
from pipeline.files import atomic_file, link
from pipeline.resume import ends, stop_file
from pipeline.sweeps.settings import Mode
from pipeline.train import Setup, export, period
from sr_module.checkpoint import read_provenance

BEST_NET = "chosen.safetensors"
"""The network of a trial that counts in the sweep."""
ORIGIN = "origin.json"
STATE = ".report-"
"""How folders begin that hold a state for Ray, until it has copied it."""


class Reports(pl.Callback):
    """Reports each validation with the state to go on from, and keeps the network that counts.

    The last validation is reported when the run is closed and its files are written, since a
    scheduler may end the trial in that very moment.

    Args:
        setup: of the run.
        objective: of the sweep: metric -> max or min, the first one leads.
        numbers: settings of the trial that are logged: they may change while it trains.
        name: of the trial.
        report: is given metrics and a folder with the state.
    """

    def __init__(
        self,
        setup: Setup,
        objective: Mapping[str, Mode],
        numbers: Mapping[str, float],
        name: str,
        report: Callable[[dict[str, Any], Path], None],
    ) -> None:
        self.training, self.name, self.report = setup, name, report
        self.objective, self.numbers = dict(objective), dict(numbers)
        self.pending: dict[str, Any] = {}

    @property
    def net(self) -> Path:
        """The network that counts."""
        return self.training.settings.out / BEST_NET

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reports, unless the run ends here.

        Raises:
            ValueError: an objective is not among the metrics.
        """
        if trainer.sanity_checking:
            return
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        if missing := [key for key in self.objective if key not in metrics]:
            raise ValueError(
                f"metric {missing[0]} is not reported; training reports {', '.join(metrics)}"
            )
        if trainer.logger is not None:
            trainer.logger.log_metrics(self.numbers, trainer.global_step)
        self._keep(trainer, metrics)
        batch = self.training.data.batch_size * trainer.accumulate_grad_batches
        self.pending = {
            **metrics,
            "step": trainer.global_step,
            "validations": -(-trainer.global_step // period(self.training.config)),
            "images": trainer.global_step * batch * trainer.world_size,
            "trial_name": self.name,
        }
        if not ends(trainer):
            trainer.strategy.checkpoint_io.teardown()  # waits for the state that is being written
            self.last()

    def last(self) -> None:
        """Reports the last validation, if it was not yet."""
        if not self.pending:
            return
        metrics, self.pending = self.pending, {}
        out = self.training.settings.out
        with tempfile.TemporaryDirectory(prefix=STATE, dir=out) as place:
            self.state(Path(place), metrics["step"])
            self.report(metrics, Path(place))

    def state(self, place: Path, step: int) -> None:
        """Puts the state to go on from into a folder, with whose it is."""
        out = self.training.settings.out
        link(out / LAST, place / LAST)
        origin = {"trial": self.name, "step": step, "branch": _branch(out)}
        (place / ORIGIN).write_text(json.dumps(origin))

    def _keep(self, trainer: pl.Trainer, metrics: Mapping[str, float]) -> None:
        """The best network by the one objective; of several objectives, the newest."""
        metric, mode = next(iter(self.objective.items()))
        score = metrics[metric]
        if not trainer.is_global_zero or not math.isfinite(score):
            return
        if len(self.objective) == 1 and self.net.exists():
            known: Any = read_provenance(self.net)
            before = known["metrics"].get(metric, math.nan)
            if not (score > before if mode == "max" else score < before):
                return
        logger: Any = trainer.logger
        export(self.training, logger.run, self.net)


def tidy(folder: Path) -> None:
    """Removes what ended processes of a trial left: states on their way, and a wish to stop."""
    for left in folder.glob(f"{STATE}*"):
        shutil.rmtree(left)
    stop_file(folder).unlink(missing_ok=True)


def _branch(folder: Path) -> str:
    """Whose state the folder holds: its own trial's, or one that was taken over."""
    noted = folder / ORIGIN
    return str(json.loads(noted.read_text())["branch"]) if noted.exists() else folder.name


def take_over(given: Path | None, folder: Path, name: str) -> None:
    """Makes the folder's newest checkpoint the one to go on from.

    What the folder holds is newer than what Ray knows, as long as it is of the same branch: Ray
    notes what was reported only now and then.

    Args:
        given: a folder of ``Reports.state``: what Ray knows, if it knows any.
        folder: of the trial.
        name: of the trial.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tidy(folder)  # after a process that was killed
    if given is None:
        return
    origin = json.loads((given / ORIGIN).read_text())
    own = origin["trial"] == name
    branch = origin["branch"] if own else f"{origin['trial']} at step {origin['step']}"
    if branch == _branch(folder) and newest(folder).path is not None:
        return
    for old in folder.glob("last*.ckpt"):
        old.unlink()
    with atomic_file(folder / LAST) as temporary:
        shutil.copyfile(given / LAST, temporary)
    with atomic_file(folder / ORIGIN) as temporary:
        temporary.write_text(json.dumps({"branch": branch}))
