from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from detection import Detections
from detection.coco import evaluate
from detection.ignored import covered_share, outside_regions, split_ignored
from detection.truth import CocoSet, read_coco

NAMES = {1: "car", 2: "boat", 7: "Ignored regions"}
ROWS = [(1, [0, 0, 10, 10], 1), (1, [20, 0, 10, 10], 2), (1, [40, 40, 40, 40], 7)]


def seen(boxes: list[list[float]], labels: list[int], scores: list[float]) -> dict[int, Detections]:
    return {1: Detections(torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels))}


def test_regions_leave_the_objects_and_their_category_the_set(
    make_set: Callable[..., CocoSet],
) -> None:
    truth, regions = split_ignored(make_set(ROWS, images=2, categories=NAMES), ["ignored regions"])
    assert truth.categories == {1: "car", 2: "boat"}
    assert truth.objects[1].labels.tolist() == [1, 2]
    assert regions[1].tolist() == [[40, 40, 80, 80]]
    assert regions[2].shape == (0, 4)


def test_an_unknown_category_of_regions_or_nothing_else_is_refused(
    make_set: Callable[..., CocoSet],
) -> None:
    truth = make_set(ROWS, categories=NAMES)
    with pytest.raises(ValueError, match=r"no category \['crowd'\]; it has car, boat"):
        split_ignored(truth, ["crowd"])
    with pytest.raises(ValueError, match="are ignored; keep at least one"):
        split_ignored(truth, NAMES.values())


def test_a_region_excuses_every_category_where_a_crowd_excuses_its_own(
    write_coco: Callable[..., Path], make_set: Callable[..., CocoSet]
) -> None:
    found = seen(
        [[42, 42, 50, 50], [60, 60, 70, 70], [0, 0, 10, 10], [20, 0, 30, 10]],
        [1, 2, 1, 2],
        [0.9, 0.9, 0.5, 0.5],
    )
    rows = [
        {"id": i, "image_id": 1, "category_id": c, "bbox": box, "iscrowd": crowd}
        for i, (box, c, crowd) in enumerate(
            [([0, 0, 10, 10], 1, 0), ([20, 0, 10, 10], 2, 0), ([40, 40, 40, 40], 1, 1)]
        )
    ]
    crowd = read_coco(write_coco(annotations=rows))
    assert evaluate(crowd, found).metrics["AP"] == pytest.approx(0.75)  # the boat's is 1/2
    truth, regions = split_ignored(make_set(ROWS, categories=NAMES), ["ignored regions"])
    assert evaluate(truth, found).metrics["AP"] == pytest.approx(0.5)
    assert evaluate(truth, found, ignored=regions).metrics["AP"] == pytest.approx(1.0)


def test_ignored_detections_do_not_use_up_the_detections_of_a_picture(
    make_set: Callable[..., CocoSet],
) -> None:
    truth, regions = split_ignored(make_set(ROWS, categories=NAMES), ["ignored regions"])
    inside = [[40.0 + i, 40.0, 48.0 + i, 48.0] for i in range(30)]
    boxes = [*inside, [0, 0, 10, 10], [20, 0, 30, 10]]
    found = seen(boxes, [1] * 31 + [2], [0.9] * 30 + [0.5] * 2)
    metrics = evaluate(truth, found, ignored=regions, max_detections=30).metrics
    assert metrics["AR"] == pytest.approx(1.0)
    assert evaluate(truth, found, max_detections=30).metrics["AR"] == 0


def test_half_of_a_box_inside_is_enough_and_less_is_not() -> None:
    regions = {1: torch.tensor([[40.0, 0, 80, 80]])}
    found = seen([[35, 0, 45, 10], [34, 0, 44, 10]], [1, 1], [0.9, 0.9])
    assert outside_regions(found, regions)[1].boxes.tolist() == [[34, 0, 44, 10]]
    assert outside_regions(found, {2: regions[1]}) == found


def test_overlapping_regions_cover_a_place_once() -> None:
    regions = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [5, 0, 15, 10]])
    boxes = torch.tensor([[0.0, 0, 10, 10], [10, 0, 20, 10], [12, 5, 18, 15], [50, 50, 60, 60]])
    assert covered_share(boxes, regions).tolist() == pytest.approx([1, 0.5, 15 / 60, 0])
