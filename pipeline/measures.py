"""What the numbers of a study's arms say together: gains, their chance, and their causes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from detection.coco import BINS, Evaluation, bin_name
from detection.gain import Gain, seeded_gains
from detection.significance import PairedTest, paired_tests
from detection.sizes import AITOD_AREAS
from detection.tide import Errors, tide, tide_differences
from detection.truth import CocoSet
from pipeline.arms import timed_by
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
ERROR_BINS = ((0, 16), (16, 32), (32, 96), (96, math.inf))
"""Square root of area in pixels: what kinds of error are told apart for."""
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
    errors_by_size: dict[str, list[Errors]] = field(default_factory=dict)
    """The same for each of ``ERROR_BINS``."""
    same_time: list[Gain] = field(default_factory=list)
    """Gains of arms over the whole picture enlarged until it takes as long as they do."""

    def gain(self, arm: str, metric: str) -> Gain | None:
        """The gain of an arm, where it was measured."""
        return next((g for g in self.gains if (g.arm, g.metric) == (arm, metric)), None)

    def test(self, arm: str, metric: str) -> PairedTest | None:
        """The test of an arm, where one was made."""
        return next((t for t in self.tests if (t.arm, t.metric) == (arm, metric)), None)


def measure_arms(
    truth: CocoSet,
    arms: Sequence[ArmResult],
    *,
    reference: str,
    statistics: Statistics,
    groups: Mapping[int, str] | None = None,
) -> Measures:
    """Gains with intervals, tests corrected over the arms, and differences of errors.

    ``groups``, image id to scene: what is drawn and swapped as a whole. Arms of several trainings
    have no test, for swapping pictures says nothing of other trainings.
    """
    trainings = {arm.name: arm.evaluations for arm in arms}
    evaluations = {name: each[0] for name, each in trainings.items() if len(each) == 1}
    base = trainings[reference][0]
    drawn = groups or None
    metrics = [*METRICS, *(name for name in TINY_METRICS if not math.isnan(base.metrics[name]))]
    with bar("bootstrap", None):
        gains = seeded_gains(
            trainings, reference=reference, metrics=metrics, groups=drawn,
            resamples=statistics.resamples, seed=statistics.seed,
        )  # fmt: skip
    tests = _tests(evaluations, reference, statistics, drawn) if reference in evaluations else []
    errors = _errors(truth, arms, reference)
    return Measures(
        gains,
        tests,
        {name: ranges[0] for name, ranges in errors.items()},
        {name: ranges[1:] for name, ranges in errors.items()},
        _over_larger(arms, trainings, statistics, drawn),
    )


def _over_larger(
    arms: Sequence[ArmResult],
    trainings: Mapping[str, Sequence[Evaluation]],
    statistics: Statistics,
    groups: Mapping[int, str] | None,
) -> list[Gain]:
    """Of every arm with a rival among larger pictures, over it."""
    rivals = [(arm.name, timed_by(arm.spec)) for arm in arms]
    pairs = [(larger, arm) for larger, arm in rivals if arm is not None and arm in trainings]
    return [
        gain
        for larger, arm in pairs
        for gain in seeded_gains(
            {larger: trainings[larger], arm: trainings[arm]}, reference=larger,
            metrics=TESTED, groups=groups, resamples=statistics.resamples, seed=statistics.seed,
        )
    ]  # fmt: skip


def _tests(
    evaluations: Mapping[str, Evaluation],
    reference: str,
    statistics: Statistics,
    groups: Mapping[int, str] | None,
) -> list[PairedTest]:
    base = evaluations[reference].metrics
    metrics = [name for name in TESTED if not math.isnan(base[name])]
    if not statistics.permutations or not metrics:
        return []
    with bar("permutations", None):
        return paired_tests(
            evaluations, reference=reference, metrics=metrics,
            permutations=statistics.permutations, seed=statistics.seed, groups=groups,
        )  # fmt: skip


def _errors(truth: CocoSet, arms: Sequence[ArmResult], reference: str) -> dict[str, list[Errors]]:
    """Of all sizes first, then of each bin."""
    with bar("kinds of error", len(arms)) as advance:
        each = {}
        for arm in arms:
            every = tide(truth, arm.found, bins=ERROR_BINS)
            each[arm.name] = {name: every[name] for name in ("all", *map(_bin, ERROR_BINS))}
            advance(1)
    base = each.pop(reference)
    return {name: tide_differences(errors, base) for name, errors in each.items()}


def _bin(limits: tuple[float, float]) -> str:
    return bin_name(*limits)
