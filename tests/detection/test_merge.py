import pytest
import torch

from detection import Detections
from detection.merge import merge


def detections(rows: list[tuple[list[float], float, int]]) -> Detections:
    boxes, scores, labels = zip(*rows, strict=True)
    return Detections(torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels))


SMALL = [10.0, 10, 20, 20]
LARGE = [0.0, 0, 100, 100]


def test_the_same_object_in_two_windows_is_kept_once_with_its_best_score() -> None:
    merged = merge(detections([(SMALL, 0.5, 1), ([10.5, 10, 20.5, 20], 0.8, 1)]))
    assert merged.scores.tolist() == pytest.approx([0.8])


def test_two_classes_on_one_place_are_both_kept() -> None:
    merged = merge(detections([(SMALL, 0.5, 1), (SMALL, 0.8, 2)]))
    assert merged.labels.tolist() == [2, 1]


def test_windows_speak_for_small_and_the_picture_for_large_objects() -> None:
    windows = detections([(SMALL, 0.5, 1), (LARGE, 0.9, 1)])
    full = detections([([200.0, 200, 210, 210], 0.9, 1), ([1.0, 1, 99, 99], 0.7, 1)])
    merged = merge(windows, full, small_below=64, large_above=32)
    assert merged.boxes.tolist() == [[1.0, 1, 99, 99], SMALL]


def test_between_the_two_limits_both_sources_speak() -> None:
    middle = [10.0, 10, 50, 50]
    merged = merge(
        detections([(middle, 0.5, 1)]),
        detections([([210.0, 210, 250, 250], 0.6, 1)]),
        small_below=64,
        large_above=32,
    )
    assert len(merged) == 2


def test_limits_that_leave_a_size_to_nobody_are_refused() -> None:
    with pytest.raises(ValueError, match="left to nobody"):
        merge(Detections.empty(), Detections.empty(), small_below=32, large_above=64)


def test_the_limit_on_detections_counts_all_classes_together() -> None:
    rows = [([20.0 * i, 0, 20.0 * i + 10, 10], 0.9 - 0.01 * i, i % 3 + 1) for i in range(12)]
    merged = merge(detections(rows), max_detections=5)
    assert merged.scores.tolist() == pytest.approx([0.9, 0.89, 0.88, 0.87, 0.86])


def test_the_result_does_not_depend_on_the_order_of_windows() -> None:
    random = torch.Generator().manual_seed(0)
    corner = torch.randint(0, 40, (200, 2), generator=random).float()
    side = torch.randint(5, 15, (200, 2), generator=random).float()
    scores = torch.randint(1, 5, (200,), generator=random) / 5  # many ties
    labels = torch.randint(1, 4, (200,), generator=random)
    found = Detections(torch.cat([corner, corner + side], 1), scores, labels)
    expected = merge(found)
    for _ in range(5):
        again = merge(found.select(torch.randperm(200, generator=random)))
        assert torch.equal(again.boxes, expected.boxes)
        assert torch.equal(again.labels, expected.labels)
    assert 3 < len(expected) < 200
    assert torch.equal(expected.scores, expected.scores.sort(descending=True).values)


def test_far_corners_and_high_category_ids_do_not_blur_the_overlap() -> None:
    # An offset of 90 classes times 30000 pixels would leave float32 a step of a quarter pixel.
    far = [30000.0, 30000.0, 30008.0, 30008.0]
    beside = [30003.0, 30000.0, 30011.0, 30008.0]  # overlap 5 / 11 = 0.4545
    rows = detections([(far, 0.9, 90), (beside, 0.8, 90)])
    assert len(merge(rows, iou=0.46)) == 2
    assert len(merge(rows, iou=0.45)) == 1


def test_nothing_merges_to_nothing() -> None:
    assert len(merge(Detections.empty(), Detections.empty())) == 0
