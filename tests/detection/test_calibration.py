import json
from pathlib import Path

import numpy as np
import pytest
import torch

from detection import Detections
from detection.calibration import (
    Calibration,
    Samples,
    fit_calibration,
    isotonic,
    reliability,
    true_and_false,
)
from detection.truth import Objects


def boasting(count: int, *, power: float, side: float = 20.0, seed: int = 0) -> Samples:
    """Detections of score s that are true with probability ``s ** power``."""
    random = torch.Generator().manual_seed(seed)
    scores = torch.rand(count, generator=random)
    hits = torch.rand(count, generator=random) < scores**power
    return Samples(scores, torch.full((count,), side), hits)


def found(scores: torch.Tensor, side: float = 20.0) -> Detections:
    boxes = torch.tensor([[0.0, 0, side, side]]).expand(len(scores), -1)
    return Detections(boxes, scores, torch.ones(len(scores)).long())


def test_pooling_gives_the_shares_worked_by_hand() -> None:
    # 0 | 1 0 | 1 1: the middle two violate the order and share a half
    curve = isotonic(np.array([0.1, 0.2, 0.4, 0.6, 0.8]), np.array([0.0, 1, 0, 1, 1]))
    assert curve.shares == (0.0, 0.5, 1.0)
    assert curve.scores == pytest.approx((0.1, 0.3, 0.7))
    assert curve.samples == 5


def test_pooling_is_the_nearest_rising_line() -> None:
    random = np.random.default_rng(0)
    scores, hits = np.sort(random.random(60)), random.integers(0, 2, 60).astype(float)
    curve = isotonic(scores, hits)
    assert list(curve.shares) == sorted(set(curve.shares))
    # min-max formula of isotonic regression
    best = [
        max(min(hits[i : j + 1].mean() for j in range(k, 60)) for i in range(k + 1))
        for k in range(60)
    ]
    assert sorted(set(np.round(best, 9))) == pytest.approx(curve.shares)


def test_equal_scores_are_one_sample_whatever_their_order() -> None:
    scores = np.array([0.5, 0.5, 0.5, 0.9])
    first = isotonic(scores, np.array([1.0, 0, 0, 1]))
    assert first.shares == isotonic(scores, np.array([0.0, 0, 1, 1])).shares == (1 / 3, 1.0)


def test_calibrated_scores_of_another_split_mean_what_they_say() -> None:
    calibration = fit_calibration({"sr": boasting(4000, power=3.0)})
    fresh = boasting(4000, power=3.0, seed=1)
    before = reliability(fresh.scores, fresh.hits).ece
    after = reliability(calibration.apply("sr", found(fresh.scores)).scores, fresh.hits).ece
    assert before > 0.2
    assert after < 0.04


def test_the_order_of_a_source_never_changes_and_no_two_scores_become_one() -> None:
    calibration = fit_calibration({"sr": boasting(800, power=0.2)})
    scores = torch.linspace(0, 1, 2000)
    calibrated = calibration.apply("sr", found(scores)).scores
    assert bool((calibrated.diff() > 0).all())
    assert float(calibrated.min()) >= 0
    assert float(calibrated.max()) <= 1


def test_a_source_that_boasts_no_longer_wins_over_an_honest_one() -> None:
    calibration = fit_calibration(
        {"full": boasting(3000, power=1.0), "sr": boasting(3000, power=4.0, seed=1)}
    )
    honest = calibration.apply("full", found(torch.tensor([0.6]))).scores
    boast = calibration.apply("sr", found(torch.tensor([0.7]))).scores
    assert float(honest) > float(boast)


def test_each_size_has_its_own_curve() -> None:
    small, large = boasting(1000, power=4.0, side=10.0), boasting(1000, power=0.5, side=50.0)
    both = Samples(*(torch.cat(pair) for pair in zip(_parts(small), _parts(large), strict=True)))
    calibration = fit_calibration({"sr": both}, edges=(32.0,))
    half = torch.tensor([0.5])
    assert float(calibration.apply("sr", found(half, 10.0)).scores) < 0.2
    assert float(calibration.apply("sr", found(half, 50.0)).scores) > 0.6
    assert calibration.fallbacks == ()
    # a side on the limit belongs to the larger bin
    assert float(calibration.apply("sr", found(half, 32.0)).scores) > 0.6


