import pytest
import torch

from detection import Detections
from detection.borders import Border, Seen
from detection.group import Merge
from detection.merge import fuse
from detection.windows import Window

LEFT, RIGHT = Window(0, 0, 100, 100), Window(80, 0, 100, 100)


def seen(rows: list[tuple[list[float], int]], windows: tuple[Window, ...] = (LEFT, RIGHT)) -> Seen:
    boxes = torch.tensor([box for box, _ in rows]).reshape(-1, 4)
    found = Detections(boxes, torch.full((len(rows),), 0.5), torch.ones(len(rows)).long())
    owner = torch.tensor([window for _, window in rows], dtype=torch.int64)
    return Seen(found, owner, windows, 180, 100)


PART = ([90.0, 40, 99.5, 50], 0)  # the left window cuts it, the right one holds it
WHOLE = ([90.0, 40, 106, 50], 1)


@pytest.mark.parametrize("cut", ["every", "seen_whole"])
def test_a_part_is_dropped_where_another_window_sees_the_whole(cut: str) -> None:
    kept = Border(cut=cut).apply(seen([PART, WHOLE]))  # type: ignore[arg-type]
    assert kept.boxes.tolist() == [WHOLE[0]]


def test_an_object_larger_than_the_overlap_stays_in_parts_that_merging_joins() -> None:
    parts = seen([([40.0, 10, 100, 30], 0), ([80.0, 10, 150, 30], 1)])
    assert len(Border(cut="every").apply(parts)) == 0
    kept = Border(cut="seen_whole").apply(parts)
    assert len(kept) == 2
    joined = fuse(kept, Merge("nmm", 0.25, overlap="ios"))
    assert joined.boxes.tolist() == [[40.0, 10, 150, 30]]


def test_the_border_of_the_picture_cuts_nothing() -> None:
    corners = [([0.0, 0, 8, 8], 0), ([172.0, 92, 180, 100], 1), ([100.0, 0, 110, 9], 1)]
    assert len(Border().apply(seen(corners))) == 3


def test_a_weight_lowers_the_score_of_parts_and_of_nothing_else() -> None:
    kept = Border(weight=0.4).apply(seen([PART, WHOLE]))
    assert kept.scores.tolist() == pytest.approx([0.2, 0.5])


def test_the_width_of_the_border_is_in_original_pixels() -> None:
    near = seen([([80.0, 40, 96.5, 50], 0)])
    assert [len(Border(width).apply(near)) for width in (3.5, 3.6)] == [1, 0]


def test_no_window_and_no_detection_are_fine() -> None:
    assert len(Border().apply(seen([], ()))) == 0
    assert len(Border(cut="seen_whole").apply(seen([]))) == 0


@pytest.mark.parametrize("settings", [{"width": -1.0}, {"weight": 1.0}, {"weight": -0.1}])
def test_a_border_that_means_nothing_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="weight lie in"):
        Border(**settings)  # type: ignore[arg-type]
