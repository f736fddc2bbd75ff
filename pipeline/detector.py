"""``srdet detect train``: a detector from a COCO set, for the study that follows.

srdet detect train --coco train.json --images train/ --out runs/detector --crop 256 --steps 1500
"""

import time
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
from torch import Tensor

from detection.categories import training_labels
from detection.detectors import save_detector
from detection.families import build_model
from detection.finetune import DetectorTraining, Target
from detection.starting import start_from
from pipeline import tracking
from pipeline.boxed import BoxedCrops, brief_trainer
from pipeline.fingerprints import fingerprint, listed
from pipeline.progress import console
from pipeline.study import load_pictures
from pipeline.study_record import coco_data
from pipeline.tracking import Run
from pipeline.watch import quiet_lightning
from pipeline.world import check_alone, cores_shared_with

DETECTOR = "detector.safetensors"


@dataclass(frozen=True)
class DetectorTrained:
    """The stored detector and what making it took."""

    path: Path
    loss: float
    seconds: float


def train_detector(
    coco: list[Path],
    images: list[Path],
    out: Path,
    *,
    architecture: str = "small_fcos",
    start: Path | None = None,
    crop: int = 256,
    batch_size: int = 8,
    steps: int = 1000,
    learning_rate: float = 2e-3,
    workers: int = 2,
    seed: int = 0,
    name: str | None = None,
    experiment: str = "srdet detector",
    parent: Run | None = None,
) -> DetectorTrained:
    """Trains a detector on random crops of a COCO set, from random weights or others.

    Args:
        coco: annotation files.
        images: the picture folder of each annotation file.
        out: folder for detector.safetensors.
        architecture: "small_fcos", which trains on a CPU in minutes, or a torchvision family.
        start: weights on this disk to begin from, in place of random ones: a file of this command,
            or published ones of the family. What tells categories apart begins random where the
            categories are others.
        crop: side of the training crops in pixels.
        batch_size: crops a step.
        steps: of training.
        learning_rate: at the peak of its one cycle.
        workers: processes that cut crops.
        seed: of weights and crops.
        name: how the run is called in MLflow; the architecture without it.
        experiment: MLflow experiment.
        parent: run under which this one is shown.

    Returns:
        Where the detector is.
    """
    check_alone()
    settings = {
        "architecture": architecture, "crop": crop, "batch_size": batch_size, "steps": steps,
        "learning_rate": learning_rate, "seed": seed, "start": start.name if start else "random",
    }  # fmt: skip
    quiet_lightning()
    pl.seed_everything(seed, verbose=False)
    pictures = load_pictures(coco, images, degradation=None, limit=None)
    categories = pictures.truth.categories
    data = BoxedCrops(
        pictures, training_labels(categories), crop=crop, batch_size=batch_size, steps=steps,
        form=_originals, workers=workers, seed=seed,
    )  # fmt: skip
    seen = listed([fingerprint(picture) for picture in data.pictures])
    model = build_model(architecture, num_classes=len(categories) + 1)
    if start is not None:
        random = start_from(model, architecture, start)
        console.print(f"started from {start}; random: {len(random)} tensors", highlight=False)
    training = DetectorTraining(model, learning_rate=learning_rate)
    started = time.perf_counter()
    with tracking.start(experiment, name or architecture, parent=parent) as run:
        run.params(settings)
        run.inputs([coco_data(coco, images, context="training", pictures=len(data.pictures))])
        trainer = brief_trainer(run, steps, "training the detector")
        with cores_shared_with(workers):
            trainer.fit(training, datamodule=data)
        loss = float(trainer.callback_metrics["train/loss"])
        path = out / DETECTOR
        out.mkdir(parents=True, exist_ok=True)
        provenance = {
            key: str(value) for key, value in {**settings, "mlflow_run": run.stored_id}.items()
        } | seen
        save_detector(
            model, path, architecture=architecture, categories=categories, provenance=provenance
        )
        run.artifact(path, folder="weights")
    trained = DetectorTrained(path, loss, time.perf_counter() - started)
    console.print(f"detector: {path} (loss {loss:.3f}, {trained.seconds:.0f} s)", highlight=False)
    return trained


def _originals(
    given: Tensor, original: Tensor, targets: list[Target]
) -> tuple[list[Tensor], list[Target]]:
    del given
    return list(original), targets
