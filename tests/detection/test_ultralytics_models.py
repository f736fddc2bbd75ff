"""Ultralytics' models behind the one contract, where their package is installed."""

import sys

import pytest
import torch

from detection.detectors import load_detector

CATEGORIES = {3: "0", 5: "2"}
"""An untrained model calls its classes by their numbers."""


@pytest.fixture
def ultralytics(monkeypatch, tmp_path):
    monkeypatch.setenv("YOLO_OFFLINE", "true")
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    return pytest.importorskip("ultralytics", reason="AGPL-3.0: installed by its user alone")


def test_a_model_answers_in_the_sets_categories_and_inside_the_picture(ultralytics):
    torch.manual_seed(0)
    detector = load_detector(
        "ultralytics:yolov8n.yaml", categories=CATEGORIES, score_threshold=1e-6, max_detections=40
    )
    pictures = [torch.rand(3, 64, 96), torch.rand(3, 50, 70)]
    for picture, found in zip(pictures, detector(pictures), strict=True):
        assert len(found) <= 40
        assert set(found.labels.tolist()) <= {3, 5}
        assert (found.boxes >= 0).all()
        assert (found.boxes[:, 2] <= picture.shape[2]).all()
        assert (found.boxes[:, 3] <= picture.shape[1]).all()


def test_without_the_package_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    with pytest.raises(ValueError, match="pip install ultralytics"):
        load_detector("ultralytics:yolov8n.yaml", categories=CATEGORIES)
