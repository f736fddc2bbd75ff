"""``srdet detect train``: a detector from a COCO set, for the study that follows.

srdet detect train --coco train.json --images train/ --out runs/detector --crop 256 --steps 1500
"""

import time
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from detection.categories import training_labels
from detection.detectors import save_detector
from detection.families import build_model
from detection.finetune import DetectionCrops, DetectorTraining, collate
from detection.starting import start_from
from pipeline import tracking
from pipeline.fingerprints import fingerprint, listed
from pipeline.pictures import read_picture
from pipeline.progress import bar, console
from pipeline.study import load_pictures
from pipeline.study_record import coco_data
from pipeline.tracking import Run
from pipeline.training_bar import show
from pipeline.watch import Recorder, quiet_lightning
from pipeline.world import best_precision, cores_shared_with

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
    settings = {
        "architecture": architecture, "crop": crop, "batch_size": batch_size, "steps": steps,
        "learning_rate": learning_rate, "seed": seed, "start": start.name if start else "random",
    }  # fmt: skip
    quiet_lightning()
    pl.seed_everything(seed, verbose=False)
    crops, categories, seen = _crops(coco, images, crop=crop, samples=steps * batch_size, seed=seed)
    model = build_model(architecture, num_classes=len(categories) + 1)
    if start is not None:
        random = start_from(model, architecture, start)
        console.print(f"started from {start}; random: {len(random)} tensors", highlight=False)
    training = DetectorTraining(model, learning_rate=learning_rate)
    loader = DataLoader(crops, batch_size, num_workers=workers, collate_fn=collate)
    started = time.perf_counter()
    with tracking.start(experiment, name or architecture, parent=parent) as run:
        run.params(settings)
        run.inputs([coco_data(coco, images, context="training", pictures=len(seen))])
        trainer = pl.Trainer(
            max_steps=steps,
            devices=1,
            precision=best_precision("auto"),  # type: ignore[arg-type]
            logger=False,
            log_every_n_steps=20,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            callbacks=show("training the detector"),
        )
        trainer.logger = Recorder(run, trainer)
        with cores_shared_with(workers):
            trainer.fit(training, loader)
        loss = float(trainer.callback_metrics["train/loss"])
        path = out / DETECTOR
        out.mkdir(parents=True, exist_ok=True)
        provenance = {
            key: str(value) for key, value in {**settings, "mlflow_run": run.stored_id}.items()
        } | listed(seen)
        save_detector(
            model, path, architecture=architecture, categories=categories, provenance=provenance
        )
        run.artifact(path, folder="weights")
    trained = DetectorTrained(path, loss, time.perf_counter() - started)
    console.print(f"detector: {path} (loss {loss:.3f}, {trained.seconds:.0f} s)", highlight=False)
    return trained


def _crops(
    coco: list[Path], images: list[Path], *, crop: int, samples: int, seed: int
) -> tuple[DetectionCrops, dict[int, str], list[str]]:
    pictures = load_pictures(coco, images, degradation=None, limit=None)
    labels_of = training_labels(pictures.truth.categories)
    decoded, boxes, labels = [], [], []
    with bar("reading pictures", len(pictures.truth.images)) as advance:
        for picture in pictures.truth.images:
            objects = pictures.truth.objects[picture.id]
            decoded.append(read_picture(pictures.paths[picture.id]))
            boxes.append(objects.boxes[~objects.crowds])
            kept = objects.labels[~objects.crowds].tolist()
            labels.append(torch.tensor([labels_of[k] for k in kept], dtype=torch.int64))
            advance(1)
    data = DetectionCrops(decoded, boxes, labels, crop=crop, samples=samples, seed=seed)
    return data, pictures.truth.categories, [fingerprint(picture) for picture in decoded]
