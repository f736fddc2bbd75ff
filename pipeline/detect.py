r"""``srdet detect``: does super-resolving the crops help this detector on these pictures?

    srdet detect --config conf/study/coco_x4.yaml
    srdet detect --coco val.json --images val/ --detector runs/detector/detector.safetensors \\
        --arms none bicubic sr=runs/srresnet/net.safetensors original --out runs/study
    srdet detect compare runs/grid runs/guided --arm sr   (two finished studies, paired)
    srdet detect train --coco train.json --images train/ --out runs/detector   (makes a detector)
    srdet detect finetune ...      (the detector, trained on for the pictures of every arm)
    srdet detect task-driven ...   (a network, trained on for what the detector sees)

Every arm sees the same windows and is compared with bicubic at the same geometry, because zoom
alone is not super-resolution. Gains have 95 % intervals from a paired bootstrap over pictures.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from detection.boxes import Detector
from detection.detectors import load_detector
from detection.windows import coverage
from pipeline import tracking
from pipeline.arm_runs import Rules
from pipeline.arms import REFERENCE, Form, open_arm, parse_arms, shifts, trainings
from pipeline.calibrating import set_aside
from pipeline.compare import compare
from pipeline.detector import train_detector
from pipeline.findings import Findings, verdict
from pipeline.finetune import finetune
from pipeline.groups import scene_groups
from pipeline.kept import file_digest
from pipeline.larger import Timed, zooms
from pipeline.look import Eyes, Looking
from pipeline.measures import measure_arms
from pipeline.options import run_function
from pipeline.regimes import Bench, Child, run_finetuned, run_trainings
from pipeline.registered import check_free
from pipeline.report import CurveView
from pipeline.study import (
    ArmResult,
    find_in_full,
    load_pictures,
)
from pipeline.study_end import conclude, tell_arm
from pipeline.study_files import save_truth
from pipeline.study_record import ArmModels, coco_data
from pipeline.study_settings import Join, Merging, Statistics, Windows
from pipeline.study_start import check_study, first_finds, lay_splits, learners_seen, ray_spread
from pipeline.task_driven import task_driven
from pipeline.tracking import Run
from pipeline.world import best_device, best_precision
from sr_module.degrade import AnyDegradation, Degradation


@dataclass(frozen=True)
class StudyResult:
    """A finished study."""

    findings: Findings
    verdict: str
    report: Path


def main(words: list[str]) -> None:
    """The command: a study, ``train`` for a detector, ``compare`` for two finished studies."""
    if words[:1] == ["compare"]:
        count = next((i for i, w in enumerate(words) if w.startswith("-")), len(words))
        folders = ["--studies", *words[1:count]] if count > 1 else []
        run_function(compare, [*folders, *words[count:]], name="detect compare")
    elif words[:1] == ["train"]:
        run_function(train_detector, words[1:], name="detect train", leave_out=("parent",))
    elif words[:1] == ["finetune"]:
        run_function(finetune, words[1:], name="detect finetune")
    elif words[:1] == ["task-driven"]:
        run_function(task_driven, words[1:], name="detect task-driven")
    else:
        run_function(detect, words, name="detect", leave_out=("parent", "training"))


def detect(
    coco: list[Path],
    images: list[Path],
    detector: str,
    *,
    arms: list[str],
    out: Path = Path("runs/study"),
    title: str = "Does super-resolution help this detector?",
    detector_weights: str | None = None,
    protocol: Form = "synthetic",
    scale: int = 4,
    degradation: AnyDegradation | None = None,
    windows: Windows = Windows(),  # noqa: B008 (frozen)
    join: Join = Join(),  # noqa: B008 (frozen)
    merge: Merging = Merging(),  # noqa: B008 (frozen)
    statistics: Statistics = Statistics(),  # noqa: B008 (frozen)
    finetuned: Path | None = None,
    calibrate_on: float = 0.0,
    calibrate: bool = True,
    tune_merge: bool = False,
    ignored: list[str] | None = None,
    max_detections: int = 500,
    limit: int | None = None,
    batch_size: int = 16,
    at_once: int = 16,
    ray: int = 0,
    ray_address: str | None = None,
    register: str | None = None,
    name: str | None = None,
    experiment: str = "srdet detect",
    parent: Run | None = None,
    training: list[CurveView] | None = None,
) -> StudyResult:
    """Measures the mAP gain of every arm over bicubic.

    Args:
        coco: COCO annotation files.
        images: the picture folder of each annotation file.
        detector: a file of `srdet detect train`, a YOLOX (.onnx), a folder of Hugging Face
            transformers, ultralytics:FILE, or a torchvision family.
        arms: each "none" (no windows), "larger" (no windows, the whole picture enlarged to as many
            pixels), "larger:ARM" (enlarged until it takes as long as that arm; both are timed on a
            few pictures), "larger@1.5" (enlarged so many times), "crops" (windows not enlarged), a
            kernel (nearest, bilinear, bicubic, lanczos), "sharpened" (bicubic with an unsharp
            mask), "original" (synthetic only), a network of `srdet models`, a file of weights, or
            "mix:PSNR+GAN@0.6", the network between two. "name=FILE" gives it a name,
            "name=FILE,FILE" is one arm trained several times. bicubic, the reference, is always
            there.
        out: folder for report.html, study.json, windows.json, truth.json and detections.
        title: of the report.
        detector_weights: for a torchvision family: "DEFAULT" or a file.
        protocol: "native" takes the pictures as they are, "synthetic" reduces them first.
        scale: what the arms enlarge by, and the synthetic protocol reduces by.
        degradation: blur, noise and JPEG of the synthetic protocol besides the reduction.
        windows: how windows are laid, the same for all arms.
        join: what of windows and whole picture counts.
        merge: how what was seen twice becomes one.
        statistics: how a difference is told from luck.
        finetuned: folder of `srdet detect finetune`: the arms once more, each with the detector
            that has learnt from its pictures, in tables of their own.
        calibrate_on: share of the pictures that is set aside, never evaluated; of scenes, whole
            ones. With less than some hundred objects there is too little to learn from.
        calibrate: whether to learn there what a score is worth in each source and size.
        tune_merge: whether to choose there each arm's own merge, among the same fourteen for all.
        ignored: categories that mark regions in which nothing was annotated: what is found there by
            half of its area or more leaves every arm. Without it "ignored regions", where the set
            has such a category.
        max_detections: the best so many of a picture count, over all categories together, in every
            arm alike.
        limit: only the first so many pictures.
        batch_size: windows enlarged at once.
        at_once: pictures looked at before what was seen is kept in the out folder. A study that was
            stopped goes on from there, and one that is run again with another arm, merge or number
            of resamples looks at nothing twice.
        ray: workers of a Ray cluster that share the pictures; 0 does without. No box changes.
        ray_address: of a running cluster; without it RAY_ADDRESS, and without that an embedded
            Ray on this machine's cores.
        register: name in MLflow's registry of which the best network's arm becomes a version: a
            model that answers a picture with detections (`srdet serve`).
        name: how the run is called in MLflow; the out folder's name without it.
        experiment: MLflow experiment.
        parent: run under which this one is shown.
        training: training curves to show in the report.

    Returns:
        Arms, gains and where the report is.
    """
    spread = ray_spread(ray, ray_address)
    specs = parse_arms(arms, protocol)
    reduced = (degradation or Degradation(scale)) if protocol == "synthetic" else None
    pictures = load_pictures(coco, images, degradation=reduced, limit=limit, ignored=ignored)
    check_free(register, tracking.store_under(parent), kind="detector", scale=scale)
    groups = scene_groups(statistics.groups, pictures.truth, coco)
    draw = partial(set_aside, share=calibrate_on, seed=statistics.seed, groups=groups)
    aside = draw if calibrate_on else None
    check_study(
        pictures, windows, aside, specs=specs, detector=detector, max_detections=max_detections,
        tune_merge=tune_merge,
    )  # fmt: skip
    device = best_device()
    bf16 = best_precision("auto").startswith("bf16")
    open_detector = partial(
        load_detector, categories=pictures.truth.categories, weights=detector_weights,
        max_detections=max_detections, device=device, bf16=bf16,
    )  # fmt: skip
    find = open_detector(detector)
    upscalers = {
        name: open_arm(trainings(spec)[0], scale, bf16=bf16) for name, spec in specs.items()
    }
    out.mkdir(parents=True, exist_ok=True)
    settings = {
        "coco": [path.name for path in coco], "detector": Path(detector).name, "protocol": protocol,
        "scale": scale, "degradation": asdict(reduced) if reduced else "none",
        "windows": asdict(windows), "join": asdict(join),
        "merge": "tuned for each arm" if tune_merge else asdict(merge),
        "statistics": asdict(statistics),
        "arms": {name: Path(spec).name for name, spec in specs.items()},
        "pictures": len(pictures.truth.images), "calibrate_on": calibrate_on,
        "precision": "bf16" if bf16 else "fp32", "device": device,
        "max_detections": max_detections,
    }  # fmt: skip
    data = coco_data(
        coco, images, context="evaluation", pictures=len(pictures.truth.images),
        objects=sum(len(boxes) for boxes in pictures.truth.boxes.values()),
    )  # fmt: skip
    models = ArmModels(
        detector, detector_weights, scale, windows, join, merge, pictures.truth.categories,
        pictures.reduction, data,
    )  # fmt: skip
    with (
        tracking.start(experiment, name or out.name, parent=parent) as run,
        spread.connected() if spread else nullcontext(),
    ):
        run.params(settings)
        run.inputs([data])
        looking = Looking(
            at_once, out / "seen", _identity(settings, detector, detector_weights), spread
        )  # fmt: skip
        first = partial(
            find_in_full, detector=find, looking=looking,
            again=partial(_open, partial(open_detector, detector)),
        )  # fmt: skip
        split, held = lay_splits(pictures, windows, first, aside)
        split.plan.save(out / "windows.json")
        save_truth(split.truth, out, scenes=groups)
        larger = zooms(
            specs, upscalers, Timed(split, join, batch_size, find), scale=scale, folder=out,
            key=looking.key,
        )  # fmt: skip
        rules = Rules(
            find, join, merge, batch_size, max_detections, looking,
            {specs[name]: zoom.factor for name, zoom in larger.items()}, calibrate, tune_merge,
        )  # fmt: skip
        bench = Bench(split, held, rules, detector, open_detector, scale, bf16)
        child = partial(tracking.start, experiment, parent=run)
        done = _run_arms(specs, bench, child, models, out)
        models.register_best(run, done, register)
        measure = partial(
            measure_arms, split.truth, reference=REFERENCE, statistics=statistics, groups=groups
        )
        covered = coverage(
            split.truth.boxes, split.plan, small=windows.small, found=first_finds(split, join)
        )
        findings = Findings(
            title, split.pictures, split.plan, done, measure(done), covered, REFERENCE, upscalers,
            shifts(upscalers), {**settings, "windows digest": split.plan.digest}, training or [],
            seen=learners_seen(split.pictures, detector, specs), larger=larger,
        )  # fmt: skip
        if finetuned is not None:
            learnt = run_finetuned(specs, bench, finetuned, child)
            again = replace(findings, arms=learnt, measures=measure(learnt), seen={})
            findings = replace(findings, finetuned=again)
        return StudyResult(findings, verdict(findings), conclude(run, findings, out))


def _run_arms(
    specs: Mapping[str, str], bench: Bench, child: Child, models: ArmModels, out: Path
) -> list[ArmResult]:
    """Every arm with the detector as it is, told and stored as soon as it is done."""
    done = []
    for name, spec in specs.items():
        with child(f"arm {name}") as run:
            done.append(run_trainings(name, spec, bench))
            tell_arm(run, done[-1], out)
            models.send(run, done[-1])
    return done


def _open(detector: Callable[[], Detector]) -> Eyes:
    return detector(), None


def _identity(settings: Mapping[str, Any], detector: str, weights: str | None) -> dict[str, str]:
    """What decides what is seen, besides pictures, windows and arm."""
    shared = {key: str(settings[key]) for key in ("precision", "device", "scale", "max_detections")}
    return {**shared, "detector": file_digest(detector), "weights": file_digest(weights or "")}
