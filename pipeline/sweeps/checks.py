"""What is found out about a sweep before it starts, by the very parser that its trials will use."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.sweeps.settings import GainStudy, Lpips, Mode, Scheduler
from pipeline.sweeps.space import Point, Space
from pipeline.sweeps.words import words_of
from pipeline.train import Setup, configured, period
from sr_module.choice import unknown

HERE = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.precision=32-true"]
"""The checks also run where there is no GPU, such as on the head of a cluster."""

OURS = ("run.out", "run.name", "run.experiment", "run.resume", "run.checkpoint_every")
"""Settings that the sweep itself gives each trial."""

LPIPS = "val/lpips"
GAIN = "detect/gain_low"
STUDIED = (GAIN, "detect/gain", "detect/gain_high", "detect/ap")


@dataclass(frozen=True)
class Checked:
    """What the checks found out.

    Attributes:
        validations: of a trial that goes to its end.
        metrics: that every validation of a trial reports.
        scale: of the networks.
    """

    validations: int
    metrics: list[str]
    scale: int


def check(
    space: Space,
    base: Sequence[str],
    objective: Mapping[str, Mode],
    scheduler: Scheduler,
    study: GainStudy | None,
    lpips: Lpips,
) -> Checked:
    """Runs every extreme of every setting through the real parser, and builds its network.

    Raises:
        ValueError: a setting that training does not know, a value that it does not take, an
            objective that it does not report, or settings that cannot change while it runs.
        OSError: a file that a setting names, or the shards, cannot be read.
    """
    for key in space.keys:
        if key in OURS or key == "data.shards":
            raise ValueError(f"space.{key}: every trial has its own; leave it out of the space")
    try:
        start = configured([*base, *HERE])
    except ValueError as error:
        raise ValueError(f"train and fixed: {in_a_sentence(error)}") from error
    for point in space.checks():
        _check_point(point, base)
    metrics = reported(start)
    _check_objective(objective, metrics)
    if scheduler.kind == "pbt":
        _check_mutations(space, base, scheduler.mutate)
    if set(objective) & set(STUDIED):
        _check_study(study, start.data.scale)
    if LPIPS in objective:
        _check_lpips(lpips)
    start.data.setup("fit")
    return Checked(_validations(start), metrics, start.data.scale)


def _check_point(point: Point, base: Sequence[str]) -> Setup:
    try:
        setup = configured([*base, *HERE, *words_of(point)])
        setup.data.setup("fit")
        return setup
    except ValueError as error:
        named = ", ".join(f"{key}: {value}" for key, value in point.items())
        raise ValueError(f"space ({named}): {in_a_sentence(error)}") from error


def in_a_sentence(error: Exception) -> str:
    """What the parser says of nested settings, without its page about types."""
    said = str(error)
    found = re.search(r"Errors: - (.*?)(?: - Expected a NoneType| Given value)", said)
    return found[1] if found else said


def reported(setup: Setup) -> list[str]:
    """The metrics that a validation of a trial reports."""
    return [*setup.model.scores, LPIPS, *STUDIED]


def _check_objective(objective: Mapping[str, Mode], metrics: Sequence[str]) -> None:
    if not objective:
        raise ValueError(f"objective is empty; choose from: {', '.join(metrics)}, with max or min")
    for metric in objective:
        if metric not in metrics:
            raise unknown("metric in objective, which no trial reports:", metric, metrics)


def _check_study(study: GainStudy | None, scale: int) -> None:
    """Opens the pictures of the study; whether the detector knows them shows in the first trial."""
    from pipeline.sweeps.objectives import study_pictures

    if study is None:
        raise ValueError(
            f"objective: {', '.join(STUDIED)} come from a detection study; say which under "
            "detection: its coco, images and detector"
        )
    study_pictures(study, scale)


def _check_lpips(settings: Lpips) -> None:
    """Opens its network, or downloads it now rather than in the first trial."""
    from pipeline.sweeps.objectives import LpipsScore

    try:
        LpipsScore(settings)
    except OSError as error:
        raise type(error)(
            f"objective: {LPIPS} is measured by {settings.backbone}'s features: {error}; name a "
            "file of them in lpips.weights, of the linear heads in lpips.heads"
        ) from error


def _check_mutations(space: Space, base: Sequence[str], mutate: Sequence[str]) -> None:
    """Settings that change while a network trains must leave it the network that it is."""
    by_key = {each.key: each for each in space.dimensions}
    for key in mutate or space.keys:
        if key not in by_key:
            raise unknown("setting in scheduler.mutate", key, space.keys)
        if not key.startswith("model.") or by_key[key].when:
            raise ValueError(
                f"scheduler.mutate: {key} cannot change while a network trains; choose losses, "
                "their weights and rates below model.init_args, without a condition"
            )
        values = by_key[key].extremes()
        one, other = (_shapes(_check_point({key: v}, base)) for v in (values[0], values[-1]))
        if one != other:
            raise ValueError(
                f"scheduler.mutate: {key} makes another network, so no trial could take over "
                "another's weights; leave it out of scheduler.mutate"
            )


def _shapes(setup: Setup) -> dict[str, Any]:
    return {name: tensor.shape for name, tensor in setup.model.state_dict().items()}


def _validations(setup: Setup) -> int:
    steps = setup.trainer.max_steps
    if steps < 0:
        raise ValueError("trainer.max_steps is -1: a trial would never end; set it in fixed")
    return max(1, -(-steps // period(setup.config)))
