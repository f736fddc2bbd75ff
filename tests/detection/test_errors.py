import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from detection import Detections
from detection.errors import (
    false_boxes,
    false_positives_per_megapixel,
    found_objects,
    hallucinations_per_megapixel,
    transitions,
)
from detection.truth import CocoSet, read_coco

ROWS = [(1, [10.0 * i, 0, 6, 6], 1) for i in range(4)] + [(1, [0, 40, 30, 30], 2)]


def seen(truth: CocoSet, chosen: list[int], score: float = 0.9) -> dict[int, Detections]:
    """The objects at some positions of image 1, perfectly detected."""
    objects = truth.objects[1]
    boxes, labels = objects.boxes[chosen], objects.labels[chosen]
    return {1: Detections(boxes, torch.full((len(boxes),), score), labels)}


def test_every_object_stands_in_one_cell_of_the_table(make_set: Callable[..., CocoSet]) -> None:
    truth = make_set(ROWS, images=2)
    small, large = transitions(
        truth, seen(truth, [0, 1]), seen(truth, [1, 2, 4]), bins=[(0, 8), (8, 64)]
    )
    assert (small.objects, small.both, small.found, small.lost, small.neither) == (4, 1, 1, 1, 1)
    assert (large.objects, large.both, large.found, large.lost, large.neither) == (1, 0, 1, 0, 0)
    assert small.bin == "0_8"


def test_found_objects_stand_in_the_order_of_the_set(make_set: Callable[..., CocoSet]) -> None:
    truth = make_set(ROWS, images=2)
    hits = found_objects(truth, seen(truth, [2, 0]))
    assert hits[1].tolist() == [True, False, True, False, False]
    assert hits[2].shape == (0,)


def test_a_detection_below_the_score_finds_nothing(make_set: Callable[..., CocoSet]) -> None:
    truth = make_set(ROWS)
    sure, unsure = seen(truth, [0]), seen(truth, [0], score=0.2)
    (row,) = transitions(truth, sure, unsure, bins=[(0, 64)], score=0.3)
    assert (row.lost, row.both) == (1, 0)
    (row,) = transitions(truth, sure, seen(truth, [0], score=0.5), bins=[(0, 64)], score=0.5)
    assert (row.lost, row.both) == (0, 1)  # from the score itself on


def test_a_detection_of_another_category_finds_nothing(make_set: Callable[..., CocoSet]) -> None:
    truth = make_set(ROWS)
    right = seen(truth, [0])
    wrong = {1: Detections(right[1].boxes, right[1].scores, right[1].labels + 1)}
    (row,) = transitions(truth, right, wrong, bins=[(0, 64)])
    assert row.lost == 1
    assert false_positives_per_megapixel(truth, wrong) == pytest.approx(1 / 0.008)


def test_two_detections_of_one_object_are_a_hit_and_a_false_one(
    make_set: Callable[..., CocoSet],
) -> None:
    truth = make_set(ROWS)
    once = seen(truth, [0])
    assert false_positives_per_megapixel(truth, once) == 0
    twice = {1: Detections.concatenate([once[1], once[1]])}
    assert false_positives_per_megapixel(truth, twice) == pytest.approx(1 / 0.008)


def test_an_overlap_just_below_the_threshold_finds_nothing(
    make_set: Callable[..., CocoSet],
) -> None:
    truth = make_set([(1, [0, 0, 10, 10], 1)])
    shifted = seen(truth, [0])[1].affine(1.0, 4.0, 0.0)  # overlap 6 / 14 = 0.43
    (miss,) = transitions(truth, {}, {1: shifted}, bins=[(0, 64)], iou=0.5)
    (hit,) = transitions(truth, {}, {1: shifted}, bins=[(0, 64)], iou=0.4)
    assert (miss.neither, hit.found) == (1, 1)


def test_crowd_regions_are_no_objects_and_excuse_what_is_inside(
    write_coco: Callable[..., Path],
) -> None:
    rows = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10]},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [40, 40, 40, 40], "iscrowd": 1},
    ]
    truth = read_coco(write_coco(annotations=rows))
    boxes = torch.tensor([[42.0, 42, 50, 50], [60.0, 0, 70, 10]])
    found = {1: Detections(boxes, torch.tensor([0.9, 0.9]), torch.tensor([1, 1]))}
    (row,) = transitions(truth, found, found, bins=[(0, 64)])
    assert (row.objects, row.neither) == (1, 1)
    assert false_positives_per_megapixel(truth, found) == pytest.approx(1 / 0.008)


