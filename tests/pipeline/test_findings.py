"""The verdict says in one sentence what a study found, and no more."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from detection.gain import Gain
from pipeline.findings import Findings, verdict
from pipeline.measures import Measures

SPECS = {"none": "none", "a": "a.safetensors", "b": "b.safetensors", "original": "original"}


def gain(arm, metric, difference, low, high):
    return Gain(
        arm, "bicubic", metric, 0.1, 0.1 + difference, difference, low, high, 0.9, 88, 632,
        standard_error=0.01,
    )  # fmt: skip


def study(gains, *, finetuned=None, oracle=False, seen=None, same_time=()):
    arms = [SimpleNamespace(name=name, spec=spec) for name, spec in SPECS.items()]
    return Findings(
        "title", SimpleNamespace(), SimpleNamespace(oracle=oracle), arms,
        Measures(gains, [], {}, {}, list(same_time)), SimpleNamespace(), "bicubic", {}, {}, {},
        seen=seen or {}, finetuned=finetuned,
    )  # fmt: skip


UNSURE = [gain("a", "AP", 0.021, -0.009, 0.035), gain("b", "AP", 0.024, -0.009, 0.037)]


def test_unsure_networks_are_named_together_with_what_would_have_been_seen():
    assert verdict(study(UNSURE)) == (
        "Against bicubic at the same geometry: in AP a +2.1 (-0.9 to +3.5) and b +2.4 (-0.9 to "
        "+3.7) are inconclusive. These 88 pictures with 632 objects show differences of 2.8 points "
        "of AP or more."
    )


def test_small_objects_have_a_verdict_of_their_own():
    small = [gain("a", "AP_small", 0.028, 0.01, 0.048), gain("b", "AP_small", -0.03, -0.05, -0.01)]
    assert "; on small objects a +2.8 (+1.0 to +4.8) helps, b -3.0 (-5.0 to -1.0) hurts." in (
        verdict(study([*UNSURE, *small]))
    )


@pytest.mark.parametrize(("low", "told"), [(0.02, True), (-0.02, False)])
def test_the_share_of_the_ceiling_is_told_where_both_are_certain(low, told):
    gains = [gain("a", "AP", 0.02, 0.01, 0.03), gain("original", "AP", 0.04, low, 0.06)]
    said = "a +2.0 (+1.0 to +3.0, 50 % of what the original pictures give) helps"
    assert (said in verdict(study(gains))) == told
    assert "+2.0 (+1.0 to +3.0" in verdict(study(gains))


def test_the_detector_that_learnt_from_an_arm_speaks_in_a_sentence_of_its_own():
    learnt = study([gain("a", "AP", -0.02, -0.03, -0.01)])
    said = verdict(study(UNSURE, finetuned=learnt))
    assert (
        " With detectors that learnt from each arm's pictures: in AP a -2.0 (-3.0 to -1.0) hurts."
    ) in said


def test_what_a_larger_picture_does_in_the_same_time_comes_last():
    rivals = [
        replace(gain(arm, "AP", *numbers), reference="larger")
        for arm, numbers in (("a", (0.02, 0.01, 0.03)), ("none", (0.05, 0.04, 0.06)))
    ]
    small = replace(gain("a", "AP_small", 0.1, 0.05, 0.2), reference="larger")
    ceiling = gain("original", "AP", 0.04, 0.02, 0.06)
    said = verdict(study([*UNSURE, ceiling], same_time=[*rivals, small]))
    assert said.endswith(
        "points of AP or more. Against the whole picture, enlarged by bicubic to take as long: a "
        "+2.0 (+1.0 to +3.0) helps."
    )


def test_bounds_and_pictures_that_were_learnt_from_come_first():
    said = verdict(study(UNSURE, oracle=True, seen={"a": 3, "b": 0}))
    assert said.startswith(
        "An upper bound and no result, for the windows know the truth. No test: a learnt from "
        "these very pictures. Against bicubic"
    )


def test_of_one_picture_alone_nothing_is_said():
    alone = [gain("a", metric, 0.02, float("nan"), float("nan")) for metric in ("AP", "AP_small")]
    assert verdict(study(alone)) == (
        "Against bicubic at the same geometry: nothing can be said, for one picture or scene alone "
        "gives no interval."
    )


def test_without_a_network_nothing_is_claimed():
    assert verdict(study([])) == "No super-resolution arm was measured."
