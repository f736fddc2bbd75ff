import json

import mlflow
import pytest
import yaml

from pipeline import cli
from pipeline.train import CONF
from sr_module.checkpoint import load_net, read_provenance


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The demo's own settings with every size cut down, run once for the tests below."""
    folder = tmp_path_factory.mktemp("demo")
    settings = yaml.safe_load((CONF / "demo.yaml").read_text())
    settings["scenes"] = {"size": 128, "train": 6, "study": 3, "seed": 0}
    settings["shards"] |= {"cut": 64, "step": 64, "val": 0.2}
    for stage in ("psnr", "gan"):
        settings[stage]["data"] |= {
            "batch_size": 2, "crop": 32, "steps_per_epoch": 2, "val_limit": 1, "workers": 0,
        }  # fmt: skip
        settings[stage]["trainer"]["max_steps"] = 2
        settings[stage]["run"]["log_every"] = 1
        settings[stage]["model"]["init_args"]["arch_args"] = {"features": 8, "blocks": 1}
    settings["detector"] |= {"crop": 64, "batch_size": 1, "steps": 2, "workers": 0}
    settings["study"]["resamples"] = 20
    (folder / "small.yaml").write_text(yaml.safe_dump(settings))
    out = folder / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(folder)
        words = ["demo", "--out", str(out), "--settings", str(folder / "small.yaml")]
        assert cli.main(words) == 0
        assert cli.main(words) == 0, "a second demo replaces the first"
    return out


def test_the_demo_leaves_shards_networks_detector_and_report(small):
    assert json.loads((small / "shards" / "index.json").read_text())["splits"]["val"]["samples"] > 0
    for stage in ("psnr", "gan"):
        assert load_net(small / stage / "net.safetensors").scale == 4
        assert read_provenance(small / stage / "net.safetensors")["steps"] == 2
    assert (small / "detector" / "detector.safetensors").exists()
    page = (small / "study" / "report.html").read_text()
    for arm in ("none", "bicubic", "sr", "sr-gan", "original"):
        assert f">{arm}<" in page


def test_all_its_runs_are_nested_and_finished_in_its_own_store(small):
    client = mlflow.MlflowClient(f"sqlite:///{small / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("srdet demo")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    names = [run.info.run_name for run in runs]
    for name in ("demo", "2 SR network, PSNR stage", "4 detector", "arm sr-gan", "5 study"):
        assert names.count(name) == 2, name  # two demos
    assert {run.info.status for run in runs} == {"FINISHED"}
    roots = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert {run.info.run_name for run in roots} == {"demo"}


def test_its_networks_and_detectors_are_registered_there_and_nowhere_else(small):
    client = mlflow.MlflowClient(f"sqlite:///{small / 'mlflow.db'}")
    for name, count in (("srdet-demo", 4), ("srdet-demo-detector", 2)):  # of two demos
        assert len(client.search_model_versions(f"name = '{name}'")) == count
        assert client.get_model_version_by_alias(name, "champion")
    assert {path.name for path in small.parent.iterdir()} == {"small.yaml", "out"}


def test_training_curves_and_pictures_with_steps_are_in_the_store(small):
    client = mlflow.MlflowClient(f"sqlite:///{small / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("srdet demo")
    runs = client.search_runs([experiment.experiment_id])
    stage = next(run for run in runs if run.info.run_name == "3 SR network, adversarial stage")
    for metric in ("val/psnr_y", "train/loss", "train/gan", "train/images_per_s"):
        assert client.get_metric_history(stage.info.run_id, metric), metric
    pictures = [item.path for item in client.list_artifacts(stage.info.run_id, "images")]
    assert any("validation_0" in path and "step" in path for path in pictures)


def test_its_configs_can_be_trained_on_by_hand(small):
    config = yaml.safe_load((small / "gan.yaml").read_text())
    assert config["model"]["init_args"]["init_from"] == str(small / "psnr" / "net.safetensors")
