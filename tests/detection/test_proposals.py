import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from detection import Detections
from detection.boxes import areas, clip
from detection.proposals import (
    density_windows,
    guided_plan,
    oracle_plan,
    random_plan,
    score_density,
)
from detection.truth import CocoSet, read_coco
from detection.windows import Window, WindowPlan, coverage, grid_windows, reached

SIZES = {1: (640, 512), 2: (640, 512), 3: (640, 512)}


def seen(boxes: list[list[float]], score: float = 0.5) -> Detections:
    count = len(boxes)
    tensor = torch.tensor(boxes).reshape(-1, 4)
    return Detections(tensor, torch.full((count,), score), torch.ones(count).long())


def spread(count: int, side: float = 10.0) -> list[list[float]]:
    """Objects too far apart to share a window of 96."""
    places = [(20.0 + 150 * (i % 4), 20.0 + 150 * (i // 4)) for i in range(count)]
    return [[x, y, x + side, y + side] for x, y in places]


def test_one_budget_goes_where_the_objects_are() -> None:
    pair = [[300.0, 200, 310, 210], [320, 200, 330, 210]]
    detections = {1: seen(spread(6)), 2: seen([]), 3: seen(pair)}
    plan = guided_plan(detections, SIZES, size=96, mean_budget=2)
    assert {image: len(rows) for image, rows in plan.windows.items()} == {1: 5, 2: 0, 3: 1}
    assert not plan.oracle
    everything = guided_plan(detections, SIZES, size=96, mean_budget=9)
    assert sum(len(rows) for rows in everything.windows.values()) == 7  # no window without need
    most = guided_plan(detections, SIZES, size=96, mean_budget=9, most=3)
    assert len(most.windows[1]) == 3


def test_one_budget_is_as_good_as_greedy_over_the_whole_set() -> None:
    random = torch.Generator().manual_seed(0)
    boxes = {
        image: torch.rand(40, 2, generator=random) * torch.tensor([620.0, 490.0]) for image in SIZES
    }
    detections = {i: seen(torch.cat([b, b + 12], 1).tolist()) for i, b in boxes.items()}
    held = [
        coverage(
            {i: d.boxes for i, d in detections.items()},
            guided_plan(detections, SIZES, size=128, mean_budget=mean),
            small=48,
        ).share
        for mean in (1, 2, 3, 4, 5)
    ]
    gains = [after - before for before, after in zip([0, *held], held, strict=False)]
    assert gains == sorted(gains, reverse=True)


def test_a_sure_object_counts_less_than_an_unsure_one_but_counts() -> None:
    sure, unsure = seen(spread(1), 0.98), seen([[400.0, 400, 410, 410]], 0.5)
    both = {1: Detections.concatenate([sure, unsure])}
    (window,) = guided_plan(both, {1: (640, 512)}, size=96, mean_budget=1).windows[1]
    assert window.x > 300
    assert len(guided_plan(both, {1: (640, 512)}, size=96, mean_budget=2).windows[1]) == 2


def test_density_finds_what_left_no_box_above_the_scores_that_guide() -> None:
    faint = seen([[x, 300.0, x + 10, 310] for x in (400.0, 420, 440)], 0.01)
    (window,) = density_windows(score_density(faint, 640, 512), 640, 512, size=128, budget=1)
    assert window.x <= 400
    assert window.x + 128 >= 450
    assert window.y <= 300 <= window.y + 128 - 10


def test_density_spends_its_budget_on_the_next_mass_and_stops_at_none() -> None:
    density = torch.zeros(32, 40)
    density[2, 2], density[28, 36] = 2.0, 1.0
    windows = density_windows(density, 640, 512, size=128, budget=5, multiple=4)
    assert len(windows) == 2
    assert windows[0].x < 48 < 512 < windows[1].x + 128
    assert all(w.x % 4 == 0 and w.y % 4 == 0 for w in windows)
    assert density_windows(torch.zeros(32, 40), 640, 512, size=128, budget=5) == []


def test_the_density_holds_the_whole_score_away_from_the_border() -> None:
    found = seen(spread(4), 0.25)
    density = score_density(found, 650, 500, cell=16)
    assert density.shape == (32, 41)
    assert float(density.sum()) == pytest.approx(1.0)


def test_the_random_control_costs_the_same_and_has_its_places_from_the_seed() -> None:
    like = guided_plan({i: seen(spread(i)) for i in SIZES}, SIZES, size=96, mean_budget=9)
    plan = random_plan(like, SIZES, size=96, seed=1, multiple=4)
    truth = {i: torch.zeros(0, 4) for i in SIZES}
    assert coverage(truth, plan, small=48).megapixels == coverage(truth, like, small=48).megapixels
    assert [len(set(plan.windows[i])) for i in SIZES] == [len(like.windows[i]) for i in SIZES]
    assert plan == random_plan(like, SIZES, size=96, seed=1, multiple=4)
    assert plan != random_plan(like, SIZES, size=96, seed=2, multiple=4)
    alone = random_plan(like, {3: SIZES[3]}, size=96, seed=1, multiple=4)
    assert alone.windows[3] == plan.windows[3]


def test_the_oracle_holds_every_small_object_and_bears_its_mark(tmp_path: Path) -> None:
    truth = {i: torch.tensor(spread(12)) for i in SIZES}
    plan = oracle_plan(truth, SIZES, size=96)
    assert plan.oracle
    assert coverage(truth, plan, small=48).share == 1.0
    plan.save(tmp_path / "windows.json")
    assert WindowPlan.load(tmp_path / "windows.json").oracle


def test_the_mark_of_an_oracle_cannot_be_taken_off_unseen(tmp_path: Path) -> None:
    path = tmp_path / "windows.json"
    oracle_plan({1: torch.tensor(spread(3))}, {1: (640, 512)}, size=96).save(path)
    path.write_text(path.read_text().replace('"oracle": true', '"oracle": false'))
    with pytest.raises(ValueError, match="was changed after it was written"):
        WindowPlan.load(path)


def test_the_oracle_does_not_tell_where_in_a_window_the_object_stands() -> None:
    boxes = {i: torch.tensor([[300.0, 250, 308, 258]]) for i in range(200)}
    plan = oracle_plan(boxes, dict.fromkeys(boxes, (640, 512)), size=128)
    offsets = torch.tensor([304.0 - (plan.windows[i][0].x + 64) for i in boxes])
    # uniform over the places that hold it: a centred window would have 0 everywhere
    assert abs(float(offsets.mean())) < 12
    assert 25 < float(offsets.std()) < 45


PLANS = ["perfect", "good", "fair"]
QUALITIES = {  # recall, jitter of the sides, false proposals per picture
    "perfect": (1.0, 0.0, 0.0),
    "good": (0.95, 0.1, 2.0),
    "fair": (0.8, 0.2, 5.0),
}


@pytest.fixture(scope="module")
def drone_pictures() -> CocoSet:
    folder = os.environ.get("SRDET_DATA")
    if not folder:
        pytest.skip("SRDET_DATA, the folder of real pictures, is not set")
    coco = read_coco(Path(folder) / "det/hit_uav_val/annotations.json")
    return coco.subset([picture.id for picture in coco.images[::5]])


def proposals(truth: CocoSet, recall: float, jitter: float, false: float) -> dict[int, Detections]:
    """What a detector of this quality would propose."""
    random = torch.Generator().manual_seed(0)
    found = {}
    for picture in truth.images:
        boxes = truth.boxes[picture.id]
        boxes = boxes[torch.rand(len(boxes), generator=random) < recall]
        moved = boxes + jitter * torch.randn(boxes.shape, generator=random) * _extent(boxes)
        count = int(torch.poisson(torch.tensor(false), generator=random))
        corner = torch.rand(count, 2, generator=random) * torch.tensor([600.0, 480.0])
        wrong = torch.cat([corner, corner + 8 + 24 * torch.rand(count, 2, generator=random)], 1)
        scores = torch.rand(len(boxes) + count, generator=random)
        scores[: len(boxes)] = 0.4 + 0.55 * scores[: len(boxes)]
        scores[len(boxes) :] *= 0.4
        everything = clip(torch.cat([moved, wrong]), picture.width, picture.height)
        found[picture.id] = Detections(everything, scores, torch.ones(len(scores)).long())
    return found


def _extent(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)


@pytest.mark.real_data
@pytest.mark.parametrize("quality", PLANS)
def test_guided_windows_hold_nine_tenths_of_the_small_objects_of_the_grid_at_a_fifth_of_its_pixels(
    drone_pictures: CocoSet, quality: str
) -> None:
    sizes = {picture.id: (picture.width, picture.height) for picture in drone_pictures.images}
    grid = WindowPlan({i: tuple(grid_windows(*size, size=192)) for i, size in sizes.items()})
    found = proposals(drone_pictures, *QUALITIES[quality])
    plan = guided_plan(found, sizes, size=192, mean_budget=3.0)
    truth = drone_pictures.boxes
    assert _pixels(plan) <= _pixels(grid) / 5
    by_grid, by_plan = reached(truth, grid), reached(truth, plan)
    small = {image: (areas(boxes).sqrt() < 48) & by_grid[image] for image, boxes in truth.items()}
    held = sum(int((by_plan[image] & mask).sum()) for image, mask in small.items())
    assert held >= 0.9 * sum(int(mask.sum()) for mask in small.values())


def _pixels(plan: WindowPlan) -> int:
    rows: list[Window] = [window for windows in plan.windows.values() for window in windows]
    return sum(window.width * window.height for window in rows)
