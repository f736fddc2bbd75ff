"""A finished study, and what it says in a sentence."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from detection.errors import Transitions, hallucinations_per_megapixel, transitions
from detection.gain import Gain
from detection.windows import Coverage, WindowPlan
from pipeline.arms import ORIGINAL, is_control
from pipeline.larger import Zoom
from pipeline.measures import ERROR_BINS, Measures
from pipeline.report import CurveView
from pipeline.study import ArmResult, Pictures
from pipeline.upscalers import Upscaler

SHOWN_SCORE = 0.3
"""Detections below it would only clutter a picture."""


@dataclass(frozen=True)
class Findings:
    """Everything a study found."""

    title: str
    pictures: Pictures
    plan: WindowPlan
    arms: list[ArmResult]
    measures: Measures
    coverage: Coverage
    reference: str
    upscalers: Mapping[str, Upscaler | None]
    moved: Mapping[str, tuple[float, float]]
    """Arm to how far right and down it moves things, in pixels before enlargement."""
    settings: Mapping[str, Any]
    training: list[CurveView] = field(default_factory=list)
    seen: Mapping[str, int] = field(default_factory=dict)
    """Network, or "the detector", to how many of the pictures it learnt from, as far as known."""
    larger: Mapping[str, Zoom] = field(default_factory=dict)
    """Arm of larger pictures to what it enlarges them by."""
    finetuned: "Findings | None" = None
    """The same study with detectors that learnt from each arm's pictures."""

    @property
    def networks(self) -> list[str]:
        """Names of the arms that are super-resolution."""
        return [arm.name for arm in self.arms if not is_control(arm.spec)]

    @functools.cached_property
    def changes(self) -> dict[str, list[Transitions]]:
        """Arm to what became of the objects of each size, against the reference."""
        by_name = {arm.name: arm.found for arm in self.arms}
        base = by_name.pop(self.reference)
        return {
            name: transitions(
                self.pictures.truth, base, found, bins=ERROR_BINS, score=SHOWN_SCORE
            )
            for name, found in by_name.items()
        }  # fmt: skip

    @functools.cached_property
    def invented(self) -> dict[str, float]:
        """Arm, the reference included, to boxes a megapixel where there is nothing."""
        return {
            arm.name: hallucinations_per_megapixel(
                self.pictures.truth, arm.found, score=SHOWN_SCORE
            )
            for arm in self.arms
        }  # fmt: skip

    @property
    def gains(self) -> list[Gain]:
        """Of every arm over the reference in every metric."""
        return self.measures.gains

    def gain(self, arm: str, metric: str) -> Gain | None:
        """The gain of an arm, where it was measured."""
        return self.measures.gain(arm, metric)


def verdict(study: Findings) -> str:
    """What the study says: of every super-resolution arm, whether it helps, over all and small."""
    if not any(study.gain(name, "AP") for name in study.networks):
        return "No super-resolution arm was measured."
    says = f"Against {study.reference} at the same geometry: {_said(study)}."
    if study.finetuned is not None and study.finetuned.networks:
        says += f" With detectors that learnt from each arm's pictures: {_said(study.finetuned)}."
    says += _unseen(study)
    says += _same_time(study)
    if tested := [name for name, count in study.seen.items() if count]:
        says = f"No test: {' and '.join(tested)} learnt from these very pictures. {says}"
    if study.plan.oracle:
        return f"An upper bound and no result, for the windows know the truth. {says}"
    return says


VERBS = {
    "helps": ("helps", "help"),
    "hurts": ("hurts", "hurt"),
    "inconclusive": ("is inconclusive", "are inconclusive"),
}
"""By the verdict of a gain, for one arm and for several."""


def _said(study: Findings) -> str:
    """Over all sizes, then on small objects where there are any."""
    overall, small = (_of_networks(study, metric) for metric in ("AP", "AP_small"))
    if not overall:
        return "nothing can be said, for one picture or scene alone gives no interval"
    return f"in AP {overall}" + (f"; on small objects {small}" if small else "")


def _of_networks(study: Findings, metric: str) -> str:
    return _clauses(study, [study.gain(name, metric) for name in study.networks])


def _same_time(study: Findings) -> str:
    """Whether the time of windows and networks were better spent on a larger picture."""
    rivals = [gain for gain in study.measures.same_time if gain.metric == "AP"]
    said = _clauses(study, [gain for gain in rivals if gain.arm in study.networks])
    return f" Against the whole picture, enlarged by bicubic to take as long: {said}." * bool(said)


def _clauses(study: Findings, gains: Sequence[Gain | None]) -> str:
    """Arms by what is known of them, in points with their 95 % interval."""
    measured = [gain for gain in gains if gain and not math.isnan(gain.low)]
    clauses = []
    for kind, verbs in VERBS.items():
        of_kind = [
            f"{gain.arm} {100 * gain.difference:+.1f} "
            f"({100 * gain.low:+.1f} to {100 * gain.high:+.1f}{_recovered(study, gain)})"
            for gain in measured
            if gain.verdict == kind
        ]
        if of_kind:
            *others, last = of_kind
            listed = f"{', '.join(others)} and {last}" if others else last
            clauses.append(f"{listed} {verbs[len(of_kind) > 1]}")
    return ", ".join(clauses)


def _unseen(study: Findings) -> str:
    """What an inconclusive study could have seen."""
    gains = [gain for name in study.networks if (gain := study.gain(name, "AP"))]
    unsure = [g for g in gains if g.verdict == "inconclusive" and not math.isnan(g.low)]
    if not unsure:
        return ""
    seen = 100 * max(gain.detectable for gain in unsure)
    pictures, objects = unsure[0].images, unsure[0].objects
    return (
        f" These {pictures} pictures with {objects:,} objects show differences of {seen:.1f} "
        f"points of AP or more."
    )


def _recovered(study: Findings, gain: Gain) -> str:
    """The share of what perfect super-resolution would give, where that is anything."""
    oracle = next((arm.name for arm in study.arms if arm.spec == ORIGINAL), None)
    ceiling = study.gain(oracle, gain.metric) if oracle else None
    if ceiling is None or gain.reference != study.reference:
        return ""
    if not ceiling.low > 0 or gain.low <= 0:
        return ""
    return (
        f", {100 * gain.difference / ceiling.difference:.0f} % of what the original pictures give"
    )
