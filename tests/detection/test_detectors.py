import json
import logging
import re
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from detection.categories import match_categories, training_labels
from detection.detectors import as_detector, load_detector, load_model, read_metadata, save_detector
from detection.families import NAMES, build_model, coco_names

CATEGORIES = {3: "car", 7: "boat"}
LIGHT = "fasterrcnn_mobilenet_v3_large_fpn"


def pictures(count: int = 2, height: int = 72, width: int = 104) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.rand(3, height, width, generator=random) for _ in range(count)]


def seeded(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(name, num_classes=3, score_threshold=0.0)


@pytest.mark.parametrize("name", ["small_fcos", LIGHT, "retinanet_resnet50_fpn_v2"])
def test_no_picture_is_resized_in_training_or_evaluation(name: str) -> None:
    model = seeded(name)
    sizes: list[tuple[tuple[int, ...], list[tuple[int, int]]]] = []
    model.transform.register_forward_hook(
        lambda module, inputs, output: sizes.append(
            (tuple(output[0].tensors.shape), output[0].image_sizes)
        )
    )
    target = {"boxes": torch.tensor([[8.0, 8, 40, 40]]), "labels": torch.tensor([1])}
    model.train()(pictures(), [target, target])
    with torch.inference_mode():
        model.eval()(pictures())
    # 72 x 104 padded to multiples of 32, not enlarged to 800
    assert sizes == [((2, 3, 96, 128), [(72, 104)] * 2)] * 2


@pytest.mark.parametrize("name", ["small_fcos", LIGHT])
def test_pictures_are_normalised_once_and_by_the_detector_alone(name: str) -> None:
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]  # ImageNet's
    seen: list[Tensor] = []
    model = seeded(name).eval()
    model.transform.register_forward_hook(lambda *given: seen.append(given[2][0].tensors))
    as_detector(model, label_ids=[None, 3, 7])([mean.expand(3, 64, 64), torch.zeros(3, 64, 64)])
    assert seen[0][0].abs().max() < 1e-6
    assert seen[0][1].mean(dim=(1, 2)).tolist() == pytest.approx([-2.118, -2.036, -1.804], abs=1e-3)


@pytest.mark.parametrize("name", ["ssd300_vgg16", "ssdlite320_mobilenet_v3_large"])
def test_a_family_that_shrinks_every_window_to_its_own_size_is_no_choice(name: str) -> None:
    with pytest.raises(ValueError, match=f"unknown detector '{name}'"):
        build_model(name, num_classes=3)


def test_a_batch_is_one_call_of_the_model_and_leaves_no_gradient() -> None:
    model = seeded("small_fcos")
    batches: list[int] = []
    model.register_forward_pre_hook(lambda _, given: batches.append(len(given[0])))
    found = as_detector(model, label_ids=[None, 3, 7])(pictures(5, height=32, width=32))
    assert batches == [5]
    assert any(len(each) for each in found)
    assert not any(each.boxes.requires_grad or each.scores.requires_grad for each in found)


@pytest.mark.parametrize("name", NAMES)
def test_every_family_keeps_low_scores_and_many_boxes(name: str) -> None:
    with torch.device("meta"):
        model = build_model(name, num_classes=3, score_threshold=0.015, max_detections=321)
    limits = model.roi_heads if name.startswith("fasterrcnn") else model
    assert limits.score_thresh == 0.015
    assert limits.detections_per_img == 321
    if name.startswith("fasterrcnn"):
        assert model.rpn.score_thresh == 0.0
        assert model.eval().rpn.post_nms_top_n() == 1000


@pytest.mark.parametrize("name", ["small_fcos", LIGHT])
def test_bfloat16_does_not_coarsen_the_corners(name: str) -> None:
    # Anchors or corners made in bfloat16 stand on a grid of 4 pixels beyond x = 512.
    model = seeded(name)
    picture = pictures(1, height=64, width=1024)
    (found,) = as_detector(model, label_ids=[None, 3, 7], bf16=True)(picture)
    far = found.boxes[(found.boxes[:, 0] > 520) & (found.boxes[:, 2] < 1020)]
    assert len(far) > 20
    on_grid = (far[:, 0] / 2).frac().abs() < 1e-6
    assert on_grid.float().mean() < 0.1


