import math

import numpy as np
import pytest
import torch

from detection import precision_recall
from detection.matching import Matches
from detection.precision_recall import (
    RECALLS,
    measure,
    parse_metric,
    precision_curve,
    weighted_ap,
    weighted_recall,
)


def row(outcomes: str, *, objects: int) -> Matches:
    """One picture, one threshold; ``outcomes`` by falling score: h hit, m miss."""
    hit = np.array([[letter == "h" for letter in outcomes]], dtype=bool)
    scores = np.linspace(1, 0, len(outcomes))
    image = np.zeros(len(outcomes), np.int64)
    return Matches(scores, image, hit, ~hit, np.array([objects]))


def ap(matches: Matches) -> float:
    return float(weighted_ap(matches, torch.ones(1, 1, dtype=torch.float64)))


def slow_ap(matches: Matches, weights: np.ndarray) -> float:
    """COCO's definition, word by word."""
    hit = np.cumsum(matches.hit[0] * weights[matches.image])
    false = np.cumsum(matches.miss[0] * weights[matches.image])
    precision = hit / (hit + false + np.spacing(1))
    recall = hit / (matches.objects @ weights)
    total = 0.0
    for point in np.linspace(0, 1, 101):
        total += precision[recall >= point].max(initial=0)
    return total / 101


def test_the_average_is_over_101_recalls_and_not_under_a_trapezoid() -> None:
    # Found: the 1st and 3rd; half of the curve at 1, half at 2/3. Trapezoids would give 0.792.
    assert ap(row("hmh", objects=2)) == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)


def test_what_is_never_found_counts_as_precision_zero() -> None:
    assert ap(row("h", objects=2)) == pytest.approx(51 / 101)
    assert ap(row("mmm", objects=2)) == 0
    assert ap(row("", objects=2)) == 0


def test_35_of_100_do_not_reach_the_recall_of_35_times_a_hundredth() -> None:
    # numpy's 35 * 0.01 is a digit above 35 / 100, so COCO's 36th point asks for one more object.
    assert RECALLS[35] > 35 / 100
    assert ap(row("h" * 34, objects=100)) == pytest.approx(35 / 101)
    assert ap(row("h" * 35, objects=100)) == pytest.approx(35 / 101)
    assert ap(row("h" * 36, objects=100)) == pytest.approx(37 / 101)


def test_no_object_is_not_a_number() -> None:
    assert math.isnan(ap(row("mm", objects=0)))
    recall = weighted_recall(row("mm", objects=0), torch.ones(1, 1))
    assert math.isnan(float(recall))


@pytest.mark.parametrize("cells", [1, 500_000])
def test_weights_follow_the_definition(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision_recall, "CELLS_AT_ONCE", cells)
    random = np.random.default_rng(0)
    hit = random.random((1, 400)) < 0.5
    miss = ~hit & (random.random((1, 400)) < 0.8)
    image = random.integers(0, 30, 400)
    counts = np.bincount(image[hit[0]], minlength=30) + random.integers(0, 3, 30)
    matches = Matches(np.linspace(1, 0, 400), image, hit, miss, counts)
    weights = random.multinomial(30, [1 / 30] * 30, size=20).T
    exact = [slow_ap(matches, weights[:, b]) for b in range(20)]
    for kind, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
        values = weighted_ap(matches, torch.from_numpy(weights).to(kind))[0]
        assert values.tolist() == pytest.approx(exact, abs=tolerance)


def test_detections_ignored_at_some_thresholds_only_count_at_the_others() -> None:
    hit = np.array([[True, False, True], [True, False, False]])
    miss = np.array([[False, False, False], [False, True, True]])
    matches = Matches(np.array([0.9, 0.8, 0.7]), np.zeros(3, np.int64), hit, miss, np.array([2]))
    values = weighted_ap(matches, torch.ones(1, 1, dtype=torch.float64))[:, 0]
    assert values.tolist() == pytest.approx([1.0, 51 / 101])
    between = Matches(matches.scores, matches.image, hit[[0, 0]], miss, matches.objects)
    values = weighted_ap(between, torch.ones(1, 1, dtype=torch.float64))[:, 0]
    assert values.tolist() == pytest.approx([1.0, (51 + 50 * 2 / 3) / 101])


def test_recall_counts_found_and_true_objects_by_the_weight_of_their_image() -> None:
    hit = np.array([[True, True, False]])
    image = np.array([0, 1, 1])
    matches = Matches(np.array([0.9, 0.8, 0.7]), image, hit, ~hit, np.array([1, 3]))
    recall = weighted_recall(matches, torch.tensor([[1.0, 2.0, 0.0], [1.0, 0.0, 1.0]]))
    assert recall[0].tolist() == pytest.approx([2 / 4, 2 / 2, 1 / 3])


def test_a_category_without_objects_is_left_out_of_the_mean() -> None:
    matches = {"all": [row("h", objects=1), row("m", objects=0)]}
    values = measure(matches, ["AP", "AR"], torch.ones(1, 2))
    assert values["AP"].tolist() == [1.0, 1.0]
    assert values["AR"].tolist() == [1.0, 1.0]


def test_a_metric_is_a_kind_and_a_range_of_sizes() -> None:
    assert parse_metric("AP50") == ("AP50", "all")
    assert parse_metric("AR_aitod_very_tiny") == ("AR", "aitod_very_tiny")
    assert parse_metric("AP_8_16") == ("AP", "8_16")
    with pytest.raises(
        ValueError, match="unknown metric 'mAP'; it must begin with one of AP, AP50"
    ):
        parse_metric("mAP")


def test_the_mean_of_the_precision_curve_is_the_average_precision() -> None:
    rows = [row("hmhhm", objects=4), row("mh", objects=2), row("mm", objects=0)]
    curve = precision_curve(rows)
    assert curve.shape == (101,)
    assert (np.diff(curve) <= 0).all()
    assert curve.mean() == pytest.approx((ap(rows[0]) + ap(rows[1])) / 2)
    assert np.isnan(precision_curve([rows[2]])).all()
