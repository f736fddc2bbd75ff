import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from detection.detectors import save_detector
from detection.families import build_model
from pipeline.packing import pack_detector, pack_network
from pipeline.pictures import png, to_float
from pipeline.served import Detecting, Enlarging, _load_pyfunc
from pipeline.study_settings import Join, Merging, Windows
from pipeline.upscalers import open_upscaler
from sr_module import build
from sr_module.checkpoint import save_net


@pytest.fixture(scope="session")
def net(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("net") / "net.safetensors"
    save_net(build("msrresnet", 4, features=8, blocks=1), path, provenance={"data": "none"})
    return path


@pytest.fixture(scope="session")
def packed_net(net, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed") / "network"
    pack_network(net, folder)
    return folder


@pytest.fixture(scope="session")
def packed_detector(net, tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("detector")
    categories = {3: "boat", 7: "car"}
    model = build_model("small_fcos", num_classes=3)
    path = folder / "detector.safetensors"
    save_detector(model, path, architecture="small_fcos", categories=categories, provenance={})
    pack_detector(
        folder / "model", arm=str(net), scale=4, detector=str(path), weights=None,
        categories=categories, windows=Windows(size=96), join=Join(full=True, border=4.0),
        merge=Merging(), reduction=4,
    )  # fmt: skip
    return folder / "model"


def picture(height: int, width: int) -> torch.Tensor:
    seen = np.random.default_rng(0).integers(0, 256, (3, height, width), dtype=np.uint8)
    return torch.from_numpy(seen)


def text(seen: torch.Tensor) -> str:
    return base64.b64encode(png(seen)).decode()


def test_a_packed_network_holds_safetensors_its_code_and_no_pickle(packed_net, packed_detector):
    for folder in (packed_net, packed_detector):
        files = [path for path in folder.rglob("*") if path.is_file()]
        suffixes = {path.suffix for path in files if "code" not in path.parts}
        assert not suffixes & {".pkl", ".pickle", ".pth", ".pt", ".joblib"}
        assert (folder / "data" / "srdet" / "net.safetensors").exists()
        assert (folder / "code" / "pipeline" / "served.py").exists()
        assert (folder / "input_example.json").exists()
        assert "srdet" not in (folder / "requirements.txt").read_text()
        assert sum(path.stat().st_size for path in files) < 20e6


def test_weights_that_may_hold_code_are_not_packed(tmp_path):
    weights = tmp_path / "x.pth"
    weights.touch()
    with pytest.raises(ValueError, match="other files may hold code"):
        pack_network(weights, tmp_path / "out")


def test_what_is_served_is_what_the_network_makes(packed_net, net):
    served = _load_pyfunc(str(packed_net / "data" / "srdet"))
    assert isinstance(served, Enlarging)
    seen = [picture(20, 30), picture(9, 7)]
    answers = served.predict({"image": [text(one) for one in seen]})
    for one, answer in zip(seen, answers, strict=True):
        assert (answer["height"], answer["width"]) == (4 * one.shape[1], 4 * one.shape[2])
        made = Image.open(io.BytesIO(base64.b64decode(answer["image"])))
        sr = open_upscaler(str(net), precision="auto")(to_float(one)[None])[0]
        expected = (sr.clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
        assert np.abs(np.asarray(made, dtype=float) - expected).max() <= 1


def test_the_address_form_of_a_picture_is_understood_too(packed_net):
    served = Enlarging(packed_net / "data" / "srdet")
    (answer,) = served.predict({"image": ["data:image/png;base64," + text(picture(8, 8))]})
    assert answer["width"] == 32


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (["!!"], "picture 1 is not base64"),
        ([base64.b64encode(b"hello").decode()], "picture 1 is not a picture that can be read"),
        ([text(picture(8, 8)), ""], "picture 2 is no text"),
        ([None], "picture 1 is no text"),
        ([], "0 pictures; send 1 to 16"),
        ([text(picture(4, 4))] * 17, "17 pictures; send 1 to 16"),
        ([text(picture(64, 64))], "more than the limit"),
        (["A" * 40_000], "40000 characters of base64, more than the limit of"),
        ([text(picture(8, 8))[:60]], "damaged|cannot|not a picture"),
    ],
)
def test_wrong_input_is_said_with_status_400(packed_net, monkeypatch, sent, said):
    from mlflow.exceptions import MlflowException

    monkeypatch.setenv("SRDET_SERVE_MAX_PIXELS", "2000")
    served = Enlarging(packed_net / "data" / "srdet")
    with pytest.raises(MlflowException, match=said) as refused:
        served.predict({"image": sent})
    assert refused.value.get_http_status_code() == 400


def test_a_served_detector_answers_in_the_pixels_of_the_picture_that_was_sent(packed_detector):
    folder = packed_detector / "data" / "srdet"
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["windows"]["size"] == 24  # 96 original pixels at a quarter of the resolution
    assert settings["join"]["border"] == 1.0
    served = _load_pyfunc(str(folder))
    assert isinstance(served, Detecting)
    (answer,) = served.predict({"image": [text(picture(40, 60))]}, {"min_score": 0.0})
    assert (answer["width"], answer["height"]) == (60, 40)
    assert answer["detections"]
    for found in answer["detections"]:
        left, top, width, height = found["box"]
        assert min(left, top, width, height) >= 0
        assert left + width <= 60.1
        assert top + height <= 40.1
        assert (found["category_id"], found["category"]) in {(3, "boat"), (7, "car")}
    (few,) = served.predict({"image": [text(picture(40, 60))]}, {"min_score": 1.0})
    assert few["detections"] == []


def test_windows_that_only_the_truth_lays_cannot_be_served(net, tmp_path):
    with pytest.raises(ValueError, match="cannot be served"):
        pack_detector(
            tmp_path / "x", arm="bicubic", scale=4, detector="small_fcos", weights=None,
            categories={1: "a"}, windows=Windows(kind="oracle"), join=Join(), merge=Merging(),
            reduction=1,
        )  # fmt: skip
