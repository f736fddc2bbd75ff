import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from detection import Detections
from detection.coco import Evaluation, evaluate
from detection.significance import holm, paired_tests
from detection.truth import CocoSet, Objects, Picture

BOX = torch.tensor([[5.0, 5, 15, 15]])
ONE = torch.ones(1, dtype=torch.int64)


def pictures_with_one_object(count: int) -> CocoSet:
    pictures = tuple(Picture(i, f"{i}", 50, 50) for i in range(count))
    areas, crowds = torch.tensor([100.0]).double(), torch.tensor([False])
    objects = {i: Objects(BOX, ONE, areas, crowds) for i in range(count)}
    return CocoSet("drawn", pictures, {1: "car"}, objects, [])  # type: ignore[arg-type]


def found_in(truth: CocoSet, images: list[int], score: float = 0.9) -> Evaluation:
    found = {i: Detections(BOX, torch.tensor([score]), ONE) for i in images}
    return evaluate(truth, found, bins=())


def test_the_p_value_is_that_of_the_sign_test_where_that_is_known() -> None:
    # AR is the share of pictures found: 6 pictures differ, all for the better. Of the 2^6 swaps
    # two are as extreme.
    truth = pictures_with_one_object(20)
    arms = {"bicubic": found_in(truth, list(range(8))), "sr": found_in(truth, list(range(14)))}
    (test,) = paired_tests(arms, reference="bicubic", permutations=4000, metrics=("AR",))
    assert test.difference == pytest.approx(0.3)
    assert test.p_value == pytest.approx(2 / 64, abs=0.008)
    assert test.p_holm == test.p_value
    assert test.significant


def test_identical_arms_have_a_p_value_of_one() -> None:
    truth = pictures_with_one_object(10)
    arms = {"bicubic": found_in(truth, [1, 2]), "twin": found_in(truth, [1, 2])}
    tests = paired_tests(arms, reference="bicubic", permutations=50, metrics=("AP", "AR"))
    assert [test.metric for test in tests] == ["AP", "AR"]
    for test in tests:
        assert test.p_value == 1
        assert not test.significant


def test_a_p_value_is_never_zero() -> None:
    truth = pictures_with_one_object(60)
    arms = {"bicubic": found_in(truth, []), "sr": found_in(truth, list(range(60)))}
    (test,) = paired_tests(arms, reference="bicubic", permutations=99, metrics=("AP",))
    assert test.p_value == pytest.approx(0.01)


def test_scenes_swap_as_a_whole() -> None:
    # 12 pictures differ, but they are of two scenes: two of four swaps are as extreme.
    truth = pictures_with_one_object(20)
    arms = {"bicubic": found_in(truth, []), "sr": found_in(truth, list(range(12)))}
    scene = {i: f"scene {min(i // 6, 2)}" for i in range(20)}
    alone, scenes = (
        paired_tests(arms, reference="bicubic", permutations=1000, metrics=("AR",), groups=groups)[
            0
        ].p_value
        for groups in (None, scene)
    )
    assert alone < 0.01
    assert scenes == pytest.approx(0.5, abs=0.05)


def test_without_a_difference_p_values_are_even_and_false_alarms_as_rare_as_said() -> None:
    random = np.random.default_rng(0)
    truth = pictures_with_one_object(30)
    p_values = []
    for study in range(120):
        arms = {
            name: found_in(truth, np.flatnonzero(random.random(30) < 0.5).tolist())
            for name in ("bicubic", "sr")
        }
        (test,) = paired_tests(
            arms, reference="bicubic", permutations=99, seed=study, metrics=("AR",)
        )
        p_values.append(test.p_value)
    assert np.mean(np.array(p_values) <= 0.05) <= 0.09
    assert np.mean(p_values) > 0.4


def test_the_limits_of_holm_are_those_of_a_worked_example() -> None:
    # Sorted .005, .01, .03, .04 times 4, 3, 2, 1, never falling: .02, .03, .06, .06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    adjusted = holm([0.01, math.nan, 0.02])
    assert adjusted[0] == pytest.approx(0.02)
    assert math.isnan(adjusted[1])


def test_each_metric_is_corrected_over_its_arms() -> None:
    truth = pictures_with_one_object(20)
    arms = {"bicubic": found_in(truth, list(range(8)))}
    arms |= {f"sr{k}": found_in(truth, list(range(8 + k))) for k in (4, 6, 9)}
    tests = paired_tests(arms, reference="bicubic", permutations=300, metrics=("AR", "AP_small"))
    assert [(t.metric, t.arm) for t in tests[:3]] == [("AR", f"sr{k}") for k in (4, 6, 9)]
    recall = sorted(tests[:3], key=lambda test: test.p_value)
    assert recall[0].p_holm == pytest.approx(3 * recall[0].p_value)
    assert all(a.p_holm <= b.p_holm for a, b in pairwise(recall))


def test_sizes_without_objects_have_no_p_value() -> None:
    truth = pictures_with_one_object(5)
    arms = {"bicubic": found_in(truth, [1]), "sr": found_in(truth, [2])}
    (test,) = paired_tests(arms, reference="bicubic", permutations=9, metrics=("AP_large",))
    assert math.isnan(test.p_value)
    assert math.isnan(test.p_holm)
    assert not test.significant
