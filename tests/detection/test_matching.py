import math

import numpy as np
import pytest
import torch

from detection import Detections, matching
from detection.coco import evaluate, reference_metrics
from detection.matching import overlap, overlapping_pairs
from detection.tables import detection_table, truth_table
from detection.truth import CocoSet, Objects, Picture


def fuzzed(seed: int) -> tuple[CocoSet, dict[int, Detections]]:
    """Everything at once that evaluation can trip over.

    Crowd regions, empty pictures, pictures without detections, ids in no order, two objects in one
    place, areas of a mask and exactly on a border of two ranges, tied scores, tied overlaps.
    """
    random = np.random.default_rng(seed)
    ids = random.permutation(20)[: random.integers(1, 5)].tolist()
    whole = bool(random.random() < 0.5)
    pictures, objects, found = [], {}, {}
    for image in range(1, 3 * int(random.integers(2, 12)), 3):
        pictures.append(Picture(image, f"{image}", 300, 300))
        objects[image] = _objects(random, ids, whole=whole)
        if random.random() < 0.85:
            found[image] = _found(random, objects[image], ids, whole=whole)
    categories = {key: f"{key}" for key in ids}
    return CocoSet("fuzzed", tuple(pictures), categories, objects, []), found  # type: ignore[arg-type]


def _objects(random: np.random.Generator, ids: list[int], *, whole: bool) -> Objects:
    count = int(random.integers(0, 14)) if random.random() < 0.8 else 0
    corner = random.uniform(0, 120, (count, 2))
    side = np.exp(random.uniform(np.log(2), np.log(130), (count, 2)))
    if whole:  # whole numbers make many overlaps equal
        corner, side = np.round(corner / 4) * 4, np.maximum(np.round(side / 4) * 4, 4)
    boxes = np.concatenate([corner, corner + side], 1)
    boxes[1:2] = boxes[: len(boxes[1:2])]
    areas = side.prod(1) * random.choice([1, 0.5, 0.9], count)
    areas[random.random(count) < 0.2] = 32.0**2
    return Objects(
        torch.from_numpy(boxes).float(),
        torch.from_numpy(random.choice(ids, count)).long(),
        torch.from_numpy(areas),
        torch.from_numpy(random.random(count) < 0.2),
    )


def _found(
    random: np.random.Generator, objects: Objects, ids: list[int], *, whole: bool
) -> Detections:
    copies = objects.boxes.numpy().repeat(4, 0)
    noisy = copies + random.normal(0, 2, copies.shape) * random.integers(0, 2, (len(copies), 1))
    corner = random.uniform(0, 150, (6, 2))
    side = np.exp(random.uniform(np.log(2), np.log(130), (6, 2)))
    boxes = np.concatenate([noisy, np.concatenate([corner, corner + side], 1)])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    boxes = np.round(boxes) if whole else boxes
    labels = np.concatenate([objects.labels.numpy().repeat(4), random.choice(ids, 6)])
    scores = random.integers(0, 6, len(boxes)) / 5 if whole else random.random(len(boxes))
    kept = random.permutation(len(boxes))[: random.integers(1, 40)]
    return Detections(
        torch.from_numpy(boxes[kept]).float(),
        torch.from_numpy(scores[kept]).float(),
        torch.from_numpy(labels[kept]).long(),
    )


@pytest.mark.parametrize("limit", [4, 20, 500])
def test_every_figure_is_that_of_pycocotools_on_fuzzed_sets(limit: int) -> None:
    aps = []
    for seed in range(12):
        truth, found = fuzzed(seed)
        ours = evaluate(truth, found, max_detections=limit).metrics
        theirs = reference_metrics(truth, found, max_detections=limit)
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            assert value == pytest.approx(theirs[name], abs=1e-12, nan_ok=True), (seed, name)
        aps.append(ours["AP"])
    assert 0.1 < np.nanmean(aps) < 0.9
    assert np.nanstd(aps) > 0.05


def test_matching_piece_by_piece_is_matching_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, found = fuzzed(4)
    at_once = evaluate(truth, found).metrics
    monkeypatch.setattr(matching, "PAIRS_AT_ONCE", 3)
    assert evaluate(truth, found).metrics == pytest.approx(at_once, abs=0, nan_ok=True)


