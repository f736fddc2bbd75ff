import json
from pathlib import Path

import mlflow
import pytest
import torch
from safetensors.torch import load_file

from detection.boxes import xyxy_to_xywh
from detection.crops import see_windows
from detection.detectors import save_detector
from detection.families import build_model
from pipeline import cli
from pipeline.fingerprints import fingerprint, listed
from pipeline.pictures import read_picture, to_float, write_picture
from pipeline.plans import plan_windows
from pipeline.registered import packed
from pipeline.served import _load_pyfunc
from pipeline.study_files import load_truth
from pipeline.train import CONF
from sr_module import build, save_net
from sr_module.degrade import Degradation

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
        "--windows.size", "64", "--statistics.resamples", "20",
        "--statistics.permutations", "20", *more,
    ]  # fmt: skip


def test_a_study_leaves_report_numbers_windows_detections_and_nested_runs(scene):
    arms = ("--arms", "none", f"sr={scene / 'sr.safetensors'}", "original")
    assert cli.main(words(scene, *arms, "--register", "srdet-things")) == 0
    out = scene / "study"
    page = (out / "report.html").read_text()
    numbers = json.loads((out / "study.json").read_text())
    assert set(numbers["arms"]) == {"none", "sr", "original", "bicubic"}
    assert all(arm in page for arm in numbers["arms"])
    assert {gain["reference"] for gain in numbers["gains"]} == {"bicubic"}
    windows = json.loads((out / "windows.json").read_text())
    assert windows["digest"] == numbers["settings"]["windows digest"]
    assert len(load_truth(out).images) == 3
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
    assert {test["metric"] for test in numbers["tests"]} == {"AP", "AP_small"}
    assert set(numbers["errors"]) == {"none", "sr", "original"}
    assert set(numbers["shift"]) == {"sr", "bicubic"}
    assert all(
        row["found"] + row["lost"] + row["both"] + row["neither"] == row["objects"]
        for row in numbers["objects"]["sr"]
    )
    assert sum(row["objects"] for row in numbers["objects"]["sr"]) == 6
    invented = numbers["hallucinations_per_megapixel"]
    assert set(invented) == set(numbers["arms"])
    assert study.data.metrics["hallucinations/sr"] == pytest.approx(invented["sr"])
    assert '<th scope="col">AR</th>' in page
    for heading in ("Gain or luck", "AP by AI-TOD&#39;s sizes", "Kinds of error", "Alignment"):
        assert f"<h2>{heading}</h2>" in page, heading
    assert "report.html" in {item.path for item in client.list_artifacts(study.info.run_id)}
    (taken,) = study.inputs.dataset_inputs
    assert taken.tags[0].value == "evaluation"
    assert json.loads(taken.dataset.profile) == {"pictures": 3, "objects": 6}
    assert "| sr |" in study.data.tags["mlflow.note.content"]
    with_model = {run.info.run_name for run in runs if run.outputs and run.outputs.model_outputs}
    assert with_model == {"study", "arm sr"}
    version = client.get_model_version_by_alias("srdet-things", "champion")
    assert (version.run_id, version.tags["arm"]) == (study.info.run_id, "sr")


def test_the_registered_arm_of_a_study_finds_what_the_study_found(scene, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(scene / "cache"))
    arms = ("--arms", f"sr={scene / 'sr.safetensors'}", "--register", "srdet-things")
    assert cli.main(words(scene, *arms)) == 0
    served = _load_pyfunc(str(packed("models:/srdet-things@champion") / "data" / "srdet"))
    lr = Degradation(4)(to_float(read_picture(scene / "images" / "2.png"))[None])[0]
    found = served._detect(lr)
    rows = json.loads((scene / "study" / "detections_sr.json").read_text())
    told = [(row["bbox"], row["score"]) for row in rows if row["image_id"] == 2]
    assert len(told) == len(found.scores) > 0
    for (box, score), ours, sure in zip(
        told, xyxy_to_xywh(found.boxes).tolist(), found.scores.tolist(), strict=True
    ):
        assert sure == pytest.approx(score, abs=1e-4)
        assert [4 * side for side in ours] == pytest.approx(box, abs=1e-2)


