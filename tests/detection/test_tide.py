from collections.abc import Callable

import pytest
import torch

from detection import Detections
from detection.coco import evaluate
from detection.tide import KINDS, tide, tide_differences
from detection.truth import CocoSet

MakeSet = Callable[..., CocoSet]
CAR, BOAT = 1, 2


def seen(*rows: tuple[list[float], int, float], image: int = 1) -> dict[int, Detections]:
    """Detections as (corners, category, score)."""
    boxes, labels, scores = zip(*rows, strict=True)
    return {
        image: Detections(torch.tensor(boxes).float(), torch.tensor(scores), torch.tensor(labels))
    }


def only(**counts: int) -> dict[str, int]:
    return dict.fromkeys(KINDS, 0) | counts


@pytest.fixture
def street(make_set: MakeSet) -> CocoSet:
    """A car and a boat, far apart; areas 100 and 1600."""
    return make_set([(1, [0, 0, 10, 10], CAR), (1, [40, 20, 40, 40], BOAT)])


HIT_CAR = ([0, 0, 10, 10], CAR, 0.9)
HIT_BOAT = ([40, 20, 80, 60], BOAT, 0.9)


def test_perfect_detections_have_no_error(street: CocoSet) -> None:
    errors = tide(street, seen(HIT_CAR, HIT_BOAT))["all"]
    assert errors.counts == only()
    assert errors.ap50 == pytest.approx(1.0)
    assert set(errors.gains.values()) == {0.0}


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (([0, 0, 10, 4], CAR, 0.95), "loc"),  # overlap .4
        (([40, 20, 80, 60], CAR, 0.95), "cls"),
        (([40, 20, 80, 36], CAR, 0.95), "both"),  # overlap .4 with the boat
        (([0, 0, 10, 1], CAR, 0.95), "loc"),  # overlap .1 with its own
        (([40, 20, 80, 24], CAR, 0.95), "bkg"),  # overlap .1 with the boat
        (([0, 0, 10, 9], CAR, 0.8), "dupe"),
        (([20, 0, 30, 10], CAR, 0.95), "bkg"),
        (([9, 9, 19, 19], CAR, 0.95), "bkg"),  # overlap .005
    ],
)
def test_each_kind_of_false_detection_is_told_and_mended(
    street: CocoSet, row: tuple[list[float], int, float], kind: str
) -> None:
    errors = tide(street, seen(HIT_CAR, HIT_BOAT, row))["all"]
    assert errors.counts == only(**{kind: 1})
    assert errors.ap50 == pytest.approx(1.0 if kind == "dupe" else 0.75)  # the car's AP is 1/2
    assert errors.ap50 + errors.gains[kind] == pytest.approx(1.0)
    assert all(errors.gains[other] == 0 for other in KINDS if other != kind)


def test_an_object_nobody_saw_is_missed_and_no_longer_counts_when_mended(street: CocoSet) -> None:
    errors = tide(street, seen(HIT_CAR))["all"]
    assert errors.counts == only(miss=1)
    assert errors.ap50 == pytest.approx(0.5)
    # No boat is left to be found, and an AP of nothing stays 0 as in the paper's tool.
    assert errors.gains["miss"] == 0


def test_one_of_two_missed_objects_of_a_category_lifts_its_ap(make_set: MakeSet) -> None:
    truth = make_set([(1, [0, 0, 10, 10], CAR), (1, [40, 20, 40, 40], CAR)])
    errors = tide(truth, seen(HIT_CAR))["all"]
    assert errors.ap50 == pytest.approx(51 / 101)
    assert errors.gains["miss"] == pytest.approx(50 / 101)


def test_a_badly_placed_box_explains_its_object_which_is_then_not_missed(street: CocoSet) -> None:
    errors = tide(street, seen(([0, 0, 10, 4], CAR, 0.9), HIT_BOAT))["all"]
    assert errors.counts == only(loc=1)
    assert errors.ap50 + errors.gains["loc"] == pytest.approx(1.0)


def test_of_two_errors_that_want_one_object_the_better_scored_gets_it(street: CocoSet) -> None:
    rows = [([0, 0, 10, 4], CAR, 0.7), ([0, 0, 10, 3], CAR, 0.9), HIT_BOAT]
    errors = tide(street, seen(*rows))["all"]
    assert errors.counts == only(loc=2)
    assert errors.gains["loc"] == pytest.approx(0.5)
    # A wrong name that scores better takes the object from the wrong place.
    rows = [([0, 0, 10, 4], CAR, 0.7), ([0, 0, 10, 10], BOAT, 0.8), HIT_BOAT]
    errors = tide(street, seen(*rows))["all"]
    assert errors.counts == only(loc=1, cls=1)
    assert errors.gains["loc"] == 0
    assert errors.gains["cls"] == pytest.approx(0.5)


def test_a_box_near_its_object_is_misplaced_even_where_it_covers_another_category(
    make_set: MakeSet,
) -> None:
    truth = make_set([(1, [0, 0, 10, 10], CAR), (1, [0, 4, 10, 10], BOAT)])
    covers_the_boat = ([0, 4, 10, 14], CAR, 0.9)  # overlaps the car by .43
    assert tide(truth, seen(covers_the_boat))["all"].counts == only(loc=1, miss=1)