def one_picture(
    boxes: list[list[float]], *, crowds: list[bool] | None = None, areas: list[float] | None = None
) -> CocoSet:
    corners = torch.tensor(boxes)
    sizes = (corners[:, 2:] - corners[:, :2]).prod(1).double()
    objects = Objects(
        corners,
        torch.ones(len(boxes), dtype=torch.int64),
        sizes if areas is None else torch.tensor(areas).double(),
        torch.tensor(crowds or [False] * len(boxes)),
    )
    return CocoSet("one", (Picture(1, "1", 99, 99),), {1: "car"}, {1: objects}, [])  # type: ignore[arg-type]


def seen(boxes: list[list[float]], scores: list[float]) -> dict[int, Detections]:
    labels = torch.ones(len(boxes), dtype=torch.int64)
    return {1: Detections(torch.tensor(boxes), torch.tensor(scores), labels)}


def test_the_better_scored_detection_takes_the_object_first() -> None:
    truth = one_picture([[0, 0, 10, 10]])
    # The worse-scored one fits better, and comes too late.
    found = seen([[0, 0, 10, 10], [0, 0, 10, 8]], [0.5, 0.9])
    (matches,) = evaluate(truth, found).matches["all"]
    assert matches.scores.tolist() == pytest.approx([0.9, 0.5])
    assert matches.hit[0].tolist() == [True, False]
    assert matches.hit[8].tolist() == [False, True]  # at .9 the first does not reach it


def test_a_detection_takes_an_object_that_counts_before_one_it_overlaps_more() -> None:
    truth = one_picture([[0, 0, 40, 40], [0, 0, 40, 30]], areas=[1600, 900])
    found = seen([[0, 0, 40, 40]], [0.9])
    assert evaluate(truth, found).metrics["AP_small"] == pytest.approx(
        0.6
    )  # overlap .75, .5 to .75


def test_of_two_objects_it_overlaps_alike_a_detection_takes_the_one_that_stands_last() -> None:
    first, second = [0.0, 0, 10, 10], [4.0, 0, 14, 10]
    found = seen([[2, 0, 12, 10], first], [0.9, 0.8])  # the better one lies halfway between
    for boxes, hits in (([first, second], [True, True]), ([second, first], [True, False])):
        (matches,) = evaluate(one_picture(boxes), found).matches["all"]
        assert matches.hit[0].tolist() == hits


def test_a_crowd_region_takes_any_number_of_detections() -> None:
    truth = one_picture([[0, 0, 40, 40], [60, 60, 70, 70]], crowds=[True, False])
    inside = [[float(i), 0.0, i + 8.0, 8.0] for i in range(5)]
    found = seen([*inside, [60, 60, 70, 70]], [0.9] * 5 + [0.1])
    (matches,) = evaluate(truth, found).matches["all"]
    assert matches.scores.tolist() == pytest.approx([0.1])  # the others are no rows at all
    assert evaluate(truth, found).metrics["AP"] == pytest.approx(1.0)


def test_detections_that_contend_for_an_object_are_decided_one_step_after_another() -> None:
    truth = one_picture([[0, 0, 10, 10], [50, 50, 60, 60]])
    found = seen([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 8], [50, 50, 60, 60]], [0.9] * 4)
    objects, table = truth_table(truth), detection_table(truth, found, 500)
    pairs = overlapping_pairs(objects, table, 0.5)
    assert [len(step) for step in pairs.steps] == [2, 1, 1]


def test_boxes_that_only_touch_do_not_overlap() -> None:
    boxes = np.array([[0.0, 0, 10, 10]]).repeat(3, 0)
    others = np.array([[10.0, 0, 10, 10], [5, 0, 10, 10], [0, 0, 0, 10]])
    assert overlap(boxes, others, np.zeros(3, bool)).tolist() == pytest.approx([0, 1 / 3, 0])


def test_nothing_to_match_is_no_error() -> None:
    empty = one_picture([[0, 0, 10, 10]]).subset([1])
    empty.objects[1] = Objects(
        torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0).double(), torch.zeros(0).bool()
    )
    assert math.isnan(evaluate(empty, seen([[0, 0, 9, 9]], [0.5])).metrics["AP"])
    assert math.isnan(evaluate(empty, {}).metrics["AP"])
