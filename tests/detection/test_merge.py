import math
import tracemalloc

import pytest
import torch

from detection import Detections
from detection.group import Kind, Merge, Overlap, overlaps
from detection.merge import MERGES, best_first, fuse, merge


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


def crowd(count: int, *, side: float = 400, ties: bool = False, seed: int = 0) -> Detections:
    random = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=random) * side
    extent = 8 + 30 * torch.rand(count, 2, generator=random)
    scores = torch.rand(count, generator=random)
    if ties:
        corner, extent, scores = corner.round(), extent.round(), (scores * 4).ceil() / 5
    labels = torch.randint(1, 4, (count,), generator=random)
    return Detections(torch.cat([corner, corner + extent], 1), scores, labels)


EVERY = [
    Merge(kind, 0.5, overlap=overlap, classes=classes)
    for kind in MERGES
    for overlap in ("iou", "ios")
    for classes in ("aware", "agnostic")
]


def named(how: Merge) -> str:
    return f"{how.kind}-{how.overlap}-{how.classes}"


@pytest.mark.parametrize("how", EVERY, ids=named)
def test_no_merge_depends_on_the_order_of_its_boxes_even_with_many_ties(how: Merge) -> None:
    found = crowd(150, side=120, ties=True)
    expected = fuse(found, how)
    assert torch.equal(expected.scores, expected.scores.sort(descending=True).values)
    for seed in range(3):
        order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))
        again = fuse(found.select(order), how)
        assert torch.equal(again.boxes, expected.boxes)
        assert torch.equal(again.scores, expected.scores)
        assert torch.equal(again.labels, expected.labels)


def test_equal_scores_and_areas_are_ordered_by_place_shape_and_class() -> None:
    rows = [
        ([0.0, 0, 4, 9], 0.5, 2),
        ([0.0, 0, 9, 4], 0.5, 1),
        ([0.0, 0, 6, 6], 0.5, 2),
        ([0.0, 0, 6, 6], 0.5, 1),
    ]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        ordered = detections([rows[i] for i in order])
        ordered = ordered.select(best_first(ordered))
        assert ordered.boxes[:, 2].tolist() == [4, 6, 6, 9]
        assert ordered.labels.tolist() == [2, 1, 2, 1]


@pytest.mark.parametrize("how", EVERY, ids=named)
def test_a_single_box_and_none_pass_through_every_merge(how: Merge) -> None:
    one = detections([(SMALL, 0.5, 3)])
    merged = fuse(one, how)
    assert (merged.boxes.tolist(), merged.labels.tolist()) == ([SMALL], [3])
    assert merged.scores.tolist() == pytest.approx([0.5])
    assert len(fuse(Detections.empty(), how)) == 0


@pytest.mark.parametrize("how", EVERY, ids=named)
def test_every_merge_keeps_one_confident_box_of_an_object_seen_twice(how: Merge) -> None:
    merged = fuse(detections([(SMALL, 0.8, 1), ([10.5, 10, 20.5, 20], 0.7, 1)]), how)
    assert int((merged.scores > 0.5).sum()) == 1


@pytest.mark.parametrize("kind", MERGES)
def test_two_classes_on_one_object_stay_two_unless_asked_to_be_one(kind: Kind) -> None:
    rows = detections([(SMALL, 0.5, 1), (SMALL, 0.8, 2)])
    assert sorted(fuse(rows, Merge(kind)).labels.tolist()) == [1, 2]
    agnostic = fuse(rows, Merge(kind, classes="agnostic"))
    assert agnostic.labels[agnostic.scores > 0.2].tolist() == [2]


def test_a_small_object_before_a_large_one_of_its_class_is_not_swallowed() -> None:
    rows = detections([(LARGE, 0.9, 1), (SMALL, 0.6, 1)])
    for kind in MERGES:
        assert (fuse(rows, Merge(kind)).scores > 0.55).sum() == 2
    assert len(fuse(rows, Merge(overlap="ios"))) == 1  # as the settings say


@pytest.mark.parametrize("overlap", ["iou", "ios"])
def test_suppression_equals_the_definition_box_by_box(overlap: Overlap) -> None:
    found = crowd(200, side=150)
    ordered = found.select(best_first(found))
    kept: list[int] = []
    for i, (box, label) in enumerate(zip(ordered.boxes, ordered.labels, strict=True)):
        others = ordered.boxes[[k for k in kept if ordered.labels[k] == label]]
        shared = overlaps(box.double().numpy(), others.double().numpy().T, overlap)
        if not (shared > 0.4).any():
            kept.append(i)
    merged = fuse(found, Merge("nms", 0.4, overlap=overlap))
    assert torch.equal(merged.boxes, ordered.boxes[kept])
    assert 20 < len(kept) < 180


def test_soft_suppression_lowers_scores_as_the_paper_says() -> None:
    # two boxes of 10 x 10 side by side, sharing 6 x 10: IoU 60 / 140
    rows = detections([([0.0, 0, 10, 10], 0.9, 1), ([4.0, 0, 14, 10], 0.8, 1)])
    iou = 60 / 140
    linear = fuse(rows, Merge("soft_nms_linear", 0.3))
    assert linear.scores.tolist() == pytest.approx([0.9, 0.8 * (1 - iou)])
    gaussian = fuse(rows, Merge("soft_nms_gaussian", sigma=0.4))
    assert gaussian.scores.tolist() == pytest.approx([0.9, 0.8 * math.exp(-(iou**2) / 0.4)])
    assert fuse(rows, Merge("soft_nms_linear", 0.5)).scores.tolist() == pytest.approx([0.9, 0.8])
    assert torch.equal(linear.boxes, rows.boxes)


