"""What a person sets for a sweep besides what is searched."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pipeline.study_settings import Join, Merging, Windows
from sr_module.backbones import Backbone, Convention
from sr_module.choice import unknown

Mode = Literal["max", "min"]
SCHEDULERS = ("asha", "hyperband", "median", "pbt", "none")
SEARCHES = ("random", "grid", "tpe")


@dataclass(frozen=True)
class Scheduler:
    """Which trials go on; the unit of time is the validation.

    Attributes:
        kind: "asha" stops those that lag behind at each rung, without waiting (Li et al. 2018,
            arXiv:1810.05934); "hyperband" does so in brackets that wait (Li et al. 2016,
            arXiv:1603.06560); "median" stops what is below the median of the others' averages
            (Golovin et al. 2017, Google Vizier, section 3.2.2); "pbt" has the worst take over
            network and settings of the best, and changes the settings a little (Jaderberg et al.
            2017, arXiv:1711.09846); "none" lets all end.
        grace: validations that every trial may have before it can be stopped.
        reduction: of asha and hyperband: one in so many goes on at each rung.
        interval: of pbt: validations between two changes.
        mutate: of pbt: settings of the space that change; empty means all of them.
        resample: of pbt: chance that a changed setting is drawn anew instead of moved by a fifth.
        quantile: of pbt: share of the trials that are the worst, and the best.
        synchronous: of pbt: trials wait for one another before a change, for runs that can be
            repeated and trials that end soon; without it the fast ones go on.
    """

    kind: str = "asha"
    grace: int = 1
    reduction: float = 4.0
    interval: int = 1
    mutate: list[str] = field(default_factory=list)
    resample: float = 0.25
    quantile: float = 0.25
    synchronous: bool = False

    def __post_init__(self) -> None:
        if self.kind not in SCHEDULERS:
            raise unknown("scheduler.kind", self.kind, SCHEDULERS)
        if self.grace < 1 or self.interval < 1 or self.reduction <= 1:
            raise ValueError(
                "scheduler.grace and scheduler.interval must be at least 1 and scheduler.reduction "
                f"above 1, got {self.grace}, {self.interval} and {self.reduction}"
            )
        if not 0 < self.quantile <= 0.5 or not 0 <= self.resample <= 1:
            raise ValueError(
                "scheduler.quantile must be above 0 and at most 0.5 and scheduler.resample from 0 "
                f"to 1, got {self.quantile} and {self.resample}"
            )


@dataclass(frozen=True)
class Resources:
    """What one trial gets.

    Attributes:
        workers: processes that train a trial together (DDP, started by Ray Train).
        cpus: cores of each, which are also its threads.
        gpus: of each, 1 or a fraction: 0.5 puts two trials on each GPU. null gives each process a
            GPU where the cluster has any.
    """

    workers: int = 1
    cpus: int = 1
    gpus: float | None = None

    def __post_init__(self) -> None:
        if self.workers < 1 or self.cpus < 1 or (self.gpus or 0.0) < 0:
            raise ValueError(
                "resources.workers and resources.cpus must be at least 1 and resources.gpus not "
                f"negative, got {self.workers}, {self.cpus} and {self.gpus}"
            )
        if (self.gpus or 0.0) > 1:
            raise ValueError(
                f"resources.gpus is {self.gpus}: a training process uses one GPU; choose 1 or a "
                "fraction, and more resources.workers"
            )
        if self.workers > 1 and self.gpus not in (None, 0, 1):
            raise ValueError(
                f"resources.gpus is {self.gpus}, and resources.workers {self.workers}: processes "
                "that train together need a whole GPU each; choose 1, or 1 worker"
            )


@dataclass(frozen=True)
class Budget:
    """What a sweep may spend; what runs when one of them is spent is stopped.

    Attributes:
        hours: of wall time, those before a resume included.
        images: crops that all trials together see.
    """

    hours: float | None = None
    images: int | None = None

    def __post_init__(self) -> None:
        for name in ("hours", "images"):
            given = getattr(self, name)
            if given is not None and given <= 0:
                raise ValueError(f"budget.{name} must be positive, or null for no end; got {given}")


@dataclass(frozen=True)
class Hopeless:
    """Trials that need not go on, whatever the scheduler thinks. Not finite is always hopeless.

    Attributes:
        floor: the first objective must have reached this (of "min": come down to it) ...
        after: ... after so many validations.
    """

    floor: float | None = None
    after: int = 1


@dataclass(frozen=True)
class Lpips:
    """The network by which ``val/lpips`` compares; needed for that objective alone.

    Attributes:
        backbone: papers print "alex".
        weights: file of its features; null takes torchvision's, downloaded once.
        heads: file of the linear heads; null takes those in the torchmetrics package.
        convention: what the features in weights were trained to see.
    """

    backbone: Backbone = "alex"
    weights: Path | None = None
    heads: Path | None = None
    convention: Convention = "torchvision"

    def absolute(self) -> "Lpips":
        """The same network from any working folder."""
        weights, heads = (path and path.resolve() for path in (self.weights, self.heads))
        return replace(self, weights=weights, heads=heads)


@dataclass(frozen=True)
class GainStudy:
    """The detection study behind ``detect/gain_low``, made at each validation of each trial.

    Its pictures must not be those on which the winner is judged afterwards: the winner was chosen
    on them.

    Attributes:
        coco: annotation file of the validation split.
        images: folder of its pictures.
        detector: a file of `srdet detect train`, a YOLOX (.onnx), or a torchvision family.
        detector_weights: for a torchvision family: "DEFAULT" or a file.
        limit: only the first so many pictures.
        windows: how windows are laid.
        join: what of windows and whole picture counts.
        merge: how what was seen twice becomes one.
        resamples: draws of pictures behind the interval.
        batch_size: windows enlarged at once.
    """

    coco: Path
    images: Path
    detector: str
    detector_weights: str | None = None
    limit: int | None = None
    windows: Windows = Windows()  # noqa: RUF009 (frozen)
    join: Join = Join()  # noqa: RUF009 (frozen)
    merge: Merging = Merging()  # noqa: RUF009 (frozen)
    resamples: int = 1000
    batch_size: int = 16

    def absolute(self) -> "GainStudy":
        """The same study from any working folder."""
        detector = Path(self.detector)
        return replace(
            self,
            coco=self.coco.resolve(),
            images=self.images.resolve(),
            detector=str(detector.resolve()) if detector.exists() else self.detector,
        )
