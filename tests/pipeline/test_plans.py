import pytest
import torch

from detection.boxes import Detections
from pipeline.plans import plan_windows
from pipeline.study import load_pictures
from pipeline.study_settings import Windows
from sr_module.degrade import Degradation
from tests.pipeline.test_study import SIDE, write_squares

KINDS = ("grid", "guided", "shared", "density", "random", "oracle")


@pytest.fixture
def pictures(tmp_path):
    path = write_squares(tmp_path)
    return load_pictures([path], [tmp_path / "images"], degradation=Degradation(4), limit=None)


def seen(*boxes, score=0.4):
    rows = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Detections(rows, torch.full((len(rows),), score), torch.full((len(rows),), 7))


FULL = {1: seen((20, 24, 36, 40)), 2: seen((52, 40, 60, 48), (12, 60, 28, 76)), 3: seen()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_lays_whole_given_pixels_inside_every_picture(pictures, kind):
    plan = plan_windows(pictures, Windows(kind, size=32, budget=2), FULL)
    assert set(plan.windows) == {1, 2, 3}
    assert plan.oracle == (kind == "oracle")
    laid = [window for windows in plan.windows.values() for window in windows]
    assert laid
    for window in laid:
        assert all(n % 4 == 0 for n in (window.x, window.y, window.width, window.height))
        assert window.x + window.width <= SIDE
        assert window.y + window.height <= SIDE


def test_random_windows_are_as_many_as_guided_ones_elsewhere_and_the_same_each_time(pictures):
    guided, random, again = (
        plan_windows(pictures, Windows(kind, size=32), FULL)
        for kind in ("guided", "random", "random")
    )
    counts = [{i: len(w) for i, w in plan.windows.items()} for plan in (guided, random)]
    assert counts[0] == counts[1] == {1: 1, 2: 2, 3: 0}
    assert random.digest == again.digest != guided.digest


def test_a_shared_budget_goes_where_most_is_in_doubt(pictures):
    plan = plan_windows(pictures, Windows("shared", size=32, budget=1), FULL)
    assert {i: len(w) for i, w in plan.windows.items()} == {1: 1, 2: 2, 3: 0}


def test_an_oracle_needs_no_detection(pictures):
    nothing = {image: seen() for image in FULL}
    plan = plan_windows(pictures, Windows("oracle", size=32), nothing)
    assert {i: len(w) for i, w in plan.windows.items()} == {1: 1, 2: 2, 3: 0}


@pytest.mark.parametrize(("name", "value"), [("budget", 0), ("most", 0)])
def test_a_budget_of_nothing_is_refused(name, value):
    with pytest.raises(ValueError, match="at least 1"):
        Windows(**{name: value})
