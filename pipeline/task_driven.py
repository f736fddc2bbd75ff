r"""``srdet detect task-driven``: a network trained on for what a detector sees in its pictures.

    srdet detect task-driven --coco train.json --images train/ --out runs/task \\
        --detector runs/detector/detector.safetensors --init_from runs/srresnet/net.safetensors
    srdet detect ... --arms sr=runs/srresnet/net.safetensors task=runs/task/net.safetensors

The detector's features and loss guide the network, and the detector learns its pictures in turn;
see ``sr_module.task_driven`` for the paper. In the study the network is an arm like any other.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
from torch import nn

from detection.detectors import load_model, read_metadata, save_detector
from detection.seeing import Eye
from pipeline import tracking
from pipeline.boxed import BoxedCrops, brief_trainer
from pipeline.detector import DETECTOR
from pipeline.finetune import label_of
from pipeline.fingerprints import fingerprint, listed
from pipeline.outcome import NET
from pipeline.progress import console
from pipeline.study import load_pictures
from pipeline.upscalers import network_file
from pipeline.watch import quiet_lightning
from pipeline.world import check_alone, cores_shared_with
from sr_module.checkpoint import load_net
from sr_module.degrade import Degradation
from sr_module.optimisation import Optimisation
from sr_module.task_driven import Task, TaskDriven


@dataclass(frozen=True)
class Weights:
    """Of the losses of the super-resolution network.

    Attributes:
        pixel: of the mean absolute difference of pixels.
        feature: of that of the detector's features.
        task: of the detector's own loss.
    """

    pixel: float = 1.0
    feature: float = 0.1
    task: float = 0.01


@dataclass(frozen=True)
class TaskTrained:
    """The network, the detector that learnt with it, and the last validation."""

    net: Path
    detector: Path
    metrics: dict[str, float]


def task_driven(
    coco: list[Path],
    images: list[Path],
    detector: Path,
    init_from: str,
    *,
    out: Path = Path("runs/task_driven"),
    degradation: Degradation | None = None,
    weights: Weights = Weights(),
    crop: int = 192,
    batch_size: int = 8,
    steps: int = 1000,
    warmup_steps: int = 100,
    learning_rate: float = 1e-4,
    detector_learning_rate: float = 1e-4,
    val: float = 0.05,
    workers: int = 1,
    seed: int = 0,
    name: str | None = None,
    experiment: str = "srdet train",
) -> TaskTrained:
    """Trains a super-resolution network on with a detector's features and loss.

    Args:
        coco: annotation files of the TRAINING pictures.
        images: the picture folder of each annotation file.
        detector: a file of `srdet detect train`.
        init_from: the PSNR-trained network to start from: a file or a name of `srdet models`.
        out: folder for net.safetensors and detector.safetensors.
        degradation: blur, noise and JPEG besides the reduction by the network's scale.
        weights: of the losses.
        crop: side of the training crops in original pixels.
        batch_size: crops a step.
        steps: of training.
        warmup_steps: first steps with the pixel loss only.
        learning_rate: of the network; it falls to nothing along a cosine.
        detector_learning_rate: of the detector, likewise; 0 leaves the detector as it is.
        val: share of the pictures, whole ones, that only validation sees.
        workers: processes that cut crops.
        seed: of crops and noise.
        name: how the run is called in MLflow; the out folder's name without it.
        experiment: MLflow experiment.

    Returns:
        Where the network is.
    """
    check_alone()
    start = network_file(init_from)
    net = load_net(start)
    reduced = degradation or Degradation(net.scale)
    pictures = load_pictures(coco, images, degradation=reduced, limit=None)
    model, _ = load_model(detector)
    eye = Eye(model)
    quiet_lightning()
    pl.seed_everything(seed, verbose=False)
    data = BoxedCrops(
        pictures, label_of(detector, pictures.truth.categories), crop=crop, batch_size=batch_size,
        steps=steps, val=val, workers=workers, seed=seed,
    )  # fmt: skip
    learns = _falling(detector_learning_rate, steps) if detector_learning_rate else None
    training = TaskDriven(
        net.arch, scale=net.scale, arch_args=dict(net.arch_args), init_from=str(start),
        task=Task(model, eye.features, eye.look), warmup_steps=warmup_steps,
        pixel_weight=weights.pixel, feature_weight=weights.feature, task_weight=weights.task,
        optimisation=_falling(learning_rate, steps),
        task_optimisation=learns,
    )  # fmt: skip
    settings = {
        "detector": detector.name, "init_from": start.name, "scale": net.scale, "crop": crop,
        "batch_size": batch_size, "steps": steps, "warmup_steps": warmup_steps,
        "learning_rate": learning_rate, "detector_learning_rate": detector_learning_rate,
        "weights": f"pixel {weights.pixel:g}, feature {weights.feature:g}, task {weights.task:g}",
        "seed": seed,
    }  # fmt: skip
    marks = [fingerprint(picture) for picture in data.pictures]
    with tracking.start(experiment, name or out.name) as run:
        run.params(settings)
        trainer = brief_trainer(run, steps, "task-driven training", num_sanity_val_steps=0)
        with cores_shared_with(workers):
            trainer.fit(training, datamodule=data)
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        trained = TaskTrained(out / NET, out / DETECTOR, metrics)
        origin = {**settings, "metrics": metrics, "mlflow_run": run.stored_id}
        training.export(trained.net, provenance={**origin, **listed(marks, before=start)})
        _keep(model, detector, trained.detector, listed(marks, before=detector))
        for path in (trained.net, trained.detector):
            run.artifact(path, folder="model")
    scores = ", ".join(f"{key} {value:.4g}" for key, value in metrics.items() if "val/" in key)
    console.print(f"network: {trained.net} ({scores})", highlight=False)
    return trained


def _falling(learning_rate: float, steps: int) -> Optimisation:
    return Optimisation(
        learning_rate=learning_rate, schedule="cosine", period=steps,
        learning_rate_min=1e-3 * learning_rate,
    )  # fmt: skip


def _keep(model: nn.Module, before: Path, path: Path, seen: dict[str, str]) -> None:
    metadata = read_metadata(before)
    categories = {int(key): name for key, name in json.loads(metadata["categories"]).items()}
    save_detector(
        model, path, architecture=metadata["architecture"], categories=categories,
        provenance={"trained": "together with net.safetensors beside it", **seen},
    )  # fmt: skip
