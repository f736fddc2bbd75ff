"""One trial, in a process of Ray: a training run whose validations are reported with their state.

A trial lives in a folder of its own below the sweep's, like any run of ``srdet train``. Where it is
started again, after a failure, a stop of the whole sweep, or because it takes over another trial's
state, it goes on from the newest checkpoint of the right origin: its own, or the other's.
"""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch

from pipeline.addresses import default_uri, without_credentials
from pipeline.checkpoints import LAST, newest
from pipeline.files import atomic_file, link
from pipeline.origin import COMMAND
from pipeline.resume import ends, stop_file
from pipeline.sweeps.checks import LPIPS, STUDIED
from pipeline.sweeps.settings import GainStudy, Lpips, Mode
from pipeline.sweeps.space import Point
from pipeline.sweeps.words import words_of
from pipeline.tracking import Run
from pipeline.train import Setup, configured, export, fit, period
from sr_module.checkpoint import read_provenance

if TYPE_CHECKING:
    from ray.tune import Checkpoint

BEST_NET = "chosen.safetensors"
"""The network of a trial that counts in the sweep."""
ORIGIN = "origin.json"
STATE = ".report-"
"""How folders begin that hold a state for Ray, until it has copied it."""
POINT = "point"
"""Under which name a trial's settings travel through Ray."""
WAITING = 2.0**29
"""Bytes of a process that trains nothing; Ray wants to hear of something that it takes."""
NUMBER = "number"
"""Beside them: the place of a point that was known before."""


@dataclass(frozen=True)
class Plan:
    """What all trials of a sweep have in common.

    Attributes:
        base: words of `srdet train`.
        out: folder of the sweep.
        objective: metric -> max or min, the first one leads.
        labels: setting -> short name.
        workers: processes that train a trial.
        threads: of each.
        gpus: of each.
        parent: the sweep's run in MLflow: address without password, experiment and run.
        lpips: for the objective val/lpips.
        study: for the objectives detect/...
    """

    base: list[str]
    out: Path
    objective: Mapping[str, Mode]
    labels: Mapping[str, str]
    workers: int
    threads: int
    gpus: float
    parent: Mapping[str, str]
    lpips: Lpips
    study: GainStudy | None

    def run(self) -> Run:
        """The sweep's run; a password comes from this process's environment."""
        named = default_uri()
        uri = named if without_credentials(named) == self.parent["uri"] else self.parent["uri"]
        return Run(uri, self.parent["experiment_id"], self.parent["run_id"])


def noted(run: Run) -> dict[str, str]:
    """A run as other processes may know it, and files may hold it: without a password."""
    uri = without_credentials(run.uri)
    return {"uri": uri, "experiment_id": run.experiment_id, "run_id": run.stored_id}


def point_of(config: Mapping[str, Any]) -> Point:
    """A trial's settings, as Ray carries them."""
    return {key: value for key, value in config.get(POINT, {}).items() if key != NUMBER}


def bundles(plan: Plan) -> dict[str, float]:
    """What Ray Tune sets aside for a trial.

    Of a trial that several processes train it is the process that waits for them; Ray Train
    reserves theirs.
    """
    if plan.workers > 1:
        return {"memory": WAITING}
    return {"cpu": plan.threads, "gpu": plan.gpus}


def trial(config: dict[str, Any], *, plan: Plan) -> None:
    """What Ray calls, in a process that may have run other trials before."""
    from ray import tune

    torch.set_num_threads(plan.threads)
    os.environ[COMMAND] = "srdet tune"
    name = tune.get_context().get_trial_name()
    folder, point = plan.out / name, point_of(config)
    _place(tune.get_checkpoint(), folder, name)
    if plan.workers > 1:
        from pipeline.sweeps.together import train_together

        train_together(plan, point, folder, _report)
        return
    setup = _setup(plan, point, folder)
    reports = Reports(setup, plan, point, name, _report)
    fit(setup, parent=plan.run(), watching=[*measures(plan, setup), reports])
    reports.last()


def _report(metrics: dict[str, Any], folder: Path) -> None:
    from ray import tune

    tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(str(folder)))


def words_for(plan: Plan, point: Point, folder: Path) -> list[str]:
    """The trial as words of ``srdet train``."""
    title = ", ".join(f"{plan.labels[key]} {shown(value)}" for key, value in point.items())
    words = [*plan.base, *words_of(point), f"--run.out={folder}"]
    return [*words, f"--run.name={folder.name}: {title}"]


def kept(config: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint before each validation and no other."""
    return {"checkpoint_every": period(config), "keep_last": 1}


def _setup(plan: Plan, point: Point, folder: Path) -> Setup:
    """The trial as a training run."""
    setup = configured(words_for(plan, point, folder))
    own = kept(setup.config)
    settings = replace(setup.settings, **own)
    config = {**setup.config, "run": {**setup.config["run"], **own}}
    return replace(setup, settings=settings, config=config)


def shown(value: Any) -> str:  # noqa: ANN401
    """A setting's value as people read it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def measures(plan: Plan, setup: Setup) -> list[pl.Callback]:
    """What measures the objectives that training itself does not."""
    from pipeline.sweeps.objectives import GainScore, LpipsScore

    made: list[pl.Callback] = []
    if LPIPS in plan.objective:
        made.append(LpipsScore(plan.lpips))
    if plan.study and set(STUDIED) & set(plan.objective):
        made.append(GainScore(plan.study, setup.data.scale))
    return made


class Reports(pl.Callback):
    """Reports each validation with the state to go on from, and keeps the network that counts.

    The last validation is reported when the run is closed and its files are written, since a
    scheduler may end the trial in that very moment.

    Args:
        setup: of the run.
        plan: of the sweep.
        point: settings of the trial, whose numbers are logged: they may change while it trains.
        name: of the trial.
        report: is given metrics and a folder with the state.
    """

    def __init__(
        self,
        setup: Setup,
        plan: Plan,
        point: Point,
        name: str,
        report: Callable[[dict[str, Any], Path], None],
    ) -> None:
        self.training, self.name, self.report = setup, name, report
        self.objective = dict(plan.objective)
        self.numbers = {
            f"swept/{plan.labels[key]}": float(value)
            for key, value in point.items()
            if isinstance(value, int | float)
        }
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


def _place(given: "Checkpoint | None", folder: Path, name: str) -> None:
    """Makes the folder's newest checkpoint the one to go on from.

    What the folder holds is newer than what Ray knows, as long as it is of the same branch: Ray
    notes what was reported only now and then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tidy(folder)  # after a process that was killed
    if given is None:
        return
    with given.as_directory() as place:
        origin = json.loads((Path(place) / ORIGIN).read_text())
        own = origin["trial"] == name
        branch = origin["branch"] if own else f"{origin['trial']} at step {origin['step']}"
        if branch == _branch(folder) and newest(folder).path is not None:
            return
        for old in folder.glob("last*.ckpt"):
            old.unlink()
        with atomic_file(folder / LAST) as temporary:
            shutil.copyfile(Path(place) / LAST, temporary)
    with atomic_file(folder / ORIGIN) as temporary:
        temporary.write_text(json.dumps({"branch": branch}))
