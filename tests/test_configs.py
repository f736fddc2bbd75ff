"""Every shipped training recipe goes through the real parser and becomes a run that could start."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from pipeline.data import ShardData
from pipeline.train import CONF, RunSettings, configured

RECIPES = sorted((CONF / "experiment").glob("*.yaml"))


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights of VGG19's first convolution: the recipes would fetch all of them."""
    path = tmp_path_factory.mktemp("vgg") / "vgg19.safetensors"
    save_file({"0.weight": torch.zeros(64, 3, 3, 3), "0.bias": torch.zeros(64)}, path)
    return str(path)


def words(recipe: Path, vgg: str, out: Path) -> list[str]:
    tiny = ["--data.shards", "shards", "--run.out", str(out), "--trainer.accelerator", "cpu"]
    tiny += ["--trainer.devices", "1", "--trainer.max_steps", "1", "--data.workers", "0"]
    if "perceptual" in yaml.safe_load(recipe.read_text())["model"]["init_args"]:
        tiny += ["--model.init_args.perceptual.weights", vgg]
        tiny += ["--model.init_args.perceptual.layers", '{"conv1_1": 1.0}']
    return ["--config", str(recipe), *tiny]


def test_every_rung_has_its_papers_recipe_and_a_modern_one_where_one_is_better():
    papers = {"srcnn", "fsrcnn", "espcn", "vdsr", "drcn", "edsr", "edsr_full", "srresnet", "srgan"}
    papers |= {"rrdb_psnr", "esrgan", "compact", "real_esrnet", "real_esrgan", "raisr"}
    papers |= {"vespcn", "vespcn_slow", "pixel_recursive"}
    modern = {"srcnn", "fsrcnn", "espcn", "vdsr", "drcn", "srresnet", "srgan", "rrdb", "esrgan"}
    small = {"srresnet_small", "srgan_small", "rrdb_small", "srresnet_small_jpeg"}
    wanted = papers | {f"{name}_modern" for name in modern | {"vespcn"}} | small
    assert wanted <= {path.stem for path in RECIPES}


def test_a_recipe_says_itself_whether_weights_are_averaged():
    for recipe in RECIPES:
        model = yaml.safe_load(recipe.read_text())["model"]
        assert model["class_path"] == "ClosedForm" or "ema_decay" in model["init_args"], recipe.stem


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_that_averages_no_weights_is_a_papers_and_says_how_its_crops_vary(recipe):
    text = recipe.read_text()
    unaveraged = yaml.safe_load(text)["model"]["init_args"].get("ema_decay") == 0
    assert unaveraged == ("# Crops      flipped and turned by quarters at random" in text)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_becomes_a_run(recipe, vgg, tmp_path):
    setup = configured(words(recipe, vgg, tmp_path))
    asked = yaml.safe_load(recipe.read_text())
    arguments = asked["model"]["init_args"]
    assert type(setup.model).__name__ == asked["model"]["class_path"]
    assert setup.model.net.arch == arguments["arch"]
    assert arguments.get("arch_args", {}).items() <= setup.model.net.arch_args.items()
    assert setup.data.scale == setup.model.net.scale == arguments["scale"]
    assert setup.data.crop == asked["data"]["crop"]
    if "optimisation" in arguments:
        rate = arguments["optimisation"]["learning_rate"]
        assert setup.model.optimisation.learning_rate == rate
    frames = setup.data.frames
    assert frames == setup.model.net.frames
    lr = torch.rand((1, 3, 8, 8) if frames == 1 else (1, frames, 3, 8, 8))
    with torch.no_grad():
        assert setup.model(lr).shape == (1, 3, 8 * setup.data.scale, 8 * setup.data.scale)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_its_command_data_hardware_result_and_source(recipe):
    text = recipe.read_text()
    for word in ("# Command", "# Data", "# Hardware", "# Expected", "# Source"):
        assert word in text
    assert yaml.safe_load(text)["run"]["out"] == f"runs/{recipe.stem}"


def test_the_default_file_has_every_run_and_data_setting_once():
    text = (CONF / "default.yaml").read_text()
    default = yaml.safe_load(text)
    of_run = {field.name: field.default for field in dataclasses.fields(RunSettings)}
    assert default["run"] == {**of_run, "out": str(of_run["out"])}
    of_data = set(inspect.signature(ShardData).parameters) - {
        "shards",  # has no default
        "scale",  # is the network's
        "frames",  # so are these
    }
    assert set(default["data"]) == of_data
    parts = re.split(r"^(\w+):", text, flags=re.MULTILINE)
    written = dict(zip(parts[1::2], parts[2::2], strict=True))
    for name, section in default.items():
        for key in section if isinstance(section, dict) else ():
            assert written[name].count(f"\n  {key}:") == 1, f"{name}.{key}"


def test_the_default_file_explains_its_settings():
    lines = (CONF / "default.yaml").read_text().splitlines()
    settings = [line for line in lines if line.startswith("  ")]
    plain = ("num_nodes", "seed", "out", "experiment")  # say it by their name
    for line in settings:
        assert "#" in line or line.split(":")[0].strip() in plain, line