def _parts(samples: Samples) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return samples.scores, samples.sides, samples.hits


def test_few_samples_take_the_next_coarser_curve_and_say_so() -> None:
    few, many = boasting(20, power=1.0), boasting(1000, power=2.0, seed=1)
    calibration = fit_calibration({"few": few, "many": many}, edges=(32.0,))
    own = calibration.curves["many"][0]
    assert calibration.curves["many"][1] == own  # no large ones: all sizes
    assert calibration.curves["few"][0].samples == 1020  # too few at all: all sources
    assert len(calibration.fallbacks) == 4
    assert any(
        text.startswith("many, size 1: 0 true and 0 false") for text in calibration.fallbacks
    )


def test_with_too_few_in_all_scores_stay_as_they_are() -> None:
    calibration = fit_calibration({"sr": boasting(5, power=1.0)})
    scores = torch.linspace(0, 1, 11)
    torch.testing.assert_close(calibration.apply("sr", found(scores)).scores, scores)


def test_detections_that_are_all_true_do_not_make_a_curve() -> None:
    samples = Samples(torch.rand(500), torch.full((500,), 20.0), torch.ones(500, dtype=torch.bool))
    assert fit_calibration({"sr": samples}).curves["sr"][0].samples == 0


def test_a_calibration_comes_back_from_its_file(tmp_path: Path) -> None:
    calibration = fit_calibration({"full": boasting(500, power=1.0), "sr": boasting(30, power=2.0)})
    calibration.save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path / "calibration.json") == calibration
    assert [path.name for path in tmp_path.iterdir()] == ["calibration.json"]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", json.dumps({"edges": [], "fallbacks": [], "curves": {"a": [{"scores": []}]}})],
)
def test_a_file_that_is_no_calibration_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"other\.json is not a calibration"):
        Calibration.load(path)


def test_a_source_that_was_not_calibrated_is_refused() -> None:
    calibration = fit_calibration({"full": boasting(500, power=1.0)})
    with pytest.raises(ValueError, match="no calibration for source 'sr'; there is one for full"):
        calibration.apply("sr", found(torch.tensor([0.5])))
    with pytest.raises(ValueError, match="no source to calibrate"):
        fit_calibration({})


def test_the_error_of_a_calibration_is_the_weighted_mean_gap() -> None:
    scores = torch.tensor([0.1, 0.1, 0.1, 0.9, 1.0])
    hits = torch.tensor([False, False, True, True, True])
    data = reliability(scores, hits, bins=2)
    assert data.count == (3, 2)
    assert data.precision == pytest.approx((1 / 3, 1.0))
    assert data.confidence == pytest.approx((0.1, 0.95))
    assert data.ece == pytest.approx((3 * (1 / 3 - 0.1) + 2 * 0.05) / 5)
    assert np.isnan(reliability(torch.zeros(0), torch.zeros(0)).ece)
    assert reliability(torch.tensor([0.0, 0.5, 1.0]), torch.ones(3), bins=2).count == (1, 2)


def test_duplicates_and_crowds_are_neither_true_nor_false() -> None:
    objects = Objects(
        torch.tensor([[0.0, 0, 10, 10], [100.0, 100, 200, 200]]),
        torch.tensor([1, 1]),
        torch.tensor([100.0, 10000.0]),
        torch.tensor([False, True]),
    )
    boxes = [
        [0.0, 0, 10, 9],
        [0, 0, 10, 10],
        [110, 110, 120, 120],
        [50, 50, 60, 60],
        [0, 0, 10, 10],
    ]
    scores, labels = [0.6, 0.9, 0.8, 0.7, 0.9], [1, 1, 1, 1, 2]
    detections = Detections(torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels))
    true, counts = true_and_false(objects, detections)
    assert true.tolist() == [False, True, False, False, False]
    assert counts.tolist() == [False, True, False, True, True]


def test_a_picture_without_objects_has_only_false_detections() -> None:
    empty = Objects(
        torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0), torch.zeros(0, dtype=torch.bool)
    )
    true, counts = true_and_false(empty, found(torch.tensor([0.5, 0.6])))
    assert (true.tolist(), counts.tolist()) == ([False, False], [True, True])
