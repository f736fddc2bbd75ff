"""What a study tells MLflow besides its numbers: its pictures, and its arms as models to serve."""

import hashlib
import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.arms import is_one_file
from pipeline.packing import pack_detector
from pipeline.study import ArmResult
from pipeline.study_settings import Join, Merging, Windows
from pipeline.tracking import Card, Data, Run
from pipeline.upscalers import network_file

logger = logging.getLogger(__name__)

METRIC = "detect/AP"


def coco_data(
    annotations: Sequence[Path], images: Sequence[Path], *, context: str, **counts: int
) -> Data:
    """A detection set, under a digest of what is true of it.

    Args:
        annotations: COCO files.
        images: their folders.
        context: "training" or "evaluation".
        counts: of pictures, and what else.
    """
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in annotations)).hexdigest()
    names = dict.fromkeys(path.resolve().parent.name for path in annotations)
    return Data(" + ".join(names), digest, str(images[0]), context, json.dumps(counts))


@dataclass(frozen=True)
class ArmModels:
    """Arms of one study as models that answer a picture with detections.

    Attributes:
        detector: a file, or the name of a family.
        weights: of a family.
        scale: enlargement.
        windows: of the study.
        join: of the study.
        merge: of the study.
        categories: id to name.
        reduction: original pixels per pixel of the pictures that arms are given.
        data: of the study.
    """

    detector: str
    weights: str | None
    scale: int
    windows: Windows
    join: Join
    merge: Merging
    categories: Mapping[int, str]
    reduction: int
    data: Data

    def send(self, run: Run, arm: ArmResult, *, register: str | None = None) -> None:
        """Stores an arm as a model of ``run``, and registers it where a name is given.

        Only arms with one network file are. What cannot be served is left out with a word:
        windows that only the truth lays, weights that may hold code.
        """
        if not is_one_file(arm.spec):
            return
        card = Card(
            name="detector", kind="detector", scale=self.scale, register=register or "",
            metric=METRIC, value=arm.evaluation.metrics["AP"], data=self.data.digest[:16],
            tags={"arm": arm.name},
            description=f"{Path(self.detector).name} behind {arm.name} x{self.scale}: "
            f"AP {100 * arm.evaluation.metrics['AP']:.1f} on {self.data.name}",
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as temporary:
            packed = Path(temporary) / "detector"
            try:
                pack_detector(
                    packed, arm=str(network_file(arm.spec)), scale=self.scale,
                    detector=self.detector, weights=self.weights, categories=self.categories,
                    windows=self.windows, join=self.join, merge=self.merge,
                    reduction=self.reduction,
                )  # fmt: skip
            except ValueError as error:
                logger.info("arm %s is not kept as a model: %s", arm.name, error)
                return
            run.model(packed, card)

    def register_best(self, run: Run, arms: Sequence[ArmResult], name: str | None) -> None:
        """Registers the arm with a network whose AP is the highest, where a name is given."""
        networks = [arm for arm in arms if is_one_file(arm.spec)]
        if name is not None and networks:
            best = max(networks, key=lambda arm: arm.evaluation.metrics["AP"])
            self.send(run, best, register=name)


def as_markdown(arms: Sequence[ArmResult], verdict: str) -> str:
    """A study's page in the store: what it says, and its arms."""
    rows = [
        f"| {arm.name} | {_percent(arm, 'AP')} | {_percent(arm, 'AP50')} | "
        f"{_percent(arm, 'AP_small')} | {1e3 * arm.seconds_per_picture:.0f} |"
        for arm in arms
    ]
    head = ["| arm | AP | AP50 | AP small | ms a picture |", "|---|--:|--:|--:|--:|"]
    return "\n".join([verdict, "", *head, *rows])


def _percent(arm: ArmResult, metric: str) -> str:
    return f"{100 * arm.evaluation.metrics[metric]:.1f}"
