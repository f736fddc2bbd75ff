r"""``srdet detect finetune``: one detector for every arm, trained on from the same one.

    srdet detect finetune --coco train.json --images train/ --out runs/finetuned \\
        --detector runs/detector/detector.safetensors \\
        --arms bicubic sr=runs/srresnet/net.safetensors original
    srdet detect --coco val.json --images val/ ... --finetuned runs/finetuned

A detector that was trained on original pictures meets enlarged ones for the first time in a study;
one that has learnt from an arm's own pictures gives another answer, often the opposite one. Both
are measured, never in one table. Every arm gets the same crops, steps and rates. An arm whose
detector is there, from the same detector, network, pictures and settings, is not trained again.
"""

import json
from pathlib import Path

import pytorch_lightning as pl

from detection.categories import match_categories
from detection.detectors import load_model, read_metadata, save_detector
from detection.finetune import DetectorTraining, frozen_batchnorm
from pipeline import tracking
from pipeline.arm_pictures import ArmPictures, Mixture
from pipeline.arms import Form, identity, is_larger, parse_arms, trainings
from pipeline.boxed import BoxedCrops, brief_trainer
from pipeline.fingerprints import fingerprint, listed
from pipeline.kept import file_digest
from pipeline.progress import console
from pipeline.study import load_pictures
from pipeline.study_files import file_name
from pipeline.tracking import Run
from pipeline.watch import quiet_lightning
from pipeline.world import check_alone, cores_shared_with
from sr_module.degrade import Degradation

RUN = "mlflow_run"
"""In what a detector's file says of its origin: the run that made it, another one each time."""


def finetune(
    coco: list[Path],
    images: list[Path],
    detector: Path,
    *,
    arms: list[str],
    out: Path = Path("runs/finetuned"),
    protocol: Form = "synthetic",
    scale: int = 4,
    degradation: Degradation | None = None,
    crop: int = 256,
    batch_size: int = 8,
    steps: int = 300,
    learning_rate: float = 2e-4,
    workers: int = 1,
    mixture: Mixture = Mixture(),  # noqa: B008 (frozen)
    seed: int = 0,
    name: str | None = None,
    experiment: str = "srdet detector",
) -> dict[str, Path]:
    """Trains a detector on for every arm of a study, on that arm's pictures.

    Of ten pictures three are the arm's, three the originals (native protocol: bicubic
    enlargements), three a patchwork of both, so that the detector does not forget what true
    pictures look like, and one is as the arm is given it, not enlarged. Batch normalisation is
    frozen.

    Args:
        coco: annotation files of the TRAINING pictures.
        images: the picture folder of each annotation file.
        detector: a file of `srdet detect train`, from which all begin.
        arms: as for `srdet detect`; bicubic, the reference, is always there.
        out: folder for one detector an arm.
        protocol: of the study that follows.
        scale: likewise.
        degradation: likewise.
        crop: side of the training crops in original pixels.
        batch_size: crops a step.
        steps: for each arm.
        learning_rate: at the peak of its one cycle.
        workers: processes that cut crops.
        mixture: parts of each kind of picture.
        seed: of the crops; the same for all arms.
        name: how the run is called in MLflow; the out folder's name without it.
        experiment: MLflow experiment.

    Returns:
        The file of each arm.
    """
    check_alone()
    parsed = parse_arms(arms, protocol)
    specs = {name: spec for name, spec in parsed.items() if not is_larger(spec)}
    reduced = (degradation or Degradation(scale)) if protocol == "synthetic" else None
    pictures = load_pictures(coco, images, degradation=reduced, limit=None)
    labels = label_of(detector, pictures.truth.categories)
    settings = {
        "protocol": protocol, "scale": scale, "crop": crop, "batch_size": batch_size,
        "steps": steps, "learning_rate": learning_rate, "seed": seed,
        "mixture": repr(mixture),
        "detector": file_digest(detector), "degradation": repr(reduced),
    }  # fmt: skip
    quiet_lightning()
    out.mkdir(parents=True, exist_ok=True)
    data = BoxedCrops(
        pictures, labels, crop=crop, batch_size=batch_size, steps=steps, workers=workers, seed=seed
    )
    seen = listed([fingerprint(picture) for picture in data.pictures], before=detector)
    made = {}
    with tracking.start(experiment, name or out.name) as run:
        run.params(settings)
        for arm, spec in specs.items():
            made[arm] = finetuned_file(out, arm)
            told = {key: str(value) for key, value in settings.items()}
            told |= {"upscaler": identity(trainings(spec)[0])} | seen
            if _is_there(made[arm], told):
                console.print(f"{arm}: {made[arm]} is there", highlight=False)
                continue
            data.form = ArmPictures(trainings(spec)[0], scale, mixture)
            with tracking.start(experiment, f"for {arm}", parent=run) as child:
                loss = _train(
                    detector, data, made[arm], child,
                    steps=steps, learning_rate=learning_rate, origin=told,
                )  # fmt: skip
            console.print(f"{arm}: {made[arm]} (loss {loss:.3f})", highlight=False)
    return made


def finetuned_file(folder: Path, arm: str) -> Path:
    """Where the detector of an arm is kept."""
    return folder / f"{file_name(arm)}.safetensors"


def origin_of(path: Path) -> dict[str, str]:
    """What a detector's file says of its training."""
    told: dict[str, str] = json.loads(read_metadata(path)["provenance"])
    return told


def _is_there(path: Path, told: dict[str, str]) -> bool:
    """Whether an arm's detector was made before, of the same things in the same way."""
    if not path.is_file():
        return False
    before = origin_of(path)
    before.pop(RUN, None)
    return before == told


def label_of(detector: Path, categories: dict[int, str]) -> dict[int, int]:
    """Category id of the set to the label of a stored detector, by name."""
    _, names = load_model(detector)
    ids = match_categories(names, categories)
    return {category: label for label, category in enumerate(ids) if category is not None}


def _train(
    detector: Path,
    data: BoxedCrops,
    path: Path,
    run: Run,
    *,
    steps: int,
    learning_rate: float,
    origin: dict[str, str],
) -> float:
    """One arm's detector; gives its last loss."""
    pl.seed_everything(data.seed, verbose=False)
    model, _ = load_model(detector)
    frozen_batchnorm(model)
    training = DetectorTraining(model, learning_rate=learning_rate)
    run.params(origin)
    trainer = brief_trainer(run, steps, f"detector for {path.stem}")
    with cores_shared_with(data.workers):
        trainer.fit(training, datamodule=data)
    metadata = read_metadata(detector)
    categories = {int(key): name for key, name in json.loads(metadata["categories"]).items()}
    save_detector(
        model, path, architecture=metadata["architecture"], categories=categories,
        provenance={**origin, RUN: run.stored_id},
    )  # fmt: skip
    run.artifact(path, folder="model")
    return float(trainer.callback_metrics["train/loss"])
