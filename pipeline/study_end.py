"""The end of a study and of its arms: the report and every number, on disk and in the run."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from detection.gain import Gain
from pipeline.files import atomic_file, json_text
from pipeline.findings import Findings
from pipeline.gallery import gallery
from pipeline.regimes import FINETUNED, described
from pipeline.report import plots, print_table, write_report
from pipeline.study import ArmResult
from pipeline.study_files import file_name, save_detections
from pipeline.study_record import as_markdown
from pipeline.study_view import study_view
from pipeline.tracking import Run


def tell_arm(run: Run, arm: ArmResult, out: Path) -> None:
    """The arm's own numbers, and its detections in COCO's result form."""
    run.params({"arm": arm.name, "upscaler": Path(arm.spec).name})
    count = len(arm.evaluation.images)
    costs = {
        "detect/upscale_ms": 1e3 * arm.upscale_seconds / count,
        "detect/detector_ms": 1e3 * arm.detect_seconds / count,
        "detect/megapixels": arm.megapixels / count,
    }
    values = {f"detect/{key}": value for key, value in arm.metrics.items()}
    run.metrics({k: v for k, v in {**values, **costs}.items() if not math.isnan(v)})
    run.artifact(save_detections(arm.found, out, arm.name))
    if arm.calibration is not None:
        arm.calibration.save(out / f"calibration_{file_name(arm.name)}.json")
        run.artifact(out / f"calibration_{file_name(arm.name)}.json")


def conclude(run: Run, study: Findings, out: Path) -> Path:
    """The report and every number, on disk and in the run, and a table for the terminal.

    Returns:
        The report.
    """
    view = study_view(study, gallery(study))
    for arm in study.finetuned.arms if study.finetuned else ():
        save_detections(arm.found, out, f"{arm.name} {FINETUNED}")
    report = write_report(view, out / "report.html")
    with atomic_file(out / "study.json") as temporary:
        temporary.write_text(json_text(_as_json(study)))
    for path in (report, out / "study.json", out / "windows.json"):
        run.artifact(path)
    for name, figure in plots(view).items():
        run.figure(figure, f"plots/{name}.png")
    measured = [gain for gain in study.gains if not math.isnan(gain.difference)]
    for gain in measured:
        key = f"gain/{gain.arm}/{gain.metric}"
        values = {key: gain.difference, f"{key}_ci_lo": gain.low, f"{key}_ci_hi": gain.high}
        run.metrics({k: v for k, v in values.items() if not math.isnan(v)})
    run.metrics({f"hallucinations/{name}": value for name, value in study.invented.items()})
    for gain in study.measures.same_time:
        if not math.isnan(gain.difference):
            run.metrics({f"same_time/{gain.arm}/{gain.metric}": gain.difference})
    run.table([_gain_row(gain) for gain in measured], "gains.json")
    run.describe(as_markdown(study.arms, view.verdict))
    print_table(view, Console())
    return report


def _gain_row(gain: Gain) -> dict[str, Any]:
    return {**asdict(gain), "verdict": gain.verdict, "detectable": gain.detectable}


def _as_json(study: Findings) -> dict[str, Any]:
    numbers = {
        "settings": dict(study.settings),
        **_measured(study),
        "shift": dict(study.moved),
        "upper_bound": study.plan.oracle,
        "coverage": asdict(study.coverage),
        "seen": dict(study.seen),
        "larger": {name: asdict(zoom) for name, zoom in study.larger.items()},
    }
    if study.finetuned is not None:
        numbers["finetuned"] = _measured(study.finetuned)
    return numbers


def _measured(study: Findings) -> dict[str, Any]:
    measures = study.measures
    return {
        "arms": {arm.name: described(arm) for arm in study.arms},
        "gains": [_gain_row(gain) for gain in study.gains],
        "objects": {name: [asdict(row) for row in rows] for name, rows in study.changes.items()},
        "hallucinations_per_megapixel": study.invented,
        "same_time": [_gain_row(gain) for gain in measures.same_time],
        "tests": [asdict(test) for test in measures.tests],
        "errors": {name: asdict(errors) for name, errors in measures.errors.items()},
        "errors_by_size": {
            name: [asdict(errors) for errors in each]
            for name, each in measures.errors_by_size.items()
        },
    }
