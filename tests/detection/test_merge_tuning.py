import math

import pytest

from detection.group import Merge
from detection.merge_tuning import CANDIDATES, tune_merge

A, B, C = Merge("nms", 0.4), Merge("nms", 0.6), Merge("wbf", 0.5)


def test_every_arm_is_tried_with_the_same_candidates_and_gets_its_own_best() -> None:
    calls: list[tuple[str, Merge]] = []
    worth = {"bicubic": {A: 0.1, B: 0.3, C: 0.2}, "sr": {A: 0.5, B: 0.3, C: 0.4}}

    def score(found: str, how: Merge) -> float:
        calls.append((found, how))
        return worth[found][how]

    tuned = tune_merge({"bicubic": "bicubic", "sr": "sr"}, score, candidates=[A, B, C])
    assert (tuned["bicubic"].best, tuned["sr"].best) == (B, A)
    assert tuned["sr"].values == (0.5, 0.3, 0.4)
    assert calls == [(arm, how) for arm in worth for how in (A, B, C)]


def test_of_equally_good_candidates_the_first_is_taken() -> None:
    assert tune_merge({"a": None}, lambda _, __: 0.5, candidates=[B, A])["a"].best == B


def test_a_candidate_without_a_value_is_never_chosen() -> None:
    values = {A: math.nan, B: 0.0, C: math.nan}
    assert tune_merge({"a": None}, lambda _, how: values[how], candidates=[A, B, C])["a"].best == B
    with pytest.raises(ValueError, match="arm 'a': no merge has a value"):
        tune_merge({"a": None}, lambda _, __: math.nan)


@pytest.mark.parametrize("candidates", [[], [A, B, A]])
def test_an_unfair_list_of_candidates_is_refused(candidates: list[Merge]) -> None:
    with pytest.raises(ValueError, match="must be there once"):
        tune_merge({"a": None}, lambda _, __: 0.5, candidates=candidates)


def test_the_candidates_differ_and_hold_every_kind() -> None:
    assert len(set(CANDIDATES)) == len(CANDIDATES)
    assert {how.kind for how in CANDIDATES} == {
        "nms", "soft_nms_linear", "soft_nms_gaussian", "nmm", "wbf",
    }  # fmt: skip
