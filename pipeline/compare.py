r"""``srdet detect compare``: two finished studies of the same pictures, paired.

    srdet detect compare runs/grid runs/guided                   (every arm that both have)
    srdet detect compare runs/grid runs/guided --arm sr
    srdet detect compare runs/nms runs/wbf --arm sr --reference_arm bicubic

For what one study holds fixed: windows, merges, detectors. Every resample draws the same pictures
for both, so the interval is as narrow as between two arms of one study. Where the first study drew
whole scenes, so does the comparison.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from detection.coco import MAX_DETECTIONS, Evaluation, evaluate
from detection.gain import Gain, paired_gains
from detection.significance import PairedTest, paired_tests
from detection.truth import CocoSet
from pipeline.files import atomic_file, json_text
from pipeline.groups import scene_groups
from pipeline.measures import METRICS, TESTED
from pipeline.study_files import (
    SCENE,
    TRUTH,
    has_scenes,
    load_detections,
    load_settings,
    load_truth,
    stored_arms,
)
from pipeline.study_settings import Statistics


def compare(
    studies: list[Path],
    *,
    arm: str | None = None,
    reference_arm: str | None = None,
    statistics: Statistics = Statistics(),  # noqa: B008 (frozen)
    out: Path | None = None,
) -> list[Gain]:
    """Measures what an arm of one study gains over that of another.

    Args:
        studies: the folders of two studies: what is measured against, and what is measured.
        arm: of the second study, and of the first where no other is named; every arm that both
            have where none is named.
        reference_arm: of the first study.
        statistics: how a difference is told from luck.
        out: JSON file for the numbers; nothing is written without it.

    Returns:
        One gain for every arm and metric that the pictures have objects for.

    Raises:
        ValueError: not two studies, studies of different pictures, protocols or limits, an arm
            against itself, or no arm in common.
        FileNotFoundError: no study there, or none with such an arm.
    """
    if len(studies) != 2:
        raise ValueError(f"compare takes the folders of two studies, got {len(studies)}")
    before, after = studies
    truths = [load_truth(folder) for folder in studies]
    if not _alike(*truths):
        raise ValueError(
            f"{before} and {after} were measured on different pictures or objects; a paired "
            f"comparison needs one set, in one order, and the same pictures set aside"
        )
    limit = _same_rules(studies)
    how = statistics.groups or (SCENE if has_scenes(before) else None)
    groups = scene_groups(how, truths[0], [before / TRUTH])
    rows: dict[str, list[Any]] = {"gains": [], "tests": []}
    for word in _arms(studies, arm):
        pair = (reference_arm or word, word)
        names = [f"{each} of {folder}" for each, folder in zip(pair, studies, strict=True)]
        if names[0] == names[1]:
            raise ValueError(f"{names[0]} is compared with itself; name another study or arm")
        found = [load_detections(f, a, truths[0]) for f, a in zip(studies, pair, strict=True)]
        evaluations = {
            name: evaluate(truths[0], each, max_detections=limit)
            for name, each in zip(names, found, strict=True)
        }
        gains, tests = _compared(evaluations, statistics, groups)
        rows["gains"] += gains
        rows["tests"] += tests
        _tell(gains, {test.metric: test.p_value for test in tests}, Console())
    if out is not None:
        with atomic_file(out) as temporary:
            stored = {key: [asdict(row) for row in each] for key, each in rows.items()}
            temporary.write_text(json_text(stored))
    return rows["gains"]


def _arms(studies: Sequence[Path], arm: str | None) -> list[str]:
    if arm is not None:
        return [arm]
    first, second = (stored_arms(folder) for folder in studies)
    if shared := [each for each in first if each in second]:
        return shared
    raise ValueError(
        f"{studies[0]} has the arms {', '.join(first)}, {studies[1]} has {', '.join(second)}: none "
        f"in common; name two with --reference_arm and --arm"
    )


def _same_rules(studies: Sequence[Path]) -> int:
    """The limit on detections of both studies.

    Raises:
        ValueError: another protocol or limit: the difference would be that of the rules.
    """
    told = [load_settings(folder) for folder in studies]
    for key in ("protocol", "max_detections"):
        first, second = (each.get(key) for each in told)
        if None not in (first, second) and first != second:
            raise ValueError(
                f"{studies[0]} was measured with {key} {first} and {studies[1]} with {second}: "
                f"that difference would be told as a gain; run one of them again"
            )
    return int(told[0].get("max_detections", MAX_DETECTIONS))


def _compared(
    evaluations: Mapping[str, Evaluation], statistics: Statistics, groups: Mapping[int, str]
) -> tuple[list[Gain], list[PairedTest]]:
    """Gains and tests of the second arm over the first."""
    reference = next(iter(evaluations))
    gains = paired_gains(
        evaluations, reference=reference, metrics=METRICS,
        resamples=statistics.resamples, seed=statistics.seed, groups=groups or None,
    )  # fmt: skip
    gains = [gain for gain in gains if not math.isnan(gain.difference)]
    tests = paired_tests(
        evaluations, reference=reference, permutations=max(1, statistics.permutations),
        seed=statistics.seed, metrics=[g.metric for g in gains if g.metric in TESTED],
        groups=groups or None,
    )  # fmt: skip
    return gains, tests


def _alike(first: CocoSet, second: CocoSet) -> bool:
    if first.images != second.images or first.categories != second.categories:
        return False
    pairs = ((first.objects[image], second.objects[image]) for image in first.objects)
    return all(
        len(a) == len(b) and torch.equal(a.boxes, b.boxes) and torch.equal(a.labels, b.labels)
        for a, b in pairs
    )


def _tell(gains: list[Gain], p_values: dict[str, float], console: Console) -> None:
    from rich.table import Table

    table = Table(
        title=f"{gains[0].arm} against {gains[0].reference}" if gains else "nothing to measure",
        caption="in %; gains in points with their 95 % interval, paired over pictures",
    )
    for column in ("metric", "before", "after", "gain", "p"):
        table.add_column(column, justify="left" if column == "metric" else "right", no_wrap=True)
    for gain in gains:
        change = f"{100 * gain.difference:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
        p_value = p_values.get(gain.metric)
        table.add_row(
            gain.metric, f"{100 * gain.reference_value:.1f}", f"{100 * gain.value:.1f}", change,
            "" if p_value is None else f"{p_value:.3f}",
        )  # fmt: skip
    console.print(table)
    if gains:
        console.print(gains[0].conclusion, highlight=False, markup=False)
