import math
from statistics import NormalDist

import numpy as np
import pytest
import torch

from detection.bootstrap import draw_weights, group_positions, interval, student_quantile


@pytest.mark.parametrize(
    ("freedom", "expected"),
    [(1, 12.7062), (2, 4.3027), (5, 2.5706), (30, 2.0423), (99, 1.9842), (10**6, 1.9602)],
)
def test_students_quantiles_are_those_of_the_tables(freedom: int, expected: float) -> None:
    assert student_quantile(0.975, freedom) == pytest.approx(expected, abs=2e-4)


def test_the_interval_is_wider_than_percentiles_by_students_t_and_the_lost_degree() -> None:
    drawn = np.array([NormalDist(3, 2).inv_cdf((i + 0.5) / 5000) for i in range(5000)])
    low, high = interval(drawn, units=10)
    reach = 2 * math.sqrt(10 / 9) * 2.2622
    assert (low, high) == pytest.approx((3 - reach, 3 + reach), abs=0.02)
    assert interval(drawn, units=10**6) == pytest.approx((3 - 3.92, 3 + 3.92), abs=0.02)


def test_one_unit_or_no_draw_has_no_interval() -> None:
    assert all(math.isnan(end) for end in interval(np.ones(5), units=1))
    assert all(math.isnan(end) for end in interval(np.ones(0), units=5))


def test_an_image_drawn_twice_counts_twice_and_every_draw_has_the_size_of_the_set() -> None:
    # Counting each drawn image once would leave 63 % of them, and intervals a sixth too narrow.
    weights = draw_weights(group_positions(range(200), None), resamples=300, seed=0)
    assert torch.equal(weights.sum(0), torch.full((300,), 200.0))
    assert float((weights > 0).float().mean()) == pytest.approx(1 - 1 / math.e, abs=0.01)
    assert float(weights.var()) == pytest.approx(1.0, abs=0.03)


def test_images_of_one_group_are_drawn_together() -> None:
    groups = {10: "a", 11: "b", 12: "a"}
    positions = group_positions([10, 11, 12], groups)
    assert positions.tolist() == [0, 1, 0]
    weights = draw_weights(positions, resamples=50, seed=0)
    assert torch.equal(weights[0], weights[2])
    assert torch.equal(weights[0] + weights[1], torch.full((50,), 2.0))


@pytest.mark.parametrize("units", [8, 30])
def test_95_of_100_intervals_hold_the_truth_where_plain_percentiles_would_not(units: int) -> None:
    random = np.random.default_rng(1)
    positions = group_positions(range(units), None)
    held = plain = 0
    for study in range(500):
        sample = random.normal(size=units)
        weights = draw_weights(positions, resamples=400, seed=study).numpy()
        drawn = sample @ weights / units
        low, high = interval(drawn, units=units)
        held += low <= 0 <= high
        low, high = np.quantile(drawn, [0.025, 0.975])
        plain += low <= 0 <= high
    assert 0.93 <= held / 500 <= 0.97
    assert plain < held
    assert units > 8 or plain / 500 < 0.92
