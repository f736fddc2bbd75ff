"""The gallery shows where arms differ: the windows won and lost, and single objects."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from detection.boxes import Detections
from detection.coco import evaluate
from detection.windows import Window, WindowPlan
from pipeline.findings import Findings
from pipeline.gallery import gallery
from pipeline.study import ArmResult, load_pictures
from pipeline.upscalers import open_upscaler
from sr_module.degrade import Degradation
from tests.pipeline.test_study import SIDE, write_squares

SQUARES = {1: [(20, 24, 36, 40)], 2: [(52, 40, 60, 48), (12, 60, 28, 76)], 3: []}
HALVES = (Window(0, 0, SIDE // 2, SIDE), Window(SIDE // 2, 0, SIDE // 2, SIDE))


@pytest.fixture
def study(tmp_path):
    """Against bicubic the network finds the square of picture 1, loses one of 2, invents in 3."""

    def make(degradation):
        path = write_squares(tmp_path, SQUARES)
        pictures = load_pictures([path], [tmp_path / "images"], degradation=degradation, limit=None)
        found = {
            "bicubic": {1: [], 2: SQUARES[2], 3: []},
            "net": {1: SQUARES[1], 2: SQUARES[2][1:], 3: [(60, 10, 70, 20)]},
            "none": {1: [], 2: [], 3: []},
        }
        arms = [arm(pictures, name, boxes) for name, boxes in found.items()]
        bicubic = open_upscaler("bicubic", scale=4)
        return Findings(
            "title", pictures, WindowPlan(dict.fromkeys((1, 2, 3), HALVES)), arms,
            SimpleNamespace(gains=[]), SimpleNamespace(), "bicubic",
            {"bicubic": bicubic, "net": bicubic, "none": None}, {}, {"scale": 4},
        )  # fmt: skip

    return make


def arm(pictures, name, boxes):
    found = {
        image: Detections(
            torch.tensor(rows, dtype=torch.float32).reshape(-1, 4),
            torch.full((len(rows),), 0.9), torch.full((len(rows),), 7),
        )
        for image, rows in boxes.items()
    }  # fmt: skip
    spec = "net.safetensors" if name == "net" else name
    return ArmResult(name, spec, found, evaluate(pictures.truth, found, bins=()), 0, 0, 0)


def test_windows_come_first_the_most_won_then_the_most_lost(study):
    rows = gallery(study(Degradation(4)))
    windows = [row for row in rows if "windows" in row.title]
    assert rows[: len(windows)] == windows
    best, *worst = windows
    assert best.title == ("best windows of net, in 1.png: 1 object more than with bicubic")
    assert {row.title.split(", in ")[1] for row in worst} == {
        "2.png: 1 object fewer than with bicubic",
        "3.png: 1 false box more than with bicubic",
    }


def test_a_window_is_shown_given_by_both_arms_and_original_with_boxes_where_they_are(study):
    best = gallery(study(Degradation(4)))[0]
    assert [tile.caption for tile in best.tiles] == ["given", "bicubic", "net", "original"]
    assert {tuple(tile.picture.shape) for tile in best.tiles} == {(3, SIDE, SIDE // 2)}
    given, bicubic, net, original = best.tiles
    assert net.found.tolist() == [list(map(float, SQUARES[1][0]))] == given.truth.tolist()
    assert len(bicubic.found) == 0
    inside, outside = (slice(26, 38), slice(22, 34)), (slice(60, 70), slice(2, 40))
    for tile in (net, original):
        assert tile.picture[:, *inside].float().mean() > 210
        assert tile.picture[:, *outside].float().mean() < 70


def test_the_reference_stands_left_of_what_is_measured_against_it_whatever_the_order(study):
    made = study(Degradation(4))
    rows = gallery(replace(made, arms=list(reversed(made.arms))))
    for row in (rows[0], rows[-1]):
        assert [tile.caption for tile in row.tiles] == ["given", "bicubic", "net", "original"]


def test_a_native_study_shows_the_enlarged_pixels_and_boxes_of_that_size(study):
    best = gallery(study(None))[0]
    assert [tile.caption for tile in best.tiles] == ["given", "bicubic", "net"]
    assert {tuple(tile.picture.shape) for tile in best.tiles} == {(3, 4 * SIDE, 2 * SIDE)}
    assert best.tiles[2].found.tolist() == [[4.0 * side for side in SQUARES[1][0]]]


def test_objects_are_shown_by_every_arm_that_has_pictures_of_its_own(study):
    rows = [row for row in gallery(study(Degradation(4))) if "square of" in row.title]
    assert [row.title for row in rows] == [
        "square of 16 px in 1.png: found by net, missed by bicubic",
        "square of 8 px in 2.png: missed by net, found by bicubic",
    ]
    assert [tile.caption for tile in rows[0].tiles] == ["given", "bicubic", "net", "original"]