def test_soft_suppression_takes_the_best_box_left_not_the_next_in_the_old_order() -> None:
    # B falls below C once A is taken; then C lowers B, not B C.
    rows = detections(
        [([0.0, 0, 10, 10], 0.9, 1), ([3.0, 0, 13, 10], 0.8, 1), ([8.0, 0, 18, 10], 0.7, 1)]
    )
    ab, bc = 70 / 130, 50 / 150
    merged = fuse(rows, Merge("soft_nms_linear", 0.3))
    assert merged.scores.tolist() == pytest.approx([0.9, 0.7, 0.8 * (1 - ab) * (1 - bc)])


def test_soft_suppression_drops_what_falls_below_the_least_score() -> None:
    rows = detections([(SMALL, 0.9, 1), (SMALL, 0.8, 1)])
    assert len(fuse(rows, Merge("soft_nms_linear", 0.5))) == 1
    assert len(fuse(rows, Merge("soft_nms_gaussian", sigma=0.5, min_score=0.2))) == 1


def test_merging_takes_the_hull_and_the_best_score() -> None:
    rows = detections([([0.0, 0, 10, 10], 0.9, 1), ([2.0, 1, 12, 10], 0.8, 1)])
    merged = fuse(rows, Merge("nmm", 0.5))
    assert merged.boxes.tolist() == [[0.0, 0, 12, 10]]
    assert merged.scores.tolist() == pytest.approx([0.9])


def test_a_row_of_objects_does_not_run_together() -> None:
    row = detections([([6.0 * i, 0, 6.0 * i + 10, 10], 0.9 - 0.1 * i, 1) for i in range(6)])
    merged = fuse(row, Merge("nmm", 0.35, overlap="ios"))
    assert (merged.boxes[:, 2] - merged.boxes[:, 0]).max() <= 16  # two, not six


def test_weak_boxes_do_not_blow_a_merged_box_up() -> None:
    rows = [([10.0, 10, 20, 20], 0.9, 1)]
    rows += [([10.0 - i, 10 - i, 20.0 + i, 20 + i], 0.05, 1) for i in (1, 2)]
    merged = fuse(detections(rows), Merge("nmm", 0.5))
    assert merged.boxes.tolist() == [[10.0, 10, 20, 20]]
    grown = fuse(detections(rows), Merge("nmm", 0.5, min_share=0.0))
    assert grown.boxes.tolist() == [[8.0, 8, 22, 22]]


def test_weighted_fusion_gives_what_its_authors_program_gives() -> None:
    # ensemble-boxes 1.0.9, three models, threshold 0.55, coordinates in hundredths
    rows = [
        ([10.0, 10, 30, 30], 0.9, 1), ([12.0, 11, 33, 30], 0.6, 1), ([60.0, 60, 80, 90], 0.8, 2),
        ([5.0, 70, 15, 80], 0.3, 1), ([11.0, 9, 31, 29], 0.75, 1), ([62.0, 58, 81, 91], 0.55, 2),
        ([40.0, 10, 50, 20], 0.4, 1), ([14.0, 12, 34, 33], 0.5, 1), ([61.0, 61, 79, 88], 0.7, 2),
        ([61.0, 60, 80, 89], 0.65, 1),
    ]  # fmt: skip
    expected = [
        ([11.4364, 10.3091, 31.6545, 30.2727], 0.6875, 1),
        ([60.8781, 59.8049, 79.9268, 89.5854], 0.683333, 2),
        ([61.0, 60.0, 80.0, 89.0], 0.216667, 1),
        ([40.0, 10.0, 50.0, 20.0], 0.133333, 1),
        ([5.0, 70.0, 15.0, 80.0], 0.1, 1),
    ]
    merged = fuse(detections(rows), Merge("wbf", 0.55, views=3))
    wanted = detections(expected)
    torch.testing.assert_close(merged.boxes, wanted.boxes, atol=1e-4, rtol=0)
    torch.testing.assert_close(merged.scores, wanted.scores, atol=1e-6, rtol=0)
    assert torch.equal(merged.labels, wanted.labels)


def test_fusion_without_expected_views_does_not_punish_what_one_window_saw() -> None:
    assert fuse(detections([(SMALL, 0.8, 1)]), Merge("wbf")).scores.tolist() == pytest.approx([0.8])


@pytest.mark.parametrize("kind", ["soft_nms_gaussian", "nmm", "wbf"])
def test_memory_grows_with_the_boxes_and_not_with_their_square(kind: Kind) -> None:
    found = crowd(4000, side=120)  # every box touches hundreds; a matrix would take 128 MB
    tracemalloc.start()
    fuse(found, Merge(kind, 0.3))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16e6


@pytest.mark.parametrize("kind", MERGES)
def test_every_merge_keeps_to_the_limit_over_all_classes(kind: Kind) -> None:
    assert len(fuse(crowd(300, side=3000), Merge(kind), max_detections=40)) == 40


@pytest.mark.parametrize(
    "settings", [{"threshold": 1.1}, {"min_share": -0.1}, {"sigma": 0.0}, {"views": 0}]
)
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        Merge(**settings)  # type: ignore[arg-type]
