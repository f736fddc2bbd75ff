"""Who won: the best, the Pareto set, the order, the failed."""

import math
from dataclasses import replace

import pytest

from pipeline.sweeps.outcome import Ended, failures, knee, pareto, rows, said, stand, story

OBJECTIVE = {"val/psnr_y": "max", "val/lpips": "min"}
LABELS = {"model.init_args.gan_weight": "gan_weight"}


def trial(name, psnr, lpips, state="finished", error=""):
    metrics = {} if psnr is None else {"val/psnr_y": psnr, "val/lpips": lpips}
    point = {"model.init_args.gan_weight": 0.01}
    return Ended(name, point, state, 4, metrics, None, error)


def test_the_pareto_set_is_what_no_other_point_beats():
    values = [[30, -0.30], [29, -0.20], [28, -0.25], [31, -0.50], [math.nan, 0.0], [29, -0.20]]
    assert pareto(values) == [0, 1, 3, 5]


def test_of_the_pareto_set_the_point_nearest_to_the_best_of_both_wins():
    values = [[30.0, -0.5], [29.8, -0.2], [28.0, -0.15]]
    assert knee(values, [0, 1, 2]) == 1


def test_a_failed_trial_never_wins_and_stands_last_with_its_reason():
    trials = [
        trial("trial-001", 28.0, 0.3),
        trial("trial-002", 31.0, 0.1, "failed", "ValueError: boom"),
        trial("trial-003", None, None, "failed", "OSError: no shards"),
        trial("trial-004", 29.0, 0.2),
    ]  # fmt: skip
    standing = stand(trials, {"val/psnr_y": "max"})
    assert standing.best.name == "trial-004"
    assert standing.trials[0].name == "trial-004"
    assert standing.trials[-1].name == "trial-003"
    assert failures(trials) == [
        "trial-002 failed: ValueError: boom", "trial-003 failed: OSError: no shards",
    ]  # fmt: skip
    pages = {"trial-004": "#/experiments/1/runs/abc"}
    told = story(standing, {"val/psnr_y": "max"}, LABELS, pages)
    assert "| [trial-004](#/experiments/1/runs/abc) | 0.01 | 29 | finished |" in told
    assert "| trial-003 | 0.01 |  | failed |" in told


def test_smaller_is_better_where_the_mode_says_so():
    trials = [trial("a", 28.0, 0.3), trial("b", 27.0, 0.1)]
    assert stand(trials, {"val/lpips": "min"}).best.name == "b"
    assert {each.name for each in stand(trials, OBJECTIVE).front} == {"a", "b"}


def test_every_row_of_the_table_has_the_same_columns():
    standing = stand([trial("a", 28.0, 0.3), trial("b", None, None, "failed", "x")], OBJECTIVE)
    table = rows(standing, OBJECTIVE, LABELS)
    assert table[0].keys() == table[1].keys()
    assert table[0]["best"] is True
    assert table[1]["val/psnr_y"] is None


def test_a_sweep_without_any_result_says_what_the_first_trial_said():
    with pytest.raises(ValueError, match="came to a result; the first said: OSError: gone"):
        stand([trial("a", None, None, "failed", "OSError: gone")], OBJECTIVE)


def test_of_a_traceback_the_last_line_is_told():
    assert said("Traceback:\n  File x\nValueError: data.crop 33\n\n") == "ValueError: data.crop 33"
    assert said("Traceback:\na.b.DivergenceError: step 2: x.y") == "DivergenceError: step 2: x.y"


def test_a_budget_too_small_for_any_validation_is_named():
    early = [replace(trial(name, None, None, "stopped"), validations=0) for name in "ab"]
    with pytest.raises(ValueError, match="before their first validation: give the sweep a larger"):
        stand(early, OBJECTIVE)


def test_trials_that_validated_to_no_number_are_not_said_to_have_had_no_time():
    with pytest.raises(ValueError, match=r"no trial came to a result$"):
        stand([trial("a", None, None, "stopped")], OBJECTIVE)
