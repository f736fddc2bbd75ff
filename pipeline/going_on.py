"""Whether a run goes on, from where, under which settings: found out before anything is written.

A checkpoint says under which settings it was written. What it was trained as must be the same;
rates, schedules, losses and the like may change, and those of the settings hold.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytorch_lightning as pl
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from pipeline import checkpoints
from pipeline.checkpoints import LAST
from pipeline.tracking import flatten

logger = logging.getLogger(__name__)

CLASS, MODEL = "model.class_path", "model.init_args."
FIXED = ("arch", "arch_args", "scale", "discriminator", "discriminator_args")
"""Of the model: what a checkpoint's weights are the weights of."""
MOMENTS = ("optimizer", "layer_factors")
"""Of an optimisation: by which its state is laid out."""
PLACES = ("run.", "ray.", "data.shards", "trainer.default_root_dir")
"""Settings that do not tell what is trained. Shards are known by their digest."""
SHARDS = "the shards' content"
NOTED = "note"
"""Under which name a checkpoint holds its note, among the states of callbacks."""


@dataclass(frozen=True)
class Note:
    """What a checkpoint says of the run that wrote it.

    Attributes:
        settings: all that are not about places, flat.
        shards: digest of the index; empty where it does not matter.
    """

    settings: dict[str, str] = field(default_factory=dict)
    shards: str = ""

    @classmethod
    def of(cls, config: Mapping[str, Any], shards: str = "") -> Self:
        """From all settings of a run, resolved, and the digest of its shards."""
        flat = {key: value for key, value in flatten(config).items() if not key.startswith(PLACES)}
        if CLASS in flat:  # which may be named with its module or without
            flat[CLASS] = flat[CLASS].rpartition(".")[2]
        return cls(flat, shards)

    def changed(self, now: "Note") -> dict[str, str]:
        """Names of what differs in ``now``, each with ``old -> new``."""
        names = [*self.settings, *(name for name in now.settings if name not in self.settings)]
        pairs = {n: (self.settings.get(n, "None"), now.settings.get(n, "None")) for n in names}
        if self.shards and now.shards:
            pairs[SHARDS] = self.shards[:12], now.shards[:12]
        return {name: f"{old} -> {new}" for name, (old, new) in pairs.items() if old != new}


@dataclass(frozen=True)
class Start:
    """Where a run begins.

    Attributes:
        path: of the checkpoint that it goes on from; None begins anew.
        step: of that checkpoint.
        changed: settings that are others since it was written, each with ``old -> new``.
    """

    path: Path | None = None
    step: int = 0
    changed: Mapping[str, str] = field(default_factory=dict)

    def ended(self, max_steps: int) -> bool:
        """Whether there is nothing left to train."""
        return self.path is not None and 0 <= max_steps <= self.step

    def told(self, max_steps: int) -> str:
        """For people; empty for a run that begins anew."""
        if self.path is None:
            return ""
        said = f"goes on from step {self.step} ({self.path})"
        if self.ended(max_steps):
            said += (
                f": nothing is left to train, trainer.max_steps is {max_steps}; the network is "
                "scored and written again"
            )
        if self.changed:
            said += f"\nwith other settings than before: {listed(self.changed)}"
        return said

    @property
    def tags(self) -> dict[str, str]:
        """For the run in MLflow, whose parameters keep the values that it began with."""
        return {f"settings.from_step_{self.step}": listed(self.changed)} if self.changed else {}


def start_of(folder: Path, resume: str, note: Note, *, says: bool = True) -> Start:
    """Where a run in ``folder`` begins.

    Args:
        folder: of the run.
        resume: "auto" goes on, "never" refuses a folder that holds a run.
        note: of the run as it is to be now.
        says: whether to warn of damaged checkpoints; one rank is enough.

    Raises:
        FileExistsError: the folder holds a run and ``resume`` is "never".
        ValueError: every checkpoint is damaged, or the run there is another one.
    """
    path = resume_point(folder, resume, says=says)
    if path is None:
        return Start()
    saved = torch.load(path, weights_only=True, mmap=True, map_location="cpu")
    step: int = saved["global_step"]
    # Those of before this was noted say nothing, and are taken as they are.
    before = Note(**saved["callbacks"].get(NOTED, {}))
    if not before.settings:
        return Start(path, step)
    changed = before.changed(note)
    other = {name: values for name, values in changed.items() if _is_fixed(name)}
    if other:
        raise ValueError(
            f"the run in {folder}, at step {step}, is another one ({listed(other)}); choose "
            f"another --run.out, or remove {folder / LAST} to begin anew there"
        )
    return Start(path, step, changed)


def _is_fixed(name: str) -> bool:
    """Whether a run with another value of this setting is another run."""
    parts = name.split(".")
    of_model = name.startswith(MODEL) and (parts[2] in FIXED or set(MOMENTS) & set(parts[3:]))
    return name in (CLASS, SHARDS) or bool(of_model)


def listed(changed: Mapping[str, str]) -> str:
    """Names and values of settings, for people."""
    return ", ".join(f"{name} {values}" for name, values in changed.items())


def resume_point(folder: Path, resume: str, *, says: bool = True) -> Path | None:
    """The checkpoint in ``folder`` to go on from, if there is one; damaged ones are passed over.

    Args:
        folder: of the run.
        resume: "auto" goes on, "never" refuses a folder that holds a run.
        says: whether to warn of damaged ones; one rank is enough.

    Raises:
        FileExistsError: the folder holds a run and ``resume`` is "never".
        ValueError: every checkpoint is damaged.
    """
    last = folder / LAST
    if resume == "never" and last.exists():
        raise FileExistsError(
            f"{last} exists; go on with --run.resume auto, or choose another --run.out"
        )
    found = checkpoints.newest(folder)
    for path, damage in found.damaged.items() if says else ():
        logger.warning("%s is damaged: %s; the one before is used", path, damage)
    return found.path


class TakeSettings(pl.Callback):
    """After a resume, rates and their schedules are those of the settings, not of the checkpoint.

    A run that goes on under other settings, as in a sweep that changes them while it trains, would
    otherwise keep the rates with which the checkpoint was written. Under the same settings nothing
    changes. What the optimisers have learned (their moments) stays in any case.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Called when the checkpoint's state is in place."""
        made: Any = pl_module.configure_optimizers()
        if isinstance(made, Optimizer):
            return  # without a schedule: one that moves nothing and only counts
        if isinstance(made, dict):
            made = [made["optimizer"]], [made["lr_scheduler"]["scheduler"]]
        for optimizer, fresh in zip(trainer.optimizers, made[0], strict=True):
            for group, settings in zip(optimizer.param_groups, fresh.param_groups, strict=True):
                group.update({key: v for key, v in settings.items() if key != "params"})
        for config, fresh in zip(trainer.lr_scheduler_configs, made[1], strict=True):
            _follow(config.scheduler, fresh.base_lrs)


def _follow(schedule: Any, rates: list[float]) -> None:  # noqa: ANN401 (Lightning's union)
    """Has a schedule go on from these first rates, at the step where it is."""
    assert isinstance(schedule, LambdaLR)
    schedule.base_lrs = list(rates)
    factors = [factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
    now = [rate * factor for rate, factor in zip(rates, factors, strict=True)]
    schedule._last_lr = list(now)
    for group, rate in zip(schedule.optimizer.param_groups, now, strict=True):
        group["lr"] = rate
