"""What a person sets for a training run besides network, trainer and data."""

from dataclasses import dataclass
from pathlib import Path

from sr_module.choice import unknown

BEST = ("val/psnr_y", "val/ssim_y")
"""Metrics by which a network can be the best so far; of each, more is better."""


@dataclass(frozen=True)
class RunSettings:
    """Where a run lives and what it keeps.

    Attributes:
        out: folder for checkpoints, the resolved config and the networks for use.
        name: how the run is called in MLflow; null takes the folder's name.
        experiment: MLflow experiment.
        resume: "auto" goes on where the folder's last checkpoint ended, "never" refuses a folder
            that holds one.
        checkpoint_every: steps between two checkpoints for resuming.
        keep_last: checkpoints kept for resuming; should the newest be damaged, the one before
            serves.
        best: validation metric, "val/psnr_y" or "val/ssim_y"; the best network by it is kept as
            best.safetensors. null keeps none.
        log_every: steps between two points of the training curves.
        profile: so many steps are divided into phases, for a table and a picture of where a step's
            time goes; 0 for none.
        pictures: validation pictures logged as strips at each validation.
        send_last: checkpoints kept among the run's files in MLflow, for going on elsewhere; 0 sends
            none.
        register: name in MLflow's registry, such as srdet-esrgan, of which the run's network
            becomes a version: models:/srdet-esrgan@champion is the best of them. null registers
            none.
    """

    out: Path = Path("runs/train")
    name: str | None = None
    experiment: str = "srdet train"
    resume: str = "auto"
    checkpoint_every: int = 1000
    keep_last: int = 2
    best: str | None = "val/psnr_y"
    log_every: int = 50
    profile: int = 0
    pictures: int = 4
    send_last: int = 1
    register: str | None = None

    def __post_init__(self) -> None:
        if self.resume not in ("auto", "never"):
            raise ValueError(f"run.resume is '{self.resume}'; choose from auto, never")
        if self.best is not None and self.best not in BEST:
            raise unknown("metric in run.best", self.best, (*BEST, "null"))
        for name in ("checkpoint_every", "keep_last", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"run.{name} is {getattr(self, name)}; it must be 1 or more")
        if self.profile < 0:
            raise ValueError(f"run.profile is {self.profile}; it must be 0 steps or more")
        if self.send_last < 0:
            raise ValueError(f"run.send_last is {self.send_last}; it must be 0 or more")
        there = next((place for place in (self.out, *self.out.parents) if place.exists()), None)
        if there is not None and not there.is_dir():
            raise ValueError(f"run.out is {self.out}, but {there} is a file; name a folder")


@dataclass(frozen=True)
class RaySettings:
    """Training on Ray Train; other launchers leave this alone.

    Attributes:
        workers: processes that train together; 0 trains without Ray. ``--ray 4`` is short for it.
        address: of a running cluster, such as "auto" or "host:6379"; null takes RAY_ADDRESS, and
            without that a Ray in this process.
        cpus: cores that Ray sets aside for a worker and its data readers.
        gpus: GPUs of a worker, 0 or 1; null takes one where the cluster has some.
        failures: so many times the workers are started anew after one of them has died.
    """

    workers: int = 0
    address: str | None = None
    cpus: int = 1
    gpus: int | None = None
    failures: int = 3

    def __post_init__(self) -> None:
        if self.workers < 0 or self.cpus < 1 or self.failures < 0:
            raise ValueError(
                f"ray.workers {self.workers}, ray.cpus {self.cpus}, ray.failures {self.failures}: "
                "allowed are 0, 1, 0 and more"
            )
        if self.gpus not in (None, 0, 1):
            raise ValueError(
                f"ray.gpus is {self.gpus}; a worker is one process with 0 or 1 GPU: raise "
                "ray.workers instead"
            )