def test_pictures_without_objects_count_their_false_detections(
    make_set: Callable[..., CocoSet],
) -> None:
    truth = make_set([(1, [0, 0, 6, 6], 1)], images=2)
    found = {2: seen(truth, [0])[1]}
    assert false_positives_per_megapixel(truth, found) == pytest.approx(1 / 0.016)


def renamed(found: dict[int, Detections]) -> dict[int, Detections]:
    return {i: Detections(d.boxes, d.scores, 3 - d.labels) for i, d in found.items()}


def test_objects_that_got_their_right_or_a_wrong_name_are_told_apart(
    make_set: Callable[..., CocoSet],
) -> None:
    truth = make_set(ROWS)
    right = seen(truth, [0, 1])
    wrong = renamed(right)
    (better,) = transitions(truth, wrong, right, bins=[(0, 8)])
    (worse,) = transitions(truth, right, wrong, bins=[(0, 8)])
    assert (better.found, better.named, better.misnamed) == (2, 2, 0)
    assert (worse.lost, worse.named, worse.misnamed) == (2, 0, 2)
    (new,) = transitions(truth, {}, right, bins=[(0, 8)])
    assert (new.found, new.named) == (2, 0)


def test_the_change_of_overlap_is_that_of_objects_both_found(
    make_set: Callable[..., CocoSet],
) -> None:
    truth = make_set([(1, [0, 0, 10, 10], 1), (1, [40, 0, 10, 10], 1)])
    exact = seen(truth, [0, 1])
    shifted = {1: seen(truth, [0])[1].affine(1.0, 2.0, 0.0)}  # overlap 8 / 12
    (row,) = transitions(truth, shifted, exact, bins=[(0, 64)])
    assert row.overlap_change == pytest.approx(1 / 3)
    (none,) = transitions(truth, {}, exact, bins=[(0, 64)])
    assert math.isnan(none.overlap_change)


def test_only_boxes_where_nothing_is_are_hallucinations(make_set: Callable[..., CocoSet]) -> None:
    truth = make_set([(1, [0, 0, 10, 10], 1), (1, [40, 20, 40, 40], 2)])
    boxes = [
        [0, 0, 10, 9], [0, 0, 10, 10],  # found and doubled
        [40, 20, 80, 50], [5, 0, 15, 10],  # misnamed, misplaced
        [20, 0, 30, 10], [20, 0, 30, 9],  # twice nothing
    ]  # fmt: skip
    scores = torch.tensor([0.9] * 5 + [0.1])
    found = {1: Detections(torch.tensor(boxes).float(), scores, torch.ones(6).long())}
    assert hallucinations_per_megapixel(truth, found) == pytest.approx(1 / 0.008)
    assert hallucinations_per_megapixel(truth, found, score=0.0) == pytest.approx(2 / 0.008)
    assert false_positives_per_megapixel(truth, found) == pytest.approx(4 / 0.008)
    touching = torch.tensor([[0.0, 0, 10, 1], [0, 0, 10, 2]])  # overlaps .1 and .2
    found = {1: Detections(touching, torch.full((2,), 0.9), torch.ones(2).long())}
    assert hallucinations_per_megapixel(truth, found) == pytest.approx(1 / 0.008)
    truth.objects[1].crowds[1] = True
    inside = {1: Detections(torch.tensor([[45.0, 25, 50, 30]]), torch.ones(1), torch.tensor([2]))}
    assert hallucinations_per_megapixel(truth, inside) == 0


def test_false_boxes_are_those_that_match_no_object(make_set: Callable[..., CocoSet]) -> None:
    truth = make_set(ROWS, images=2)
    right = seen(truth, [0, 4])
    astray = torch.tensor([[60.0, 60, 70, 70]])
    found = {
        1: Detections(
            torch.cat([right[1].boxes, astray]),
            torch.tensor([0.9, 0.8, 0.7]),
            torch.cat([right[1].labels, torch.tensor([1])]),
        )
    }
    wrong = false_boxes(truth, found)
    assert wrong[1].tolist() == astray.tolist()
    assert wrong[2].shape == (0, 4)
    assert len(false_boxes(truth, found, score=0.75)[1]) == 0
