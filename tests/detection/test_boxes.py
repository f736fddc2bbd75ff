import pytest
import torch

from detection import Detections
from detection.boxes import areas, clip, iou_matrix, xywh_to_xyxy, xyxy_to_xywh

BOXES = torch.tensor([[1.5, 2.0, 4.0, 10.25], [0.0, 0.0, 3.0, 3.0]])


def found(boxes: torch.Tensor) -> Detections:
    return Detections(boxes, torch.linspace(0.9, 0.1, len(boxes)), torch.arange(len(boxes)))


def test_xywh_to_xyxy_and_back_is_the_same() -> None:
    assert torch.equal(xyxy_to_xywh(xywh_to_xyxy(BOXES)), BOXES)
    assert xywh_to_xyxy(BOXES)[0].tolist() == [1.5, 2.0, 5.5, 12.25]


def test_affine_scales_first_and_then_moves() -> None:
    moved = found(BOXES[:1]).affine(2.0, 10.0, -1.0)
    assert moved.boxes.tolist() == [[13.0, 3.0, 18.0, 19.5]]


def test_affine_there_and_back_is_the_same() -> None:
    there = found(BOXES).affine(4.0, 7.0, 3.0)
    back = there.affine(1.0, -7.0, -3.0).affine(0.25, 0.0, 0.0)
    torch.testing.assert_close(back.boxes, BOXES)


def test_select_takes_a_mask_or_positions() -> None:
    both = found(BOXES)
    assert both.select(torch.tensor([False, True])).labels.tolist() == [1]
    assert both.select(torch.tensor([1, 0])).labels.tolist() == [1, 0]


def test_concatenate_keeps_the_order_and_accepts_nothing() -> None:
    joined = Detections.concatenate([found(BOXES), Detections.empty(), found(BOXES[:1])])
    assert joined.labels.tolist() == [0, 1, 0]
    assert len(Detections.concatenate([])) == 0


def test_empty_detections_go_through_every_operation() -> None:
    nothing = Detections.empty().affine(2.0, 1.0, 1.0).clip(5, 5)
    assert nothing.boxes.shape == (0, 4)
    assert nothing.sides().shape == (0,)
    assert iou_matrix(nothing.boxes, BOXES).shape == (0, 2)


def test_a_box_turned_inside_out_has_no_area() -> None:
    assert areas(torch.tensor([[5.0, 5.0, 2.0, 2.0]])).tolist() == [0.0]


def test_clip_cuts_at_every_border() -> None:
    cut = clip(torch.tensor([[-3.0, -2.0, 50.0, 60.0]]), 20, 30)
    assert cut.tolist() == [[0.0, 0.0, 20.0, 30.0]]


def test_iou_of_a_half_covered_square_is_a_third() -> None:
    squares = torch.tensor([[0.0, 0.0, 4.0, 4.0], [2.0, 0.0, 6.0, 4.0]])
    torch.testing.assert_close(iou_matrix(squares[:1], squares)[0], torch.tensor([1.0, 1 / 3]))


@pytest.mark.parametrize(
    ("boxes", "scores", "labels"),
    [((2, 5), (2,), (2,)), ((2, 4), (3,), (2,)), ((2, 4), (2,), (2, 1))],
)
def test_shapes_that_do_not_belong_together_are_refused(
    boxes: tuple[int, ...], scores: tuple[int, ...], labels: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="must be"):
        Detections(torch.zeros(boxes), torch.zeros(scores), torch.zeros(labels, dtype=torch.int64))