@pytest.mark.parametrize("name", ["small_fcos", LIGHT])
def test_a_batch_finds_what_single_pictures_find(name: str) -> None:
    detector = as_detector(seeded(name), label_ids=[None, 3, 7])
    together = detector(pictures(3))
    for picture, found in zip(pictures(3), together, strict=True):
        (alone,) = detector([picture])
        assert len(found) == len(alone) > 0
        torch.testing.assert_close(found.boxes, alone.boxes, atol=1e-2, rtol=1e-4)
        torch.testing.assert_close(found.scores, alone.scores, atol=1e-4, rtol=1e-3)


def test_no_pictures_are_no_detections() -> None:
    assert as_detector(seeded("small_fcos"), label_ids=[None, 3, 7])([]) == []


def test_answers_are_category_ids_of_the_set_and_strangers_are_left_out() -> None:
    model = seeded("small_fcos")
    everything = as_detector(model, label_ids=[9, 3, 7])(pictures())[0]
    some = as_detector(model, label_ids=[None, 3, None])(pictures())[0]
    assert set(everything.labels.tolist()) == {9, 3, 7}
    assert set(some.labels.tolist()) == {3}
    assert 0 < len(some) < len(everything)


def test_a_stored_detector_answers_as_before(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_model("small_fcos", num_classes=3)
    path = tmp_path / "detector.safetensors"
    save_detector(
        model, path, architecture="small_fcos", categories=CATEGORIES, provenance={"seed": "0"}
    )
    before = as_detector(model, label_ids=[None, 3, 7])(pictures())
    after = load_detector(path, categories=CATEGORIES)(pictures())
    assert len(before[0]) > 0
    assert torch.equal(before[0].boxes, after[0].boxes)
    assert torch.equal(before[0].labels, after[0].labels)
    assert json.loads(read_metadata(path)["provenance"]) == {"seed": "0"}
    assert [file.name for file in tmp_path.iterdir()] == ["detector.safetensors"]


def test_a_stored_detector_meets_another_set_by_the_names_of_categories(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "detector.safetensors"
    save_detector(
        build_model("small_fcos", num_classes=3),
        path,
        architecture="small_fcos",
        categories=CATEGORIES,
        provenance={},
    )
    here = load_detector(path, categories=CATEGORIES, score_threshold=0.0)(pictures())[0]
    there = load_detector(path, categories={1: "Boat", 2: "Car"}, score_threshold=0.0)(pictures())[
        0
    ]
    assert [{3: 2, 7: 1}[label] for label in here.labels.tolist()] == there.labels.tolist()
    assert len(set(here.labels.tolist())) == 2
    with pytest.raises(ValueError, match="no name in common"):
        load_detector(path, categories={1: "horse"})


def test_training_labels_count_from_one_by_rising_id() -> None:
    assert training_labels({7: "boat", 3: "car"}) == {3: 1, 7: 2}


def test_published_labels_are_ids_up_to_ninety_matched_by_name() -> None:
    ids = match_categories(coco_names(), {1: "person", 90: "toothbrush", 17: "cat"})
    assert len(ids) == 91
    assert {label: value for label, value in enumerate(ids) if value is not None} == {
        1: 1,
        17: 17,
        90: 90,
    }


def test_categories_the_detector_does_not_know_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert match_categories([None, "car"], {5: "Car", 6: "tractor"}) == [None, 5]
    assert "does not know ['tractor']" in caplog.text


def test_two_categories_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="share a name"):
        match_categories(["car"], {1: "car", 2: "Car"})


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="'fasterrcnn_resnet50'; did you mean fasterrcnn_resnet50"):
        load_detector("fasterrcnn_resnet50", categories=CATEGORIES)


@pytest.mark.parametrize("name", ["missing.safetensors", "missing.onnx"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=name):
        load_detector(tmp_path / name, categories=CATEGORIES)


def test_a_damaged_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"not tensors")
    with pytest.raises(ValueError, match=r"broken\.safetensors is no safetensors file"):
        load_model(path)


def test_foreign_weights_without_a_description_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="no detector of this project"):
        load_detector(path, categories=CATEGORIES)


