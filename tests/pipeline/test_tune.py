"""Sweeps on a real Ray, with a real store; starting Ray takes ten seconds and more."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import mlflow
import pytest
import torch
import yaml

from pipeline.sweeps.settings import Resources, Scheduler
from pipeline.train import CONF, configured
from pipeline.tune import tune

FEATURES = "model.init_args.arch_args.features"
RATE = "model.init_args.optimisation.learning_rate"
TINY = {
    "data.crop": 32, "data.batch_size": 2, "data.workers": 0, "data.val_limit": 2,
    "data.steps_per_epoch": 2, "trainer.max_steps": 6, "trainer.precision": "32-true",
    "model.init_args.arch_args": {"features": 4, "blocks": 1}, "model.init_args.ema_decay": 0.5,
    "run.log_every": 1, "run.pictures": 1,
}  # fmt: skip


def slow(test):
    """With some time for machines on which much else goes on."""
    return pytest.mark.slow(pytest.mark.timeout(1200)(test))


def runs_of(store: str, experiment: str):
    """The sweep's run and those of its trials, by name."""
    client = mlflow.MlflowClient(store)
    runs = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    sweep = next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == sweep.info.run_id]
    return client, sweep, {r.info.run_name.split(":")[0]: r for r in children}


@slow
def test_a_sweep_leaves_the_best_network_its_recipe_and_why_trials_failed(
    shards, store, tmp_path, capfd
):
    swept = tune(
        [CONF / "experiment" / "srresnet_small.yaml"],
        {FEATURES: {"grid": [4, 8]}, RATE: {"grid": [1e-3, 1e20]}},
        shards=str(shards), fixed={**TINY, "model.init_args.max_skipped": 0}, search="grid",
        out=tmp_path / "sweep", experiment="a sweep",
    )  # fmt: skip
    assert len(swept.trials) == 4
    failed = [each for each in swept.trials if each.state == "failed"]
    assert [each.point[RATE] for each in failed] == [1e20, 1e20]
    assert swept.best[RATE] == 1e-3
    said = capfd.readouterr().err
    assert all(f"{each.name} failed: {each.error}" in said for each in failed)
    assert "not finite" in failed[0].error
    assert "WARNING" not in said
    assert "ray" not in said.replace("/ray", "").lower().replace("array", "")

    recipe = yaml.safe_load(swept.config.read_text())
    assert recipe["model"]["init_args"]["arch_args"]["features"] == swept.best[FEATURES]
    setup = configured(["--config", str(swept.config), "--data.shards", str(shards)])
    assert setup.model.net.arch_args["features"] == swept.best[FEATURES]
    assert swept.net.exists()

    _, sweep, trials = runs_of(store, "a sweep")
    assert sweep.info.status == "FINISHED"
    assert len(trials) == 4
    assert sweep.data.metrics["best/val/psnr_y"] == pytest.approx(swept.metrics["val/psnr_y"])
    best = [r for r in trials.values() if r.data.tags.get("sweep.best") == "true"]
    assert [r.info.run_name.split(":")[0] for r in best] == [swept.trials[0].name]
    assert {r.info.status for r in trials.values()} == {"FINISHED", "FAILED"}
    assert {r.data.tags["mlflow.source.name"] for r in trials.values()} == {"srdet tune"}
    table = json.loads((tmp_path / "sweep" / "trials.json").read_text())
    assert [row["state"] for row in table].count("failed") == 2


@slow
def test_two_objectives_are_searched_by_optuna_and_leave_their_pareto_set(shards, store, tmp_path):
    swept = tune(
        [CONF / "experiment" / "srresnet_small.yaml"],
        {RATE: {"loguniform": [1e-4, 1e-2]}, FEATURES: {"choice": [4, 8]}},
        shards=str(shards), fixed={**TINY, "trainer.max_steps": 2}, search="tpe", trials=3,
        objective={"val/psnr_y": "max", "val/ssim_y": "max"}, out=tmp_path / "sweep",
        experiment="pareto",
    )  # fmt: skip
    assert len(swept.trials) == 3
    names = {each.name for each in swept.front}
    left = {path.stem for path in (tmp_path / "sweep" / "pareto").glob("*.safetensors")}
    assert left == names
    assert (tmp_path / "sweep" / "pareto.png").exists()
    for name in names:
        recipe = tmp_path / "sweep" / "pareto" / f"{name}.yaml"
        assert f"--config {recipe} " in recipe.read_text()


@slow
def test_a_population_changes_rates_and_takes_over_states_while_it_trains(shards, store, tmp_path):
    swept = tune(
        [CONF / "experiment" / "srresnet_small.yaml"],
        {RATE: {"grid": [1e-7, 1e-3]}},
        shards=str(shards), fixed={**TINY, "trainer.max_steps": 12}, search="grid",
        scheduler=Scheduler(kind="pbt", interval=1, quantile=0.5, synchronous=True),
        out=tmp_path / "sweep", experiment="population",
    )  # fmt: skip
    assert [each.state for each in swept.trials] == ["finished", "finished"]
    client, _, trials = runs_of(store, "population")
    changed = {
        name: {p.value for p in client.get_metric_history(r.info.run_id, "swept/learning_rate")}
        for name, r in trials.items()
    }
    assert any(len(values) > 1 for values in changed.values()), changed
    assert list((tmp_path / "sweep").glob("trial-*/origin.json"))  # a state was taken over


