import mlflow
import pytest
import torch
import yaml

from pipeline.pictures import write_picture
from pipeline.shards import shards
from pipeline.train import CONF
from pipeline.tune import sampler, tune


@pytest.fixture
def few_shards(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for number in range(6):
        picture = torch.randint(0, 255, (3, 48, 48), generator=generator, dtype=torch.uint8)
        write_picture(picture, tmp_path / "pictures" / f"{number}.png")
    shards([tmp_path / "pictures"], tmp_path / "shards", cut=0, val=0.2)
    return tmp_path / "shards"


@pytest.mark.slow
def test_a_sweep_trains_its_trials_on_ray_and_leaves_the_best_config(
    few_shards, tmp_path, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    smoke = yaml.safe_load((CONF / "tune" / "smoke.yaml").read_text())
    fixed = {**smoke["fixed"], "data.crop": 32, "data.steps_per_epoch": 1, "trainer.max_steps": 2}
    name = "model.init_args.arch_args.features"
    swept = tune(
        [CONF / "experiment" / "srresnet.yaml"],
        {name: {"grid_search": [4, 8]}},
        shards=few_shards, fixed=fixed, out=tmp_path / "sweep", samples=1,
    )  # fmt: skip
    assert (swept.trials, swept.failed) == (2, 0)
    best = yaml.safe_load(swept.config.read_text())
    assert best["model"]["init_args"]["arch_args"]["features"] == swept.best[name]

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("srdet tune").experiment_id])
    sweep = next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    trials = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == sweep.info.run_id]
    assert len(trials) == 2
    assert sweep.info.status == "FINISHED"
    # A laggard is ended from outside, or ends by itself before that.
    assert {run.info.status for run in trials} <= {"FINISHED", "KILLED"}
    assert sweep.data.metrics["best/psnr_y"] == pytest.approx(
        max(run.data.metrics.get("val/psnr_y", 0.0) for run in trials)
    )


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"normal": [0, 1]}, "choice, uniform, loguniform, randint, grid_search"),
        ({}, "exactly one of"),
        ({"uniform": [2.0, 1.0]}, "low below high"),
        ({"loguniform": [1.0]}, "low below high"),
    ],
)
def test_a_wrong_search_space_is_refused_with_what_is_allowed(how, said):
    with pytest.raises(ValueError, match=said):
        sampler("model.init_args.loss", how)
