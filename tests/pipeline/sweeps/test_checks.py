"""What is found out before a sweep starts: the command itself on the shipped files and bad ones."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torchvision.models import alexnet

from pipeline.train import CONF
from pipeline.tune import main

SWEEPS = sorted((CONF / "tune").glob("*.yaml"))


@pytest.fixture(scope="module")
def vgg(tmp_path_factory):
    """Weights of VGG19's first convolution: the recipes would fetch all of them."""
    path = tmp_path_factory.mktemp("vgg") / "vgg19.safetensors"
    save_file({"0.weight": torch.zeros(64, 3, 3, 3), "0.bias": torch.zeros(64)}, path)
    return str(path)


@pytest.fixture
def study(tmp_path, paint_noise):
    """A validation split of one picture with one box."""
    paint_noise(tmp_path / "study" / "0.png", width=192, height=192)
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [8, 8, 9, 9], "area": 81, "iscrowd": 0}
    image = {"id": 1, "file_name": "0.png", "width": 192, "height": 192}
    truth = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "car"}]}
    path = tmp_path / "study.json"
    path.write_text(json.dumps(truth))
    return ["--detection.coco", str(path), "--detection.images", str(tmp_path / "study")]


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """AlexNet's features, untrained, so that LPIPS need fetch nothing."""
    path = tmp_path_factory.mktemp("alex") / "alex.safetensors"
    save_file(alexnet().features.state_dict(), path)
    return ["--lpips.weights", str(path)]


def dry(config: Path, shards: Path, out: Path, *more: str) -> None:
    main(["--config", str(config), "--shards", str(shards), "--out", str(out), "--dry", *more])


def test_the_sweeps_that_the_docs_name_are_there():
    names = {path.stem for path in SWEEPS}
    assert names == {"detection_gain", "esrgan_pbt", "smoke", "srgan", "srresnet_lr"}


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda path: path.stem)
def test_every_shipped_sweep_passes_the_commands_own_checks(
    sweep, shards, vgg, features, study, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # its recipes are found from anywhere
    settings = yaml.safe_load(sweep.read_text())
    fixed = settings.setdefault("fixed", {})
    fixed["data.crop"] = 32  # of pieces of 48 pixels
    if "gan" in sweep.stem:  # smaller networks, and no VGG
        fixed["model.init_args.discriminator"] = "unet"
        fixed["model.init_args.perceptual.weights"] = vgg
        fixed["model.init_args.perceptual.layers"] = {"conv1_1": 1.0}
        fixed["model.init_args.arch_args.blocks"] = 1
    config = tmp_path / "sweep.yaml"
    config.write_text(yaml.safe_dump(settings))
    more = [*(study if "detection" in settings else []), *features]
    dry(config, shards, tmp_path / "out", *more)
    assert "every setting fits" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


BASE = {
    "train": ["conf/experiment/srresnet_small.yaml"],
    "fixed": {"data.crop": 32, "model.init_args.arch_args.blocks": 1},
    "space": {"model.init_args.optimisation.learning_rate": {"uniform": [0.1, 0.2]}},
    "trials": 2,
}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"space": {}}, "space is empty"),
        ({"space": {"data.crp": {"choice": [32]}}}, r"data.crp.*did you mean 'data.crop'"),
        (
            {"space": {"model.init_args.optimisation.learnin_rate": {"choice": [1.0e-3]}}},
            "did you mean 'optimisation.learning_rate'",
        ),
        (  # no short forms: the recipe of the best trial would hold one
            {"space": {"model.init_args.optimisation.warmu": {"choice": [10]}}},
            "did you mean 'optimisation.warmup'",
        ),
        (
            {"space": {"model.init_args.arch_args.featurs": {"choice": [8]}}},
            "did you mean 'features'",
        ),
        ({"space": {"model.init_args.loss": {"choice": ["l1", "l7"]}}}, r"loss: l7.*choose from"),
        ({"space": {"data.crop": {"choice": [32, 33]}}}, "crop 33 is not a multiple"),
        ({"space": {"data.crop": {"choice": [32, 64]}}}, "crop 64 is larger than the pieces of 48"),
        ({"space": {"run.out": {"choice": ["a"]}}}, "every trial has its own"),
        ({"objective": {"val/psnr": "max"}}, r"'val/psnr'; did you mean 'val/psnr_y'.*val/ssim_y"),
        ({"objective": {"detect/gain_low": "max"}}, "say which under detection"),
        (
            {"objective": {"val/lpips": "min"}, "lpips": {"weights": "nothing.pth"}},
            "measured by alex's features.*nothing.pth.*lpips.weights",
        ),
        ({"scheduler": {"kind": "ahsa"}}, "did you mean 'asha'"),
        (
            {
                "scheduler": {"kind": "pbt"},
                "space": {"model.init_args.arch_args.features": {"choice": [4, 8]}},
            },
            "makes another network",
        ),
        (
            {"scheduler": {"kind": "pbt"}, "space": {"data.crop": {"choice": [32, 36]}}},
            "cannot change while a network trains",
        ),
        ({"train": ["conf/experiment/nothing.yaml"]}, "no file conf/experiment/nothing.yaml"),
        ({"fixed": {"trainer.max_steps": -1}}, "a trial would never end"),
    ],
)
def test_what_training_would_refuse_is_refused_before_the_first_trial(
    wrong, said, shards, tmp_path
):
    config = tmp_path / "sweep.yaml"
    fixed = {**BASE["fixed"], **wrong.get("fixed", {})}
    config.write_text(yaml.safe_dump({**BASE, **wrong, "fixed": fixed}))
    with pytest.raises((ValueError, OSError), match=said):
        dry(config, shards, tmp_path / "out")


def test_heads_of_lpips_that_are_not_there_are_told_with_the_setting_that_names_them(
    features, shards, tmp_path
):
    config = tmp_path / "sweep.yaml"
    config.write_text(yaml.safe_dump({**BASE, "objective": {"val/lpips": "min"}}))
    with pytest.raises(FileNotFoundError, match=r"heads of LPIPS at no\.pth; .* in lpips\.heads"):
        dry(config, shards, tmp_path / "out", *features, "--lpips.heads", "no.pth")


def test_a_server_that_does_not_answer_is_said_before_anything_else_and_without_its_password(
    shards, tmp_path, monkeypatch, capsys
):
    config = tmp_path / "sweep.yaml"
    config.write_text(yaml.safe_dump(BASE))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:hunter2@127.0.0.1:9")
    with pytest.raises(
        ConnectionError, match=r"127\.0\.0\.1:9 does not answer.*SRDET_OFFLINE=1"
    ) as no:
        dry(config, shards, tmp_path / "out")
    assert "hunter2" not in str(no.value)
    assert capsys.readouterr().err == ""


def test_a_folder_of_another_sweep_is_refused_with_what_differs(shards, tmp_path):
    config, out = tmp_path / "sweep.yaml", tmp_path / "out"
    config.write_text(yaml.safe_dump(BASE))
    with pytest.raises(FileNotFoundError, match="holds no sweep"):
        dry(config, shards, out, "--resume")
    out.mkdir()
    (out / "sweep.json").write_text(json.dumps({"trials": 5}))
    with pytest.raises(FileExistsError, match="go on with --resume"):
        dry(config, shards, out)
    with pytest.raises(ValueError, match="trials was 5 and is 2"):
        dry(config, shards, out, "--resume")
    (out / "sweep.json").unlink()
    (out / "other.txt").write_text("")
    with pytest.raises(FileExistsError, match="not empty"):
        dry(config, shards, out)
