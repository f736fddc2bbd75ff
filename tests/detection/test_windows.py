import json
import math
from pathlib import Path

import pytest
import torch

from detection import Detections
from detection.lattice import holds
from detection.windows import Window, WindowPlan, coverage, grid_windows, guided_windows


def seen(boxes: list[list[float]], scores: list[float]) -> Detections:
    labels = torch.ones(len(boxes), dtype=torch.int64)
    return Detections(torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores), labels)


def covered(windows: list[Window], width: int, height: int) -> torch.Tensor:
    count = torch.zeros(height, width)
    for w in windows:
        count[w.y : w.y + w.height, w.x : w.x + w.width] += 1
    return count


@pytest.mark.parametrize(("width", "height"), [(1360, 765), (640, 512), (192, 192), (193, 400)])
@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5])
def test_the_grid_covers_every_pixel_from_inside(width: int, height: int, overlap: float) -> None:
    windows = grid_windows(width, height, size=192, overlap=overlap)
    assert covered(windows, width, height).min() == 1
    assert len(windows) == len(set(windows))
    assert all(w.x + w.width <= width and w.y + w.height <= height for w in windows)


def test_the_grid_of_the_visdrone_example_has_nine_by_five_windows() -> None:
    assert len(grid_windows(1360, 765, size=192, overlap=0.2)) == 9 * 5


@pytest.mark.parametrize(
    ("width", "height", "size", "overlap", "columns", "rows"),
    [
        (640, 512, 192, 0.2, [0, 154, 308, 448], [0, 154, 308, 320]),
        (193, 400, 192, 0.5, [0, 1], [0, 96, 192, 208]),
        (1001, 803, 97, 0.33, [*range(0, 846, 65), 904], [*range(0, 651, 65), 706]),
    ],
)
def test_the_grid_is_that_of_slicing_aided_inference(
    width: int, height: int, size: int, overlap: float, columns: list[int], rows: list[int]
) -> None:
    # the slices of sahi 0.12.8, get_slice_bboxes
    windows = grid_windows(width, height, size=size, overlap=overlap)
    assert windows == [Window(x, y, size, size) for y in rows for x in columns]


@pytest.mark.parametrize("multiple", [1, 2, 3, 4])
def test_every_coordinate_is_a_multiple_of_the_reduction(multiple: int) -> None:
    windows = grid_windows(641, 515, size=48, overlap=0.3, multiple=multiple)
    assert all(value % multiple == 0 for w in windows for value in (w.x, w.y, w.width, w.height))
    whole = (641 // multiple * multiple, 515 // multiple * multiple)
    assert covered(windows, *whole).min() == 1


def test_a_picture_smaller_than_the_window_is_one_window() -> None:
    assert grid_windows(100, 60, size=192) == [Window(0, 0, 100, 60)]
    assert grid_windows(101, 300, size=192, multiple=4) == [
        Window(0, 0, 100, 192),
        Window(0, 108, 100, 192),
    ]


@pytest.mark.parametrize(("size", "multiple"), [(190, 4), (0, 1), (64, 0)])
def test_a_window_that_is_no_multiple_of_the_reduction_is_refused(size: int, multiple: int) -> None:
    with pytest.raises(ValueError, match="positive multiple of the reduction"):
        grid_windows(640, 512, size=size, multiple=multiple)


def test_an_overlap_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="below 1, got 1"):
        grid_windows(640, 512, size=64, overlap=1.0)


def test_one_window_holds_a_cluster_with_its_context() -> None:
    boxes = [[300.0, 300, 310, 310], [330, 320, 340, 330], [350, 340, 360, 350]]
    (window,) = guided_windows(seen(boxes, [0.5] * 3), 1000, 800, size=128)
    for x1, y1, x2, y2 in boxes:
        assert window.x <= x1 - 2.5
        assert window.y <= y1 - 2.5
        assert x2 + 2.5 <= window.x + 128
        assert y2 + 2.5 <= window.y + 128


def test_the_heaviest_cluster_is_looked_at_first_and_the_budget_is_kept() -> None:
    few = [[50.0, 50, 60, 60]]
    many = [[500.0 + 12 * i, 500, 510 + 12 * i, 510] for i in range(5)]
    detections = seen(few + many, [0.5] * 6)
    windows = guided_windows(detections, 1000, 800, size=128, budget=1)
    assert [w.x <= 500 and w.x + 128 >= 558 for w in windows] == [True]
    assert len(guided_windows(detections, 1000, 800, size=128, budget=8)) == 2


def test_of_two_objects_the_one_in_doubt_is_looked_at_first() -> None:
    boxes = [[50.0, 50, 60, 60], [500, 500, 510, 510]]
    for doubtful, scores in ((0, [0.5, 0.79]), (1, [0.05, 0.4])):
        (window,) = guided_windows(seen(boxes, scores), 1000, 800, size=128, budget=1)
        assert window.x <= boxes[doubtful][0] < window.x + 128


def test_a_window_holds_a_box_with_its_context_on_both_sides() -> None:
    ends = torch.tensor([[85.0, 95.0], [86.0, 96.0], [55.0, 65.0], [54.0, 64.0]])
    held = holds(ends, [(0, 100), (50, 100)], margin=0.5)
    assert held.tolist() == [[True, True], [False, True], [True, True], [True, False]]


def test_large_sure_and_hopeless_detections_ask_for_no_window() -> None:
    boxes = [[10.0, 10, 110, 110], [200, 200, 210, 210], [300, 300, 310, 310]]
    assert guided_windows(seen(boxes, [0.5, 0.95, 0.001]), 1000, 800, size=128) == []


