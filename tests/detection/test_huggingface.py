"""Transformers' detectors behind the one contract: tiny ones, with random weights."""

import json

import pytest
import torch

from detection.detectors import load_detector

transformers = pytest.importorskip(
    "transformers", reason="the optional extra 'transformers' is not installed"
)

NAMES = {0: "car", 1: "N/A", 2: "person"}
CATEGORIES = {7: "Person", 9: "car"}


def detr():
    config = transformers.DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None,
        backbone_config=transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], layer_type="basic",
            out_features=["stage4"],
        ),
        num_queries=12, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16,
        decoder_ffn_dim=16, encoder_attention_heads=2, decoder_attention_heads=2,
        id2label=NAMES, label2id={v: k for k, v in NAMES.items()},
    )  # fmt: skip
    return transformers.DetrForObjectDetection(config), transformers.DetrImageProcessor()


def yolos():
    config = transformers.YolosConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=[64, 64], patch_size=16, num_detection_tokens=10, id2label=NAMES,
        label2id={v: k for k, v in NAMES.items()},
    )  # fmt: skip
    return transformers.YolosForObjectDetection(config), transformers.YolosImageProcessor()


@pytest.fixture(params=[detr, yolos], ids=["DETR", "YOLOS"])
def folder(request, tmp_path):
    torch.manual_seed(0)
    model, processor = request.param()
    linear = (m for m in model.class_labels_classifier.modules() if hasattr(m, "out_features"))
    *_, head = linear
    head.bias.data[1] = -10  # else random weights may take everything for the label without a name
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    return tmp_path


def test_a_folder_answers_in_the_sets_categories_and_inside_the_picture(folder):
    detector = load_detector(folder, categories=CATEGORIES, score_threshold=0.0)
    pictures = [torch.rand(3, 64, 96), torch.rand(3, 50, 70), torch.rand(3, 64, 96)]
    found = detector(pictures)
    assert len(found) == 3
    for picture, each in zip(pictures, found, strict=True):
        assert len(each)
        assert set(each.labels.tolist()) <= {7, 9}
        assert each.boxes.min() >= 0
        assert each.boxes[:, 2].max() <= picture.shape[2]
        assert each.boxes[:, 3].max() <= picture.shape[1]
        assert torch.equal(each.scores, each.scores.sort(descending=True).values)
    assert detector([]) == []


def test_a_batch_finds_what_its_pictures_find_alone(folder):
    detector = load_detector(folder, categories=CATEGORIES, score_threshold=0.0)
    pictures = [torch.rand(3, 64, 64), torch.rand(3, 64, 64)]
    for one, each in zip(pictures, detector(pictures), strict=True):
        (alone,) = detector([one])
        assert torch.allclose(alone.boxes, each.boxes, atol=1e-3)


def test_boxes_are_shares_of_the_window_that_was_given_and_nothing_is_resized(folder, monkeypatch):
    detector = load_detector(folder, categories=CATEGORIES, score_threshold=0.0)
    seen = []
    forward = type(detector.model).forward

    def watched(self, pixel_values, **more):
        seen.append(tuple(pixel_values.shape))
        return forward(self, pixel_values, **more)

    monkeypatch.setattr(type(detector.model), "forward", watched)
    (found,) = detector([torch.rand(3, 64, 96)])
    assert seen == [(1, 3, 64, 96)]
    assert found.boxes.max() > 1  # pixels, not shares


def test_the_threshold_and_the_limit_hold(folder):
    every = load_detector(folder, categories=CATEGORIES, score_threshold=0.0)
    picture = torch.rand(3, 64, 64)
    (found,) = every([picture])
    few = load_detector(folder, categories=CATEGORIES, score_threshold=0.0, max_detections=3)
    (best,) = few([picture])
    assert torch.equal(best.scores, found.scores[:3])
    limit = float(found.scores.median())
    above = load_detector(folder, categories=CATEGORIES, score_threshold=limit)
    assert (above([picture])[0].scores > limit).all()


def test_a_folder_without_a_processor_or_a_detector_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no config\.json; give a folder"):
        load_detector(tmp_path, categories=CATEGORIES)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match=r"no preprocessor_config\.json"):
        load_detector(tmp_path, categories=CATEGORIES)
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(ValueError, match="holds no detector that transformers opens"):
        load_detector(tmp_path, categories=CATEGORIES)
