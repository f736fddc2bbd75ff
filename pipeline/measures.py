"""What the numbers of a study's arms say together: gains, their chance, and their causes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from detection.coco import BINS, Evaluation, bin_name
from detection.gain import Gain, paired_gains
from detection.significance import PairedTest, paired_tests
from detection.sizes import AITOD_AREAS
from detection.tide import Errors, tide, tide_differences
from detection.truth import CocoSet
from pipeline.progress import bar
from pipeline.study import ArmResult
from pipeline.study_settings import Statistics

METRICS = (
    "AP",
    "AP50",
    "AP75",
    "AP_small",
    "AP_medium",
    "AP_large",
    *(f"AP_{bin_name(*b)}" for b in BINS),
)
TINY_METRICS = tuple(f"AP_{name}" for name in AITOD_AREAS)
"""Of AI-TOD's sizes; measured where the set has such objects."""
TESTED = ("AP", "AP_small")
"""Each further one would be a further chance of a false alarm."""


@dataclass(frozen=True)
class Measures:
    """Every arm against the reference."""

    gains: list[Gain]
    tests: list[PairedTest]
    """Empty where no permutation was asked for."""
    errors: dict[str, Errors]
    """Arm to its errors of six kinds, over all sizes, minus the reference's."""

    def gain(self, arm: str, metric: str) -> Gain | None:
        """The gain of an arm, where it was measured."""
        return next((g for g in self.gains if (g.arm, g.metric) == (arm, metric)), None)

    def test(self, arm: str, metric: str) -> PairedTest | None:
        """The test of an arm, where one was made."""
        return next((t for t in self.tests if (t.arm, t.metric) == (arm, metric)), None)


def measure_arms(
    truth: CocoSet, arms: Sequence[ArmResult], *, reference: str, statistics: Statistics
) -> Measures:
    """Gains with intervals, tests corrected over the arms, and differences of errors."""
    evaluations = {arm.name: arm.evaluation for arm in arms}
    base = evaluations[reference]
    metrics = [*METRICS, *(name for name in TINY_METRICS if not math.isnan(base.metrics[name]))]
    with bar("bootstrap", None):
        gains = paired_gains(
            evaluations, reference=reference, metrics=metrics,
            resamples=statistics.resamples, seed=statistics.seed,
        )  # fmt: skip
    return Measures(
        gains, _tests(evaluations, reference, statistics), _errors(truth, arms, reference)
    )


def _tests(
    evaluations: Mapping[str, Evaluation], reference: str, statistics: Statistics
) -> list[PairedTest]:
    base = evaluations[reference].metrics
    metrics = [name for name in TESTED if not math.isnan(base[name])]
    if not statistics.permutations or not metrics:
        return []
    with bar("permutations", None):
        return paired_tests(
            evaluations, reference=reference, metrics=metrics,
            permutations=statistics.permutations, seed=statistics.seed,
        )  # fmt: skip


def _errors(truth: CocoSet, arms: Sequence[ArmResult], reference: str) -> dict[str, Errors]:
    with bar("kinds of error", len(arms)) as advance:
        each = {}
        for arm in arms:
            each[arm.name] = {"all": tide(truth, arm.found, bins=())["all"]}
            advance(1)
    base = each.pop(reference)
    return {name: tide_differences(errors, base)[0] for name, errors in each.items()}