def test_detections_in_a_crowd_region_are_no_errors(make_set: MakeSet) -> None:
    truth = make_set([(1, [0, 0, 10, 10], CAR), (1, [40, 20, 40, 40], CAR)])
    truth.objects[1].crowds[1] = True
    errors = tide(truth, seen(HIT_CAR, ([45, 25, 55, 35], CAR, 0.95)))["all"]
    assert errors.counts == only()
    assert errors.ap50 == pytest.approx(1.0)
    # One that lies in the region by a third is judged, and the region is nothing to be near to.
    errors = tide(truth, seen(HIT_CAR, ([30, 25, 45, 35], CAR, 0.95)))["all"]
    assert errors.counts == only(bkg=1)


def test_sizes_have_their_own_errors_judged_by_the_objects_of_all_sizes(street: CocoSet) -> None:
    # A small box on the large boat is badly placed, not background.
    rows = [HIT_CAR, ([40, 20, 60, 40], BOAT, 0.8), ([20, 60, 30, 70], CAR, 0.95)]
    errors = tide(street, seen(*rows), bins=[(8, 16), (32, 48)])
    assert errors["8_16"].objects == 1
    assert errors["8_16"].counts == only(bkg=1)
    assert errors["small"].counts == only(bkg=1, loc=1)
    assert errors["medium"].counts == only(miss=1)
    assert errors["32_48"].ap50 == 0
    assert errors["small"].ap50 == pytest.approx(0.5)


def test_ap_is_ap50_as_reported_in_every_range(street: CocoSet) -> None:
    found = seen(HIT_CAR, ([40, 20, 80, 50], BOAT, 0.8), ([20, 60, 30, 70], CAR, 0.95))
    reported = evaluate(street, found).metrics["AP50"]
    assert tide(street, found)["all"].ap50 == pytest.approx(reported, abs=1e-12)


def test_differences_are_of_the_arm_against_the_reference(street: CocoSet) -> None:
    invented = ([20, 60, 30, 70], CAR, 0.95)
    reference = tide(street, seen(HIT_CAR, HIT_BOAT))
    arm = tide(street, seen(HIT_CAR, HIT_BOAT, invented))
    (difference,) = [row for row in tide_differences(arm, reference) if row.range == "all"]
    assert difference.counts == only(bkg=1)
    assert difference.ap50 == pytest.approx(-0.25)
    assert difference.gains["bkg"] == pytest.approx(0.25)
    with pytest.raises(ValueError, match="same objects and ranges"):
        tide_differences(arm, tide(street, seen(HIT_CAR), bins=()))


def test_nothing_found_and_pictures_without_objects_are_no_error(make_set: MakeSet) -> None:
    truth = make_set([(1, [0, 0, 10, 10], CAR)], images=2)
    assert tide(truth, {})["all"].counts == only(miss=1)
    errors = tide(truth, seen(HIT_CAR) | seen(HIT_CAR, image=2))["all"]
    assert errors.counts == only(bkg=1)
    assert errors.gains["bkg"] == pytest.approx(0, abs=0.51)


def test_figures_agree_with_those_of_tidecv(make_set: MakeSet) -> None:
    # From tidecv 1.0.1 on this very set, in points of 1 (its curve has the same 101 points).
    rows = [
        (1, [0, 0, 10, 10], CAR), (1, [40, 20, 40, 40], BOAT), (1, [0, 40, 20, 20], CAR),
        (2, [10, 10, 30, 30], CAR), (2, [60, 10, 20, 30], BOAT), (2, [60, 50, 12, 12], CAR),
    ]  # fmt: skip
    truth = make_set(rows, images=2)
    found = seen(
        HIT_CAR, ([40, 20, 80, 40], BOAT, 0.81), ([0, 40, 20, 48], CAR, 0.74),
        ([1, 41, 19, 61], BOAT, 0.66), ([0, 0, 9, 10], CAR, 0.52), ([70, 65, 80, 75], CAR, 0.95),
        ([40, 20, 80, 36], CAR, 0.33),
    ) | seen(
        ([10, 10, 38, 40], CAR, 0.77), ([60, 10, 80, 24], BOAT, 0.72),
        ([60, 10, 80, 40], CAR, 0.61), ([0, 60, 9, 70], BOAT, 0.85),
        ([60, 10, 78, 40], BOAT, 0.41), image=2,
    )  # fmt: skip
    errors = tide(truth, found)["all"]
    assert errors.counts == TIDECV_COUNTS
    assert errors.ap50 == pytest.approx(TIDECV_AP50, abs=1e-9)
    assert errors.gains == pytest.approx(TIDECV_GAINS, abs=1e-9)


TIDECV_AP50 = 0.39356435643564325
TIDECV_COUNTS = {"cls": 2, "loc": 2, "both": 1, "dupe": 1, "bkg": 2, "miss": 1}
TIDECV_GAINS = {
    "cls": 0.024752475248, "loc": 0.138613861386, "both": 0.0,
    "dupe": 0.0, "bkg": 0.235148514851, "miss": 0.052805280528,
}  # fmt: skip
