r"""``srdet detect``: does super-resolving the crops help this detector on these pictures?

    srdet detect --config conf/study/coco_x4.yaml
    srdet detect --coco val.json --images val/ --detector runs/detector/detector.safetensors \\
        --arms none bicubic sr=runs/srresnet/net.safetensors original --out runs/study
    srdet detect train --coco train.json --images train/ --out runs/detector   (makes a detector)

Every arm sees the same windows and is compared with bicubic at the same geometry, because zoom
alone is not super-resolution. Gains have 95 % intervals from a paired bootstrap over pictures.
"""

import math
from dataclasses import asdict, dataclass
from json import dumps
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from detection.coco import BINS, bin_name
from detection.detectors import load_detector
from detection.gain import Gain, paired_gains
from detection.windows import coverage
from pipeline import tracking
from pipeline.detector import train_detector
from pipeline.files import atomic_file
from pipeline.findings import Findings, file_name, study_view
from pipeline.launch import best_precision
from pipeline.options import run_function
from pipeline.progress import bar
from pipeline.report import CurveView, plots, print_table, write_report
from pipeline.study import (
    NONE,
    ORIGINAL,
    ArmResult,
    Form,
    Geometry,
    Pictures,
    find_in_full,
    load_pictures,
    plan_windows,
    run_arm,
)
from pipeline.tracking import Run
from pipeline.upscalers import KERNELS, Upscaler, open_upscaler
from sr_module.degrade import Degradation

REFERENCE = "bicubic"
METRICS = (
    "AP",
    "AP50",
    "AP75",
    "AP_small",
    "AP_medium",
    "AP_large",
    *(f"AP_{bin_name(*b)}" for b in BINS),
)


@dataclass(frozen=True)
class StudyResult:
    """A finished study."""

    findings: Findings
    verdict: str
    report: Path


def main(words: list[str]) -> None:
    """The command: a study, or ``train`` for a detector."""
    if words[:1] == ["train"]:
        run_function(train_detector, words[1:], name="detect train", leave_out=("parent",))
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
    degradation: Degradation | None = None,
    geometry: Geometry = Geometry(),  # noqa: B008 (frozen)
    limit: int | None = None,
    batch_size: int = 16,
    resamples: int = 1000,
    seed: int = 0,
    name: str | None = None,
    experiment: str = "srdet detect",
    parent: Run | None = None,
    training: list[CurveView] | None = None,
) -> StudyResult:
    """Measures the mAP gain of every arm over bicubic.

    Args:
        coco: COCO annotation files.
        images: the picture folder of each annotation file.
        detector: a file of `srdet detect train`, a YOLOX (.onnx), or a torchvision family.
        arms: each "none", "original" (synthetic only), a kernel (bicubic, bilinear, nearest), or a
            file of weights; "name=FILE" gives it a name. bicubic, the reference, is always there.
        out: folder for report.html, study.json, windows.json and detections.
        title: of the report.
        detector_weights: for a torchvision family: "DEFAULT" or a file.
        protocol: "native" takes the pictures as they are, "synthetic" reduces them first.
        scale: what the arms enlarge by, and the synthetic protocol reduces by.
        degradation: blur, noise and JPEG of the synthetic protocol besides the reduction.
        geometry: windows and how their results are joined.
        limit: only the first so many pictures.
        batch_size: windows enlarged at once.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        name: how the run is called in MLflow; the out folder's name without it.
        experiment: MLflow experiment.
        parent: run under which this one is shown.
        training: training curves to show in the report.

    Returns:
        Arms, gains and where the report is.
    """
    specs = parse_arms(arms, protocol)
    reduced = (degradation or Degradation(scale)) if protocol == "synthetic" else None
    pictures = load_pictures(coco, images, degradation=reduced, limit=limit)
    _check_geometry(geometry, pictures)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    bf16 = best_precision("auto").startswith("bf16")
    find = load_detector(
        detector,
        categories=pictures.truth.categories,
        weights=detector_weights,
        device=device,
        bf16=bf16,
    )
    upscalers = {name: _upscaler(spec, scale, bf16=bf16) for name, spec in specs.items()}
    out.mkdir(parents=True, exist_ok=True)
    settings = {
        "coco": [path.name for path in coco], "detector": Path(detector).name, "protocol": protocol,
        "scale": scale, "geometry": asdict(geometry),
        "arms": {name: Path(spec).name for name, spec in specs.items()},
        "pictures": len(pictures.truth.images), "resamples": resamples, "seed": seed,
        "precision": "bf16" if bf16 else "fp32", "device": device,
    }  # fmt: skip
    with tracking.start(experiment, name or out.name, parent=parent) as run:
        run.params(settings)
        full = find_in_full(pictures, find)
        plan = plan_windows(pictures, geometry, full)
        plan.save(out / "windows.json")
        done = []
        for arm_name, spec in specs.items():
            with tracking.start(experiment, f"arm {arm_name}", parent=run) as child:
                arm = run_arm(
                    arm_name, spec, pictures=pictures, plan=plan, geometry=geometry, full=full,
                    upscaler=upscalers[arm_name], detector=find, batch_size=batch_size,
                )  # fmt: skip
                _log_arm(child, arm, out)
                done.append(arm)
        with bar("bootstrap", None):
            evaluations = {arm.name: arm.evaluation for arm in done}
            gains = paired_gains(
                evaluations, reference=REFERENCE, metrics=METRICS, resamples=resamples, seed=seed
            )
        covered = coverage(pictures.truth.boxes, plan, small=geometry.small)
        findings = Findings(
            title, pictures, plan, done, gains, covered, REFERENCE, upscalers,
            {**settings, "windows digest": plan.digest}, training or [],
        )  # fmt: skip
        return _conclude(run, findings, out)


