"""A study's arms, every training of each, with the detector as it is and as it learnt from the arm.

Two experiments, never in one table: a detector that never saw an arm's pictures says what
super-resolution does for a system that stays as it is; one that has learnt from them says what it
does for a system that is built anew. Published answers differ in sign.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from detection.boxes import Detector
from pipeline.arm_runs import Rules, run_arm
from pipeline.arms import NONE, REFERENCE, identity, is_larger, open_arm, trainings
from pipeline.finetune import finetuned_file, origin_of
from pipeline.kept import file_digest
from pipeline.look import Eyes
from pipeline.study import ArmResult, Split, find_in_full
from pipeline.tracking import Run
from pipeline.upscalers import Upscaler

OpenDetector = Callable[[str], Detector]
"""Opens the detector in a file, for the categories of the study."""
Child = Callable[[str], AbstractContextManager[Run]]
"""Opens the run that shows an arm."""
FINETUNED = "fine-tuned"


@dataclass(frozen=True)
class Bench:
    """What all arms of a study share; ``held`` are pictures set aside."""

    split: Split
    held: Split | None
    rules: Rules
    detector: str
    open_detector: OpenDetector
    scale: int
    bf16: bool


def run_trainings(name: str, spec: str, bench: Bench, *, title: str = "") -> ArmResult:
    """An arm in all its trainings, as one result."""
    found = []
    for number, word in enumerate(trainings(spec), start=1):
        shown = title or name
        opened = partial(open_arm, word, bench.scale, bf16=bench.bf16)
        result = run_arm(
            shown if number == 1 else f"{shown}, training {number}", word,
            split=bench.split, rules=bench.rules, upscaler=opened(), held=bench.held,
            again=partial(_open, partial(bench.open_detector, bench.detector), opened),
        )  # fmt: skip
        found.append(replace(result, name=name, spec=spec if number == 1 else word))
    return replace(found[0], others=tuple(found[1:]))


def run_finetuned(
    specs: Mapping[str, str], bench: Bench, folder: Path, child: Child
) -> list[ArmResult]:
    """The arms that have a detector of their own in ``folder``, each with it.

    The windows are those of the study, and so is the first look at whole pictures where the arms
    are joined with it; the arm "none" is the first look of its own detector, a larger picture that
    of bicubic's.

    Raises:
        FileNotFoundError: bicubic, the reference, has none.
        ValueError: a detector that was trained for another network, protocol or scale.
    """
    results = []
    for name, spec in specs.items():
        path = finetuned_file(folder, REFERENCE if is_larger(spec) else name)
        if not path.is_file():
            if name == REFERENCE:
                raise FileNotFoundError(f"no {path}; make it with: srdet detect finetune")
            continue
        if not is_larger(spec):
            _check(path, name, spec, bench)
        with child(f"arm {name}, {FINETUNED}") as run:
            own = _with_detector(bench, path, first_look=spec == NONE)
            result = run_trainings(name, spec, own, title=f"{name}, {FINETUNED}")
            numbers = {f"detect/{key}": value for key, value in result.metrics.items()}
            run.metrics({key: v for key, v in numbers.items() if not math.isnan(v)})
            results.append(result)
    return results


def _check(path: Path, name: str, spec: str, bench: Bench) -> None:
    told = origin_of(path)
    reduced = "native" if bench.split.pictures.degradation is None else "synthetic"
    wanted = {
        "upscaler": identity(trainings(spec)[0]), "protocol": reduced, "scale": str(bench.scale),
    }  # fmt: skip
    for key, value in wanted.items():
        if told.get(key) != value:
            raise ValueError(
                f"{path} was trained for another {key} than arm '{name}' has ({told.get(key)}, not "
                f"{value}); make it again with: srdet detect finetune"
            )


def _with_detector(bench: Bench, path: Path, *, first_look: bool) -> Bench:
    detector = bench.open_detector(str(path))
    looking = bench.rules.looking
    key = {**looking.key, "detector": file_digest(path), "weights": ""}
    rules = replace(bench.rules, detector=detector, looking=replace(looking, key=key))
    bench = replace(bench, rules=rules, detector=str(path))
    if not first_look:
        return bench

    def anew(split: Split, title: str) -> Split:
        full = find_in_full(split.pictures, detector, rules.looking, title=title)
        return replace(split, full=full)

    held = bench.held and anew(bench.held, f"whole pictures, {FINETUNED}, to calibrate")
    return replace(bench, split=anew(bench.split, f"whole pictures, {FINETUNED}"), held=held)


def _open(
    detector: Callable[[], Detector], upscaler: Callable[[], Upscaler | None] | None = None
) -> Eyes:
    return detector(), upscaler() if upscaler else None


def described(result: ArmResult) -> dict[str, Any]:
    """An arm's numbers as study.json has them."""
    rows: dict[str, Any] = {
        "metrics": result.metrics,
        "seconds_per_picture": result.seconds_per_picture,
        "megapixels": result.megapixels,
    }
    if result.others:
        rows["trainings"] = [evaluation.metrics for evaluation in result.evaluations]
    if result.trust:  # expected calibration errors, before and after
        rows["calibration_error"] = {
            source: [before.ece, after.ece] for source, (before, after) in result.trust.items()
        }
    if result.merge is not None:
        rows["merge"] = str(result.merge.best)
    return rows
