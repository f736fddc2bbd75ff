"""One trial, in a process of Ray: a training run whose validations are reported with their state.

A trial lives in a folder of its own below the sweep's, like any run of ``srdet train``; what it
tells Ray, and from where it goes on, is in ``reports.py``.
"""

import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from pipeline.addresses import default_uri, without_credentials
from pipeline.origin import COMMAND
from pipeline.sweeps.checks import LPIPS, STUDIED
from pipeline.sweeps.reports import Reports, take_over
from pipeline.sweeps.settings import GainStudy, Lpips, Mode
from pipeline.sweeps.space import Point
from pipeline.sweeps.words import words_of
from pipeline.tracking import Run
from pipeline.train import Setup, configured, fit, period

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
    given = tune.get_checkpoint()
    with given.as_directory() if given else nullcontext() as place:
        take_over(Path(place) if place else None, folder, name)
    if plan.workers > 1:
        from pipeline.sweeps.together import train_together

        train_together(plan, point, folder, _report)
        return
    setup = _setup(plan, point, folder)
    reports = Reports(setup, plan.objective, numbers(plan, point), name, _report)
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


def numbers(plan: Plan, point: Point) -> dict[str, float]:
    """What of a trial's settings is logged as it goes: numbers, which may change meanwhile."""
    return {
        f"swept/{plan.labels[key]}": float(value)
        for key, value in point.items()
        if isinstance(value, int | float)
    }


def measures(plan: Plan, setup: Setup) -> list[pl.Callback]:
    """What measures the objectives that training itself does not."""
    from pipeline.sweeps.objectives import GainScore, LpipsScore

    made: list[pl.Callback] = []
    if LPIPS in plan.objective:
        made.append(LpipsScore(plan.lpips))
    if plan.study and set(STUDIED) & set(plan.objective):
        made.append(GainScore(plan.study, setup.data.scale))
    return made
