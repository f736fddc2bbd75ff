r"""``srdet detect compare``: two finished studies of the same pictures, paired.

    srdet detect compare runs/grid runs/guided --arm sr
    srdet detect compare runs/nms runs/wbf --arm sr --reference_arm bicubic

For what one study holds fixed: windows, merges, detectors. Every resample draws the same pictures
for both, so the interval is as narrow as between two arms of one study.
"""

import json
import math
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console

from detection.coco import evaluate
from detection.gain import Gain, paired_gains
from detection.significance import paired_tests
from detection.truth import CocoSet
from pipeline.files import atomic_file
from pipeline.measures import METRICS, TESTED
from pipeline.study_files import load_detections, load_truth
from pipeline.study_settings import Statistics


def compare(
    studies: list[Path],
    *,
    arm: str,
    reference_arm: str | None = None,
    statistics: Statistics = Statistics(),  # noqa: B008 (frozen)
    out: Path | None = None,
) -> list[Gain]:
    """Measures what an arm of one study gains over that of another.

    Args:
        studies: the folders of two studies: what is measured against, and what is measured.
        arm: of the second study, and of the first where no other is named.
        reference_arm: of the first study.
        statistics: how a difference is told from luck.
        out: JSON file for the numbers; nothing is written without it.

    Returns:
        One gain for every metric that the pictures have objects for.

    Raises:
        ValueError: not two studies, studies of different pictures, or an arm against itself.
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
    words = (reference_arm or arm, arm)
    names = [f"{word} of {folder}" for word, folder in zip(words, studies, strict=True)]
    if names[0] == names[1]:
        raise ValueError(f"{names[0]} is compared with itself; name another study or arm")
    evaluations = {
        name: evaluate(truths[0], load_detections(folder, word, truths[0]))
        for name, folder, word in zip(names, studies, words, strict=True)
    }
    gains = paired_gains(
        evaluations, reference=names[0], metrics=METRICS,
        resamples=statistics.resamples, seed=statistics.seed,
    )  # fmt: skip
    gains = [gain for gain in gains if not math.isnan(gain.difference)]
    tests = paired_tests(
        evaluations, reference=names[0], permutations=max(1, statistics.permutations),
        seed=statistics.seed, metrics=[g.metric for g in gains if g.metric in TESTED],
    )  # fmt: skip
    if out is not None:
        with atomic_file(out) as temporary:
            rows = {"gains": [asdict(g) for g in gains], "tests": [asdict(t) for t in tests]}
            temporary.write_text(json.dumps(rows, indent=1))
    _tell(gains, {test.metric: test.p_value for test in tests}, Console())
    return gains


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
