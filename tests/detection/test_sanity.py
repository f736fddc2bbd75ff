from collections.abc import Callable

import pytest

from detection import Detections
from detection.coco import truth_as_detections
from detection.sanity import check_perfect
from detection.truth import CocoSet

ROWS = [(1, [0, 0, 10, 10], 1), (1, [20, 0, 10, 10], 2), (2, [40, 40, 20, 20], 2)]


def test_a_sound_set_passes(make_set: Callable[..., CocoSet]) -> None:
    truth = make_set(ROWS, images=2)
    check_perfect(truth)
    check_perfect(truth, truth_as_detections(truth))


def test_swapped_categories_are_refused_by_name(make_set: Callable[..., CocoSet]) -> None:
    # Every id is known to the set, so nothing else would notice.
    truth = make_set(ROWS, images=2)
    swapped = {
        i: Detections(d.boxes, d.scores, 3 - d.labels)
        for i, d in truth_as_detections(truth).items()
    }
    with pytest.raises(ValueError, match=r"car 0\.0000, boat 0\.0000; the category ids or the box"):
        check_perfect(truth, swapped)


def test_boxes_in_enlarged_pixels_are_refused(make_set: Callable[..., CocoSet]) -> None:
    truth = make_set(ROWS, images=2)
    enlarged = {i: d.affine(2.0, 0, 0) for i, d in truth_as_detections(truth).items()}
    with pytest.raises(ValueError, match="should have an AP of 1"):
        check_perfect(truth, enlarged)


def test_a_picture_with_more_objects_than_detections_count_is_named(
    make_set: Callable[..., CocoSet],
) -> None:
    truth = make_set(ROWS, images=2)
    with pytest.raises(ValueError, match=r"image id 1 .* has 2 objects, and only 1 detections"):
        check_perfect(truth, max_detections=1)