@slow
def test_two_processes_train_each_trial_together_and_a_laggard_of_them_is_stopped(
    shards, store, tmp_path
):
    swept = tune(
        [CONF / "experiment" / "srresnet_small.yaml"],
        {RATE: {"grid": [1e-3, 5e-2]}}, search="grid", shards=str(shards), fixed=TINY,
        resources=Resources(workers=2), scheduler=Scheduler(kind="asha", reduction=2.0),
        out=tmp_path / "sweep", experiment="groups",
    )  # fmt: skip
    assert [(each.point[RATE], each.state) for each in swept.trials] == [
        (1e-3, "finished"),
        (5e-2, "stopped"),
    ]
    assert swept.trials[0].validations == 3
    _, _, trials = runs_of(store, "groups")
    assert {r.data.tags["world_size"] for r in trials.values()} == {"2"}
    assert trials["trial-001"].info.status == "FINISHED"
    assert trials["trial-001"].data.metrics["train/images_seen"] == 6 * 2 * 2  # of both processes
    assert trials["trial-002"].info.status == "KILLED"
    assert not list((tmp_path / "sweep").glob("trial-*/.report-*"))
    assert not list((tmp_path / "sweep").glob("trial-*/stop"))


FAILING = """
import os
from pathlib import Path

import pytorch_lightning as pl


class FailOnce(pl.Callback):
    def on_train_batch_start(self, trainer, *_):
        once = Path(os.environ["FAILED_ONCE"])
        if trainer.global_step == 5 and not once.exists():
            once.touch()
            raise OSError("the disk went away")
"""


@slow
def test_a_failed_trial_goes_on_from_its_checkpoint_in_the_run_that_it_had_begun(
    shards, store, tmp_path, monkeypatch
):
    (tmp_path / "failing.py").write_text(FAILING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(CONF.parent)]))
    monkeypatch.setenv("FAILED_ONCE", str(tmp_path / "failed"))
    swept = tune(
        [CONF / "experiment" / "srresnet_small.yaml"], {RATE: {"grid": [1e-3]}}, search="grid",
        shards=str(shards), out=tmp_path / "sweep", experiment="failed once", retries=1,
        fixed={**TINY, "trainer.callbacks": [{"class_path": "failing.FailOnce"}]},
    )  # fmt: skip
    assert (tmp_path / "failed").exists()
    assert [(each.state, each.validations) for each in swept.trials] == [("finished", 3)]
    client, _, trials = runs_of(store, "failed once")
    (run,) = trials.values()
    assert run.info.status == "FINISHED"
    steps = [p.step for p in client.get_metric_history(run.info.run_id, "train/loss")]
    assert sorted(steps) == [1, 2, 3, 4, 5, 6]  # the fifth was not made before the failure


@slow
def test_a_killed_sweep_goes_on_and_loses_at_most_one_reporting_period(shards, store, tmp_path):
    every = 5
    sweep = {
        "train": [str(CONF / "experiment" / "srresnet_small.yaml")],
        "fixed": {**TINY, "data.steps_per_epoch": every, "trainer.max_steps": 60},
        "space": {FEATURES: {"grid": [4, 8]}}, "search": "grid", "shards": str(shards),
        "out": str(tmp_path / "sweep"), "experiment": "killed", "scheduler": {"kind": "none"},
    }  # fmt: skip
    config = tmp_path / "sweep.yaml"
    config.write_text(yaml.safe_dump(sweep))
    command = [sys.executable, "-m", "pipeline", "tune", "--config", str(config)]
    started = subprocess.Popen(command, cwd=CONF.parent, env=dict(os.environ))
    folders = [tmp_path / "sweep" / name for name in ("trial-001", "trial-002")]
    _wait(lambda: all(_step(folder) >= 3 * every for folder in folders), started)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    assert not (tmp_path / "sweep" / "trials.json").exists()

    subprocess.run([*command, "--resume"], cwd=CONF.parent, check=True)
    client, parent, trials = runs_of(store, "killed")
    assert parent.info.status == "FINISHED"
    assert len(trials) == 2  # each went on in the run that it had begun
    for run in trials.values():
        history = client.get_metric_history(run.info.run_id, "train/loss")
        twice = [step for step, count in Counter(p.step for p in history).items() if count > 1]
        assert {p.step for p in history} >= set(range(5, 60, 5))
        assert len(twice) <= every, twice


def _step(folder: Path) -> int:
    last = folder / "last.ckpt"
    return torch.load(last, weights_only=False)["global_step"] if last.exists() else 0


def _wait(ready, process, seconds=600):
    """Until it is so; the process must not end before."""
    end = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None, "the sweep ended before it could be killed"
        assert time.monotonic() < end, "the sweep did not come so far"
        time.sleep(0.2)


def test_an_address_where_no_ray_answers_is_refused_at_once(shards, tmp_path):
    with pytest.raises(ConnectionError, match=r"no Ray answers at 127.0.0.1:9 .*leave the address"):
        tune(
            [CONF / "experiment" / "srresnet_small.yaml"], {FEATURES: {"choice": [4]}},
            shards=str(shards), fixed=TINY, out=tmp_path / "sweep", address="127.0.0.1:9",
        )  # fmt: skip
    assert not (tmp_path / "sweep").exists()
