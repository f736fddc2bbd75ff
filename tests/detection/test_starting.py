import pytest
import torch

from detection.detectors import save_detector
from detection.families import build_model
from detection.starting import start_from

LIGHT = "fasterrcnn_mobilenet_v3_large_fpn"


def stored(tmp_path, name, classes):
    torch.manual_seed(1)
    model = build_model(name, num_classes=classes)
    path = tmp_path / "before.safetensors"
    categories = {number: f"c{number}" for number in range(1, classes)}
    save_detector(model, path, architecture=name, categories=categories, provenance={})
    return model, path


def test_training_goes_on_from_a_stored_detector_of_the_same_categories(tmp_path):
    before, path = stored(tmp_path, "small_fcos", 3)
    model = build_model("small_fcos", num_classes=3)
    assert start_from(model, "small_fcos", path) == []
    for key, value in before.state_dict().items():
        assert torch.equal(model.state_dict()[key], value)


def test_other_categories_leave_only_what_tells_them_apart_at_random(tmp_path):
    before, path = stored(tmp_path, "small_fcos", 3)
    model = build_model("small_fcos", num_classes=6)
    random = start_from(model, "small_fcos", path)
    assert random
    assert all("classification_head.cls_logits" in key for key in random)
    kept = "backbone.stem.0.weight"
    assert torch.equal(model.state_dict()[kept], before.state_dict()[kept])


def test_published_weights_of_91_labels_start_a_detector_of_two(tmp_path):
    torch.manual_seed(1)
    published = build_model(LIGHT, num_classes=91)
    torch.save(published.state_dict(), tmp_path / "coco.pth")
    model = build_model(LIGHT, num_classes=3)
    random = start_from(model, LIGHT, tmp_path / "coco.pth")
    assert random
    assert all(key.startswith("roi_heads.box_predictor") for key in random)


def test_weights_of_another_architecture_are_refused(tmp_path):
    _, path = stored(tmp_path, "small_fcos", 3)
    with pytest.raises(ValueError, match="another architecture; name it with --architecture"):
        start_from(build_model(LIGHT, num_classes=3), LIGHT, path)
    torch.save({}, tmp_path / "coco.pth")
    with pytest.raises(ValueError, match="small_fcos has no published weights"):
        start_from(build_model("small_fcos", num_classes=3), "small_fcos", tmp_path / "coco.pth")
    with pytest.raises(FileNotFoundError, match="on this disk"):
        start_from(build_model("small_fcos", num_classes=3), "small_fcos", tmp_path / "no.pth")