def test_an_unknown_architecture_is_not_stored(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown detector 'fcos'"):
        save_detector(
            torch.nn.Linear(1, 1),
            tmp_path / "a.safetensors",
            architecture="fcos",
            categories=CATEGORIES,
            provenance={},
        )


def test_published_weights_load_from_a_local_file_and_answer_in_the_ids_of_the_set(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    published = build_model(LIGHT, num_classes=91)
    torch.save(published.state_dict(), tmp_path / "published.pth")
    categories = {1000 + i: name for i, name in enumerate(coco_names()) if name is not None}
    detector = load_detector(LIGHT, categories=categories, weights=tmp_path / "published.pth")
    (found,) = detector(pictures(1))
    (plain,) = as_detector(published, label_ids=range(91))(pictures(1))
    assert {1000 + label for label in plain.labels.tolist()} & categories.keys()
    assert found.labels.tolist() == [
        1000 + label for label in plain.labels.tolist() if 1000 + label in categories
    ]


def test_weights_published_without_epsilon_give_the_same_normalisation(tmp_path: Path) -> None:
    name = "retinanet_resnet50_fpn"
    torch.manual_seed(0)
    model = build_model(name, num_classes=91)
    norm = model.backbone.body.bn1
    norm.running_var.uniform_(0.001, 0.01)
    torch.save(model.state_dict(), tmp_path / "published.pth")
    values = torch.rand(1, 64, 4, 4)
    expected = (values - norm.running_mean[:, None, None]) / norm.running_var.sqrt()[:, None, None]
    detector = load_detector(name, categories={1: "person"}, weights=tmp_path / "published.pth")
    loaded = detector.model.backbone.body.bn1  # type: ignore[attr-defined]
    torch.testing.assert_close(loaded(values), expected, rtol=1e-4, atol=1e-4)


def test_missing_weights_name_the_published_ones(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"COCO_V1"):
        load_detector(LIGHT, categories=CATEGORIES, weights=tmp_path / "none.pth")


@pytest.fixture
def cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch keeps downloads, on a machine whose proxy does not answer."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setattr("urllib.request._opener", None)  # knows the proxies of its first use
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


@pytest.mark.parametrize("name", ["DEFAULT", "COCO_V1"])
def test_weights_that_cannot_be_downloaded_say_which_whence_and_what_else_serves(
    cut_off: Path, name: str
) -> None:
    file = "fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth"
    said = (
        f"the published weights {LIGHT} COCO_V1 could not be downloaded from "
        f"https://download.pytorch.org/models/{file} "
    )
    with pytest.raises(ConnectionError, match=re.escape(said) + ".*refused") as told:
        load_detector(LIGHT, categories={1: "person"}, weights=name)
    assert f"copy that file to {cut_off / file}, where a download is kept" in str(told.value)
    assert "or give it as --detector_weights FILE" in str(told.value)


def test_a_damaged_file_among_the_downloads_is_told_from_one_that_is_not_there(
    cut_off: Path,
) -> None:
    kept = cut_off / "fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"<html>sign in</html>")
    with pytest.raises(ValueError, match=re.escape(f"{kept}: damaged") + ".*delete it"):
        load_detector(LIGHT, categories={1: "person"}, weights="DEFAULT")


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"state_dict": {"a": torch.zeros(1)}, "epoch": 3}, "as a training's checkpoint is; give"),
        ({"a": torch.zeros(1)}, f"not those of {LIGHT} with COCO's 91 labels; name the family"),
        (Path, "no readable file of tensors"),
    ],
)
def test_a_file_that_is_no_published_weights_is_refused_by_name(
    tmp_path: Path, held: object, said: str
) -> None:
    torch.save(held, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"last\.ckpt: .*" + said):
        load_detector(LIGHT, categories={1: "person"}, weights=tmp_path / "last.ckpt")


def test_a_checkpoint_or_nothing_as_a_detector_is_answered_with_the_command_that_makes_one(
    tmp_path: Path,
) -> None:
    for name in ("last.ckpt", "none.safetensors"):
        with pytest.raises((ValueError, FileNotFoundError), match="`srdet detect train`"):
            load_detector(tmp_path / name, categories=CATEGORIES)


def test_the_small_detector_has_no_published_weights() -> None:
    with pytest.raises(ValueError, match="no published weights"):
        load_detector("small_fcos", categories=CATEGORIES, weights="DEFAULT")