def parse_arms(arms: list[str], protocol: Form) -> dict[str, str]:
    """Arm name to what it enlarges with, in the order given, the reference included.

    Raises:
        ValueError: a name twice, or "original" where there is none.
    """
    specs: dict[str, str] = {}
    for word in arms:
        name, _, spec = word.rpartition("=")
        name = name or (Path(spec).stem if Path(spec).suffix else spec)
        if name in specs:
            raise ValueError(f"arm '{name}' is there twice; name them apart with NAME=FILE")
        specs[name] = spec
    if ORIGINAL in specs.values() and protocol == "native":
        raise ValueError(
            "arm 'original' exists in the synthetic protocol only: native pictures have no better "
            "original; leave it out, or take --protocol synthetic"
        )
    if specs.setdefault(REFERENCE, REFERENCE) != REFERENCE:
        raise ValueError(f"'{REFERENCE}' is the reference arm's name; call yours something else")
    for spec in specs.values():
        if spec not in (NONE, ORIGINAL, *KERNELS) and not Path(spec).is_file():
            raise FileNotFoundError(
                f"arm '{spec}' is neither a file nor one of {', '.join((NONE, ORIGINAL, *KERNELS))}"
            )
    return specs


def _check_geometry(geometry: Geometry, pictures: Pictures) -> None:
    if geometry.window % pictures.reduction:
        raise ValueError(
            f"geometry.window {geometry.window} is not a multiple of the reduction "
            f"{pictures.reduction}; choose {geometry.window - geometry.window % pictures.reduction}"
        )


def _upscaler(spec: str, scale: int, *, bf16: bool) -> Upscaler | None:
    if spec in (NONE, ORIGINAL):
        return None
    return open_upscaler(spec, scale=scale, precision="bf16" if bf16 else "fp32")


def _log_arm(run: Run, arm: ArmResult, out: Path) -> None:
    """The arm's own numbers, and its detections in COCO's result form."""
    run.params({"arm": arm.name, "upscaler": Path(arm.spec).name})
    count = len(arm.evaluation.images)
    costs = {
        "detect/upscale_ms": 1e3 * arm.upscale_seconds / count,
        "detect/detector_ms": 1e3 * arm.detect_seconds / count,
        "detect/megapixels": arm.megapixels / count,
    }
    values = {f"detect/{key}": value for key, value in arm.evaluation.metrics.items()}
    run.metrics({k: v for k, v in {**values, **costs}.items() if not math.isnan(v)})
    rows = [
        {
            "image_id": image,
            "category_id": label,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": score,
        }
        for image, found in arm.found.items()
        for (x0, y0, x1, y1), score, label in zip(
            found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True
        )
    ]
    path = out / f"detections_{file_name(arm.name)}.json"
    with atomic_file(path) as temporary:
        temporary.write_text(dumps(rows))
    run.artifact(path)


def _conclude(run: Run, study: Findings, out: Path) -> StudyResult:
    """The report and every number, on disk and in the run."""
    view = study_view(study)
    report = write_report(view, out / "report.html")
    with atomic_file(out / "study.json") as temporary:
        temporary.write_text(dumps(_as_json(study), indent=1))
    for path in (report, out / "study.json", out / "windows.json"):
        run.artifact(path)
    for name, figure in plots(view).items():
        run.figure(figure, f"plots/{name}.png")
    measured = [gain for gain in study.gains if not math.isnan(gain.difference)]
    for gain in measured:
        key = f"gain/{gain.arm}/{gain.metric}"
        run.metrics({key: gain.difference, f"{key}_ci_lo": gain.low, f"{key}_ci_hi": gain.high})
    run.table([_gain_row(gain) for gain in measured], "gains.json")
    run.tags({"mlflow.note.content": view.verdict})
    print_table(view, Console())
    return StudyResult(study, view.verdict, report)


def _gain_row(gain: Gain) -> dict[str, Any]:
    return {**asdict(gain), "verdict": gain.verdict}


def _as_json(study: Findings) -> dict[str, Any]:
    return {
        "settings": dict(study.settings),
        "arms": {
            arm.name: {
                "metrics": arm.evaluation.metrics,
                "seconds_per_picture": arm.seconds_per_picture,
                "megapixels": arm.megapixels,
            }
            for arm in study.arms
        },
        "gains": [_gain_row(gain) for gain in study.gains],
        "coverage": asdict(study.coverage),
    }