def test_no_detections_ask_for_no_window() -> None:
    assert guided_windows(Detections.empty(), 1000, 800, size=128) == []


def test_an_object_in_the_corner_of_the_picture_still_gets_its_window() -> None:
    corner = seen([[0.0, 0, 8, 8], [990, 790, 1000, 800]], [0.5, 0.5])
    windows = guided_windows(corner, 1000, 800, size=128)
    assert set(windows) == {Window(0, 0, 128, 128), Window(872, 672, 128, 128)}


def test_a_small_picture_is_its_own_guided_window() -> None:
    assert guided_windows(seen([[10.0, 10, 20, 20]], [0.4]), 90, 70, size=128) == [
        Window(0, 0, 90, 70)
    ]


def test_guided_windows_are_equal_and_fit_the_reduction() -> None:
    random = torch.Generator().manual_seed(3)
    corner = torch.rand(60, 2, generator=random) * torch.tensor([960.0, 760.0])
    boxes = torch.cat([corner, corner + 12], 1)
    scores = torch.rand(60, generator=random)
    detections = Detections(boxes, scores, torch.ones(60, dtype=torch.int64))
    windows = guided_windows(detections, 1001, 803, size=96, multiple=4)
    assert len(windows) == 8
    assert {(w.width, w.height) for w in windows} == {(96, 96)}
    assert all(w.x % 4 == 0 and w.y % 4 == 0 for w in windows)
    # the order of the detections changes nothing
    order = torch.randperm(60, generator=random)
    assert guided_windows(detections.select(order), 1001, 803, size=96, multiple=4) == windows


def test_windows_of_one_object_do_not_always_stand_around_its_centre() -> None:
    offsets = set()
    for x in range(300, 330, 3):
        (window,) = guided_windows(seen([[x, 300.0, x + 8, 308]], [0.5]), 1000, 800, size=128)
        offsets.add(x + 4 - (window.x + 64))
    assert len(offsets) > 4


def test_a_plan_comes_back_from_its_file(tmp_path: Path) -> None:
    plan = WindowPlan({7: (Window(0, 4, 8, 8), Window(4, 0, 8, 8)), 10: ()})
    plan.save(tmp_path / "windows.json")
    again = WindowPlan.load(tmp_path / "windows.json")
    assert again == plan
    assert again.digest == plan.digest
    assert [path.name for path in tmp_path.iterdir()] == ["windows.json"]


def test_the_digest_does_not_depend_on_the_order_of_images_but_on_every_number() -> None:
    first = WindowPlan({1: (Window(0, 0, 8, 8),), 2: ()})
    assert first.digest == WindowPlan({2: (), 1: (Window(0, 0, 8, 8),)}).digest
    assert first.digest != WindowPlan({1: (Window(0, 0, 8, 9),), 2: ()}).digest
    assert first.digest != WindowPlan({1: (Window(0, 0, 8, 8),)}).digest


def test_a_plan_changed_by_hand_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "windows.json"
    WindowPlan({1: (Window(0, 0, 8, 8),)}).save(path)
    content = json.loads(path.read_text())
    content["windows"]["1"][0][0] = 4
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="was changed after it was written"):
        WindowPlan.load(path)


@pytest.mark.parametrize("text", ["", "[]", '{"windows": {"a": []}}', '{"windows": {"1": [[1]]}}'])
def test_a_file_that_is_no_plan_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"other\.json is not a window plan"):
        WindowPlan.load(path)


def test_coverage_counts_small_objects_wholly_inside_a_window() -> None:
    plan = WindowPlan({1: (Window(0, 0, 100, 100), Window(50, 0, 100, 100)), 2: ()})
    truth = {
        1: torch.tensor(
            [[10.0, 10, 20, 20], [95, 10, 105, 20], [145, 10, 155, 20], [0, 0, 99, 99]]
        ),
        2: torch.tensor([[10.0, 10, 20, 20]]),
    }
    result = coverage(truth, plan, small=32)
    assert result.small_objects == 4
    assert result.share == 2 / 4
    assert result.windows_per_image == 1.0
    assert result.megapixels == pytest.approx(0.02)


def test_coverage_without_small_objects_is_not_a_number() -> None:
    result = coverage({1: torch.zeros(0, 4)}, WindowPlan({1: ()}), small=32)
    assert math.isnan(result.share)
    assert result.windows_per_image == 0


def test_what_the_whole_picture_finds_raises_the_ceiling_and_not_the_coverage() -> None:
    plan = WindowPlan({1: (Window(0, 0, 100, 100),)})
    truth = {1: torch.tensor([[10.0, 10, 20, 20], [200, 10, 210, 20], [300, 10, 310, 20]])}
    alone = coverage(truth, plan, small=32)
    assert alone.ceiling == alone.share == 1 / 3
    joined = coverage(truth, plan, small=32, found={1: torch.tensor([True, True, False])})
    assert (joined.share, joined.ceiling) == (1 / 3, 2 / 3)


def test_an_honest_plan_of_the_same_windows_has_another_digest_than_an_oracle() -> None:
    windows = {1: (Window(0, 0, 8, 8),)}
    assert WindowPlan(windows).digest != WindowPlan(windows, oracle=True).digest


def test_a_plan_stored_before_plans_could_be_oracles_still_opens(tmp_path: Path) -> None:
    path = tmp_path / "windows.json"
    plan = WindowPlan({1: (Window(0, 0, 8, 8),)})
    path.write_text(json.dumps({"digest": plan.digest, "windows": {"1": [[0, 0, 8, 8]]}}))
    assert WindowPlan.load(path) == plan
