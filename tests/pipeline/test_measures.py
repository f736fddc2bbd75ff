import math

import pytest
import torch

from detection.coco import evaluate, truth_as_detections
from pipeline.measures import measure_arms
from pipeline.study import ArmResult, load_pictures
from pipeline.study_settings import Statistics
from pipeline.study_tables import probability, study_tables
from tests.pipeline.test_study import write_squares

QUICK = Statistics(resamples=50, permutations=200)


@pytest.fixture
def truth(tmp_path):
    squares = {image: [(20, 24, 36, 40), (50, 50, 56, 56)] for image in range(1, 9)}
    path = write_squares(tmp_path, squares)
    return load_pictures([path], [tmp_path / "images"], degradation=None, limit=None).truth


def arm(name, truth, found):
    return ArmResult(name, name, found, evaluate(truth, found), 0.1, 0.1, 1.0)


def study(truth, statistics=QUICK):
    """A reference that finds every other object, a twin of it, and a perfect arm."""
    every = truth_as_detections(truth)
    half = {image: found.select(torch.tensor([0])) for image, found in every.items()}
    arms = [
        arm("bicubic", truth, half),
        arm("twin", truth, half),
        arm("perfect", truth, every),
    ]
    return measure_arms(truth, arms, reference="bicubic", statistics=statistics)


def test_a_perfect_arm_is_no_luck_and_a_twin_is(truth):
    measures = study(truth)
    assert measures.test("perfect", "AP").p_holm < 0.1
    assert measures.test("twin", "AP").p_holm == 1
    assert measures.gain("perfect", "AP").verdict == "helps"
    assert measures.gain("twin", "AP").difference == 0


def test_what_a_perfect_arm_mends_is_missed_objects(truth):
    errors = study(truth).errors
    assert errors["perfect"].counts["miss"] == -8
    assert errors["perfect"].gains["miss"] == pytest.approx(-0.495, abs=1e-3)
    assert set(errors["twin"].counts.values()) == {0}


def test_tiny_sizes_are_measured_where_objects_have_them(truth):
    measures = study(truth)
    assert measures.gain("perfect", "AP_aitod_very_tiny").objects == 8
    assert measures.gain("perfect", "AP_aitod_medium") is None


def test_without_permutations_there_is_no_test_and_the_table_has_dashes(truth):
    measures = study(truth, Statistics(resamples=20, permutations=0))
    assert measures.tests == []
    chance = study_tables(measures, {}, reference="bicubic")[0]
    assert chance.rows[0][:3] == ("twin", "AP", "0.0")
    assert chance.rows[0][4:6] == ("–", "–")


def test_the_tables_hold_chance_sizes_errors_and_alignment(truth):
    tables = study_tables(study(truth), {"perfect": (0.01, -0.375)}, reference="bicubic")
    titles = [table.title for table in tables]
    assert titles == [
        "Gain or luck", "AP by AI-TOD's sizes", "Kinds of error", "Kinds of error by size",
        "Alignment",
    ]  # fmt: skip
    assert all(len(row) == len(table.columns) for table in tables for row in table.rows)
    chance, tiny, errors, by_size, alignment = tables
    assert ("perfect", "AP", "+49.5") in [row[:3] for row in chance.rows]
    assert tiny.columns == ("arm", "2-8 px (8)", "8-16 px (8)", "16-32 px (8)")
    assert tiny.rows[0] == ("bicubic", "0.0", "100.0", "100.0")
    assert errors.rows[1][-1] == "−49.5 (−8)"
    assert {row[1] for row in by_size.rows} == {"0–16", "16–32"}
    assert alignment.rows == (("perfect", "+0.010", "−0.375"),)


def test_a_p_value_is_printed_with_the_digits_it_has():
    assert [probability(p) for p in (0.00099, 0.0312, 0.42, math.nan)] == [
        "0.001", "0.031", "0.42", "–",
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [("resamples", 0), ("permutations", -1)])
def test_statistics_of_nothing_are_refused(name, value):
    with pytest.raises(ValueError, match="statistics"):
        Statistics(**{name: value})
