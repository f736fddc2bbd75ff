import json
from pathlib import Path

import mlflow
import pytest
import torch

from detection.detectors import save_detector
from detection.families import build_model
from pipeline import cli
from pipeline.detect import parse_arms
from pipeline.pictures import write_picture
from sr_module import build, save_net

SIDE = 64


@pytest.fixture
def scene(tmp_path, monkeypatch):
    """Three pictures with two boxes each, an untrained network and detector; a store beside."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    generator = torch.Generator().manual_seed(0)
    images, annotations = [], []
    for image in (1, 2, 3):
        picture = torch.randint(0, 255, (3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
        write_picture(picture, tmp_path / "images" / f"{image}.png")
        images.append({"id": image, "file_name": f"{image}.png", "width": SIDE, "height": SIDE})
        for box in ([8, 8, 12, 12], [30, 36, 20, 14]):
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": 1, "bbox": box}
            )
    categories = [{"id": 1, "name": "thing"}]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    torch.manual_seed(0)
    net = build("msrresnet", 4, features=8, blocks=1)
    save_net(net, tmp_path / "sr.safetensors", provenance={})
    model = build_model("small_fcos", num_classes=2)
    save_detector(
        model, tmp_path / "det.safetensors", architecture="small_fcos",
        categories={1: "thing"}, provenance={},
    )  # fmt: skip
    return tmp_path


def words(folder: Path, *more: str) -> list[str]:
    return [
        "detect", "--coco", str(folder / "coco.json"), "--images", str(folder / "images"),
        "--detector", str(folder / "det.safetensors"), "--out", str(folder / "study"),
        "--geometry.window", "64", "--resamples", "20", *more,
    ]  # fmt: skip


def test_a_study_leaves_report_numbers_windows_detections_and_nested_runs(scene):
    arms = ("--arms", "none", f"sr={scene / 'sr.safetensors'}", "original")
    assert cli.main(words(scene, *arms)) == 0
    out = scene / "study"
    page = (out / "report.html").read_text()
    numbers = json.loads((out / "study.json").read_text())
    assert set(numbers["arms"]) == {"none", "sr", "original", "bicubic"}
    assert all(arm in page for arm in numbers["arms"])
    assert {gain["reference"] for gain in numbers["gains"]} == {"bicubic"}
    windows = json.loads((out / "windows.json").read_text())
    assert windows["digest"] == numbers["settings"]["windows digest"]
    for arm in numbers["arms"]:
        json.loads((out / f"detections_{arm}.json").read_text())

    client = mlflow.MlflowClient(f"sqlite:///{scene / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("srdet detect")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    study = next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == study.info.run_id]
    assert {run.info.run_name for run in children} == {f"arm {name}" for name in numbers["arms"]}
    assert study.data.metrics["gain/sr/AP"] == pytest.approx(
        next(g["difference"] for g in numbers["gains"] if (g["arm"], g["metric"]) == ("sr", "AP"))
    )
    assert "report.html" in {item.path for item in client.list_artifacts(study.info.run_id)}


def test_settings_of_a_study_can_stand_in_a_file(scene):
    config = scene / "study.yaml"
    config.write_text("arms: [bicubic, nearest]\nlimit: 1\n")
    assert cli.main(words(scene, "--config", str(config))) == 0
    numbers = json.loads((scene / "study" / "study.json").read_text())
    assert set(numbers["arms"]) == {"bicubic", "nearest"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--arms", "bicubc"), "neither a file nor one of none, original, bicubic"),
        (("--arms", "sr=a.safetensors"), "a.safetensors"),
        (("--arms", "nearest", "nearest"), "arm 'nearest' is there twice"),
        (("--arms", "original", "--protocol", "native"), "synthetic protocol only"),
        (("--arms", "bicubic", "--geometry.window", "66"), "reduction 4; choose 64"),
        (("--arms", "bicubic", "--geomtry.window", "64"), "geomtry.window"),
    ],
)
def test_wrong_words_get_one_sentence_and_leave_nothing(scene, capsys, more, said):
    assert cli.main(words(scene, *more)) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert not (scene / "study").exists()


def test_a_network_of_another_scale_is_refused(scene, capsys):
    arms = ("--arms", f"sr={scene / 'sr.safetensors'}", "--scale", "2")
    assert cli.main(words(scene, *arms)) == 2
    assert "enlarges 4 times" in capsys.readouterr().err


def test_a_network_given_as_detector_is_refused(scene, capsys):
    more = ("--arms", "bicubic", "--detector", str(scene / "sr.safetensors"))
    assert cli.main(words(scene, *more)) == 2
    assert "no detector" in capsys.readouterr().err


def test_the_reference_is_always_there_and_keeps_its_name(tmp_path):
    assert parse_arms(["none"], "native") == {"none": "none", "bicubic": "bicubic"}
    with pytest.raises(ValueError, match="reference arm's name"):
        parse_arms(["bicubic=nearest"], "native")
