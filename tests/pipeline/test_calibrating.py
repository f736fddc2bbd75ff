import pytest
import torch

from detection.boxes import Detections
from pipeline.calibrating import apply, calibrated, set_aside, trust
from pipeline.study import load_pictures
from tests.pipeline.test_study import write_squares

COUNT = 300


@pytest.fixture
def boastful(tmp_path):
    """Objects, and a source that is sure at 0.9 of every answer, of which each third is wrong."""
    path = write_squares(tmp_path, {1: [(0, 0, 8, 8)]})
    truth = load_pictures([path], [tmp_path / "images"], degradation=None, limit=None).truth
    corners = torch.arange(COUNT, dtype=torch.float32)[:, None] * 20
    boxes = torch.cat([corners, corners, corners + 8, corners + 8], dim=1)
    objects = truth.objects[1]
    right = torch.arange(COUNT) % 3 != 0
    every = type(objects)(
        boxes[right], torch.full((200,), 7), torch.full((200,), 64.0), torch.zeros(200).bool()
    )
    scores = 0.9 + 1e-4 * torch.arange(COUNT).remainder(7)
    truth.objects[1] = every
    return truth, {1: Detections(boxes, scores, torch.full((COUNT,), 7))}


def test_a_boastful_source_is_brought_down_to_its_share_of_true_detections(boastful):
    truth, found = boastful
    calibration = calibrated(truth, {"windows": found})
    modest = apply(calibration, "windows", found)
    assert float(modest[1].scores.mean()) == pytest.approx(2 / 3, abs=0.02)
    assert trust(truth, found).ece == pytest.approx(0.9003 - 2 / 3, abs=1e-3)
    assert trust(truth, modest).ece < 0.01


def test_pictures_set_aside_are_drawn_by_the_seed_and_never_evaluated():
    kept, held = set_aside(range(1, 21), 0.25, seed=3)
    assert len(held) == 5
    assert sorted([*kept, *held]) == list(range(1, 21))
    assert set_aside(range(1, 21), 0.25, seed=3) == (kept, held)
    assert set_aside(range(1, 21), 0.25, seed=4)[1] != held


@pytest.mark.parametrize("share", [0.01, 1.0, -0.5])
def test_a_share_that_leaves_one_side_empty_is_refused(share):
    with pytest.raises(ValueError, match="of 10 pictures sets"):
        set_aside(range(10), share, seed=0)