def test_every_control_arm_and_an_oracle_have_a_study_that_is_marked(scene, capsys):
    arms = ("--arms", "crops", "sharpened", "lanczos", f"sr={scene / 'sr.safetensors'}")
    more = ("--windows.kind", "oracle", "--windows.size", "32", "--merge.kind", "wbf")
    more += ("--calibrate_on", "0.34", "--join.full", "true")
    assert cli.main(words(scene, *arms, *more)) == 0
    numbers = json.loads((scene / "study" / "study.json").read_text())
    assert numbers["upper_bound"]
    assert set(numbers["arms"]) == {"crops", "sharpened", "lanczos", "sr", "bicubic"}
    assert numbers["settings"]["merge"]["kind"] == "wbf"
    assert set(numbers["arms"]["sr"]["calibration_error"]) == {"windows", "whole picture"}
    assert numbers["settings"]["pictures"] == 3
    assert len(load_truth(scene / "study").images) == 2
    page = (scene / "study" / "report.html").read_text()
    assert "Scores taken at their word" in page
    assert "1 pictures set aside to calibrate scores on; 2 pictures" in page
    assert "too few detections were set aside" in page
    assert "An upper bound and no result" in capsys.readouterr().out
    assert 'class="cards"' not in page


def test_settings_of_a_study_can_stand_in_a_file(scene):
    config = scene / "study.yaml"
    config.write_text("arms: [bicubic, nearest]\nlimit: 1\n")
    assert cli.main(words(scene, "--config", str(config))) == 0
    numbers = json.loads((scene / "study" / "study.json").read_text())
    assert set(numbers["arms"]) == {"bicubic", "nearest"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            ("--arms", "bicubc"),
            "a file nor one of none, larger, original, crops, sharpened, bicubic",
        ),
        (("--arms", "sr=a.safetensors"), "a.safetensors"),
        (("--arms", "nearest", "nearest"), "arm 'nearest' is there twice"),
        (("--arms", "original", "--protocol", "native"), "synthetic protocol only"),
        (
            ("--arms", "larger", "--detector", "nano.onnx"),
            "nano.onnx resizes to its own input whatever",
        ),
        (("--arms", "larger:sr"), "takes as long as arm 'sr', and there is none of that name"),
        (("--arms", "bicubic", "--windows.size", "66"), "reduction 4; choose 64"),
        (("--arms", "bicubic", "--window.size", "64"), "window.size"),
        (("--arms", "bicubic", "--merge.kind", "nmw"), "soft_nms_linear"),
        (("--arms", "bicubic", "--merge.threshold", "2"), "threshold must lie in [0, 1]"),
        (("--arms", "bicubic", "--join.large_above", "2e5"), "left to nobody"),
    ],
)
def test_wrong_words_get_one_sentence_and_leave_nothing(scene, capsys, more, said):
    assert cli.main(words(scene, *more)) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert not (scene / "study").exists()


@pytest.mark.parametrize("config", sorted((CONF / "study").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_study_is_understood(config, capsys):
    more = ("--coco", "nowhere.json", "--images", ".", "--detector", "none", "--arms", "bicubic")
    assert cli.main(["detect", "--config", str(config), *more]) == 2
    assert "no annotation file nowhere.json" in capsys.readouterr().err


def test_a_share_to_calibrate_on_that_is_no_picture_is_refused(scene, capsys):
    assert cli.main(words(scene, "--arms", "bicubic", "--calibrate_on", "0.1")) == 2
    assert "0.1 of 3 pictures sets 0 aside" in capsys.readouterr().err
    assert not (scene / "study").exists()


def test_a_network_of_another_scale_is_refused(scene, capsys):
    arms = ("--arms", f"sr={scene / 'sr.safetensors'}", "--scale", "2")
    assert cli.main(words(scene, *arms)) == 2
    assert "4 times, not 2 times" in capsys.readouterr().err


def test_a_ray_that_is_not_there_is_told_before_anything_is_looked_at(scene, capsys, free_port):
    address = f"127.0.0.1:{free_port()}"
    more = ("--arms", "bicubic", "--ray", "2", "--ray_address", address)
    assert cli.main(words(scene, *more)) == 2
    assert f"no Ray answers at {address}" in capsys.readouterr().err
    assert not (scene / "study").exists()


def test_a_network_given_as_detector_is_refused(scene, capsys):
    more = ("--arms", "bicubic", "--detector", str(scene / "sr.safetensors"))
    assert cli.main(words(scene, *more)) == 2
    assert "no detector" in capsys.readouterr().err


def test_every_protocol_arm_training_scene_and_tuned_merge_in_one_study(scene):
    """Mixtures, two trainings, the larger picture, scenes, and detectors of the arms' own."""
    sr, other = scene / "sr.safetensors", scene / "other.safetensors"
    torch.manual_seed(1)
    save_net(build("msrresnet", 4, features=8, blocks=1), other, provenance={})
    arms = ("--arms", "none", "larger", f"sr={sr},{other}", f"between=mix:{sr}+{other}@0.5")
    for image in (4, 5, 6):
        more_pictures(scene, image)
    assert cli.main(finetune_words(scene, *arms)) == 0
    more = ("--statistics.groups", r"^(\d)", "--calibrate_on", "0.34", "--tune_merge", "true",
            "--calibrate", "false", "--finetuned", str(scene / "tuned"))  # fmt: skip
    assert cli.main(words(scene, *arms, *more)) == 0
    numbers = json.loads((scene / "study" / "study.json").read_text())
    assert set(numbers["arms"]) == {"none", "larger", "sr", "between", "bicubic"}
    assert len(numbers["arms"]["sr"]["trainings"]) == 2
    assert "Merge(" in numbers["arms"]["larger"]["merge"]
    assert {g["seeds"] for g in numbers["gains"] if g["arm"] == "sr"} == {2}
    assert numbers["arms"]["larger"]["megapixels"] == pytest.approx(4 * SIDE**2 / 1e6, rel=0.1)
    assert set(numbers["finetuned"]["arms"]) == set(numbers["arms"])
    assert {g["reference"] for g in numbers["finetuned"]["gains"]} == {"bicubic"}
    frozen, learnt = (
        part["arms"]["bicubic"]["metrics"] for part in (numbers, numbers["finetuned"])
    )
    assert frozen != learnt
    assert {e["range"] for e in numbers["errors_by_size"]["between"]} == {
        "0_16", "16_32", "32_96", "96_inf",
    }  # fmt: skip
    page = (scene / "study" / "report.html").read_text()
    for heading in ("The detector fine-tuned on each arm", "Kinds of error by size",
                    "Objects found and lost"):  # fmt: skip
        assert heading in page, heading


def more_pictures(folder: Path, image: int) -> None:
    """One more picture of the scene's set."""
    path = folder / "coco.json"
    coco = json.loads(path.read_text())
    generator = torch.Generator().manual_seed(image)
    picture = torch.randint(0, 255, (3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    write_picture(picture, folder / "images" / f"{image}.png")
    coco["images"].append({"id": image, "file_name": f"{image}.png", "width": SIDE, "height": SIDE})
    number = len(coco["annotations"]) + 1
    coco["annotations"].append(
        {"id": number, "image_id": image, "category_id": 1, "bbox": [10, 12, 14, 12]}
    )
    path.write_text(json.dumps(coco))


def finetune_words(folder: Path, *more: str) -> list[str]:
    return [
        "detect", "finetune", "--coco", str(folder / "coco.json"),
        "--images", str(folder / "images"), "--detector", str(folder / "det.safetensors"),
        "--out", str(folder / "tuned"), "--crop", "64", "--batch_size", "2", "--steps", "1",
        "--workers", "0", *more,
    ]  # fmt: skip


def test_a_network_that_learnt_from_the_studys_pictures_is_told_in_the_verdict(scene, capsys):
    marks = [fingerprint(read_picture(scene / "images" / "2.png"))]
    save_net(
        build("msrresnet", 4, features=8, blocks=1), scene / "cheat.safetensors",
        provenance=listed(marks),
    )  # fmt: skip
    assert cli.main(words(scene, "--arms", f"cheat={scene / 'cheat.safetensors'}")) == 0
    assert "No test: cheat learnt from these very pictures" in " ".join(
        capsys.readouterr().out.split()
    )
    numbers = json.loads((scene / "study" / "study.json").read_text())
    assert numbers["seen"] == {"cheat": 1}


def test_a_detector_finetuned_for_another_network_is_refused(scene, capsys):
    arms = ("--arms", f"sr={scene / 'sr.safetensors'}")
    assert cli.main(finetune_words(scene, *arms)) == 0
    torch.manual_seed(5)
    save_net(build("msrresnet", 4, features=8, blocks=1), scene / "sr.safetensors", provenance={})
    assert cli.main(words(scene, *arms, "--finetuned", str(scene / "tuned"))) == 2
    assert "was trained for another upscaler" in capsys.readouterr().err


def test_tuning_merges_without_pictures_set_aside_is_refused(scene, capsys):
    assert cli.main(words(scene, "--arms", "bicubic", "--tune_merge", "true")) == 2
    assert "--calibrate_on" in capsys.readouterr().err


def test_every_arm_looks_through_the_same_windows_laid_once(scene, monkeypatch):
    laid, seen = [], []
    monkeypatch.setattr("pipeline.study_start.plan_windows", _told_to(laid, plan_windows))
    monkeypatch.setattr("pipeline.look.see_windows", _told_to(seen, see_windows))
    arms = ("--arms", f"sr={scene / 'sr.safetensors'}", "nearest", "crops", "original")
    more = ("--windows.kind", "random", "--windows.size", "32", "--join.full", "true")
    assert cli.main(words(scene, *arms, *more)) == 0
    assert len(laid) == 1
    plans = [plan for _, plan, *_ in seen]
    assert len(plans) == 5  # the reference, too
    stored = json.loads((scene / "study" / "windows.json").read_text())["digest"]
    assert {plan.digest for plan in plans} == {stored}


def _told_to(calls, function):
    def told(*given, **named):
        calls.append(given)
        return function(*given, **named)

    return told


@pytest.mark.slow
def test_a_study_on_ray_says_what_one_process_says_to_the_last_bit(scene):
    arms = ("--arms", "none", "larger@1.5", f"sr={scene / 'sr.safetensors'}", "original")
    more = ("--join.full", "true", "--windows.size", "32", "--at_once", "1", *arms)
    alone, spread = scene / "study", scene / "spread"
    assert cli.main(words(scene, *more)) == 0
    assert cli.main(words(scene, *more, "--ray", "2", "--out", str(spread))) == 0
    names = {path.name for path in alone.glob("*.json")}
    larger = "detections_larger_1.5.json"
    assert {"detections_sr.json", larger, "windows.json", "truth.json"} < names
    for name in names - {"study.json"}:
        assert (alone / name).read_bytes() == (spread / name).read_bytes(), name
    assert len(json.loads((alone / "detections_sr.json").read_text())) > 100
    told = [json.loads((folder / "study.json").read_text()) for folder in (alone, spread)]
    for key in ("gains", "tests", "errors", "coverage", "shift"):
        one, other = (json.dumps(each[key]) for each in told)  # as text, for nan is not nan
        assert one == other, key
    seen = [
        {str(p.relative_to(folder)): boxes(p) for p in folder.rglob("*.safetensors")}
        for folder in (alone, spread)
    ]
    assert seen[0] == seen[1]
    assert len(seen[0]) == 5 * 3  # whole pictures and four arms of three runs each


def boxes(path):
    """What a run on disk holds, without how long it took."""
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(path).items()}
