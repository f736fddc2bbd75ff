import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from pipeline import cli, launch
from pipeline.launch import (
    World,
    check_world,
    cores_shared_with,
    lightning_main,
    trainer_world,
    world_of,
)
from pipeline.train import configured
from sr_module.checkpoint import read_provenance

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sys.executable).parent

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
LIGHTNING = {**TORCHRUN, "LT_CLI_USED": "1", "LT_DEVICES": "4", "LT_NUM_NODES": "2"}
SLURM = {"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_NNODES": "2"}


@pytest.mark.parametrize(
    ("env", "world"),
    [
        ({}, None),
        (TORCHRUN, World("torchrun", 8, 4, 2)),
        (LIGHTNING, World("lightning run", 8, 4, 2)),
        (SLURM, World("srun", 8, 4, 2)),
        ({**SLURM, "SLURM_NTASKS_PER_NODE": "4"}, World("srun", 8, 4, 2)),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, World("srun", 1, 1, 1)),
        ({**SLURM, **TORCHRUN}, World("torchrun", 8, 4, 2)),  # torchrun inside an allocation
        ({**SLURM, "SLURM_JOB_NAME": "interactive"}, None),
        ({**SLURM, "SLURM_JOB_NAME": "bash"}, None),
        ({"SLURM_PROCID": "0", "SLURM_NNODES": "2"}, None),  # sbatch without srun
    ],
)
def test_the_world_is_read_from_each_launchers_environment(env, world):
    assert world_of(env) == world


def test_the_trainer_takes_the_launchers_world_and_a_strategy_that_suits_it():
    fitted = trainer_world({"accelerator": "cpu", "devices": "auto", "num_nodes": 1}, TORCHRUN)
    assert (fitted["devices"], fitted["num_nodes"]) == (4, 2)
    assert fitted["strategy"] == "ddp_find_unused_parameters_true"
    assert trainer_world({"strategy": "fsdp", "devices": 4}, TORCHRUN)["strategy"] == "fsdp"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"devices": 3}, "trainer.devices is 3, but torchrun started 4; leave it out"),
        ({"devices": 1}, "trainer.devices is 1, but torchrun started 4"),
        ({"devices": "2"}, "trainer.devices is 2, but torchrun started 4"),
        ({"num_nodes": 3}, "trainer.num_nodes is 3, but torchrun started 2"),
    ],
)
def test_another_world_than_the_launched_one_is_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        trainer_world(asked, TORCHRUN)


@pytest.mark.parametrize("asked", [{}, {"devices": 4, "num_nodes": 2}, {"devices": "-1"}])
def test_the_same_world_or_none_is_accepted(asked):
    assert trainer_world(asked, TORCHRUN)["devices"] == 4


def test_lightning_runs_options_reach_the_trainer():
    env = {**LIGHTNING, "LT_ACCELERATOR": "cpu", "LT_STRATEGY": "ddp", "LT_PRECISION": "32-true"}
    fitted = trainer_world({"accelerator": "auto", "precision": "bf16-mixed"}, env)
    assert fitted["accelerator"] == "cpu"
    assert fitted["precision"] == "32-true"
    assert fitted["strategy"] == "ddp_find_unused_parameters_true"


@pytest.mark.parametrize(
    ("asked", "gpus", "strategy"),
    [
        ({"accelerator": "cpu", "devices": 1}, 0, "auto"),
        ({"accelerator": "cpu", "devices": 2}, 0, "ddp_find_unused_parameters_true"),
        ({"accelerator": "cpu", "devices": "auto"}, 8, "auto"),
        ({"accelerator": "auto", "devices": "auto"}, 0, "auto"),
        ({"accelerator": "auto", "devices": "auto"}, 1, "auto"),
        ({"accelerator": "auto", "devices": "auto"}, 2, "ddp_find_unused_parameters_true"),
        ({"accelerator": "gpu", "devices": -1}, 2, "ddp_find_unused_parameters_true"),
        ({"accelerator": "gpu", "devices": [1]}, 4, "auto"),
        ({"accelerator": "gpu", "devices": [1, 3]}, 4, "ddp_find_unused_parameters_true"),
        ({"accelerator": "gpu", "devices": "0,2"}, 4, "ddp_find_unused_parameters_true"),
        (
            {"accelerator": "gpu", "devices": 1, "num_nodes": 2},
            4,
            "ddp_find_unused_parameters_true",
        ),
    ],
)
def test_without_a_launcher_several_devices_need_the_same_strategy(
    monkeypatch, asked, gpus, strategy
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert trainer_world({**asked, "strategy": "auto"}, {})["strategy"] == strategy


def test_precision_is_bf16_where_the_hardware_has_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for native, expected in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(launch, "cpu_has_bf16", lambda native=native: native)
        assert trainer_world({}, {})["precision"] == expected
        assert trainer_world({"precision": "16-mixed"}, {})["precision"] == "16-mixed"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert trainer_world({}, {})["precision"] == "32-true"


def test_a_trainer_that_sees_fewer_processes_than_were_started_is_refused():
    check_world(8, TORCHRUN)
    check_world(1, {})
    with pytest.raises(ValueError, match="torchrun started 8 processes, the trainer sees 1"):
        check_world(1, TORCHRUN)


def test_a_config_that_contradicts_the_launcher_is_refused_before_anything_starts(
    tiny, monkeypatch
):
    for key, value in TORCHRUN.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(ValueError, match=r"trainer.devices is 1, but torchrun started 4"):
        configured(tiny())


def test_the_lightning_command_has_one_word(capsys):
    assert lightning_main(["--help"]) == 0
    assert lightning_main(["fit"]) == 2
    assert lightning_main([]) == 2
    assert lightning_main(["run", "--help"]) == 0
    assert cli.main(["launch", "--help"]) == 0
    captured = capsys.readouterr()
    assert (captured.out + captured.err).count("usage: lightning run") == 5


def test_a_launch_without_a_script_is_refused(capsys):
    assert lightning_main(["run", "--devices", "2"]) == 2
    assert cli.main(["launch", "model", "--devices", "2"]) == 2
    told = capsys.readouterr().err
    assert told.count("no script (a .py file) among: --devices 2") == 2


DUMP = """
import pytorch_lightning as pl
import torch


class Dump(pl.Callback):
    '''Every rank's weights at the end.'''

    def on_train_end(self, trainer, pl_module):
        weights = {k: v for k, v in pl_module.named_parameters() if "averaged" not in k}
        torch.save(weights, f"rank{trainer.global_rank}.pt")
"""


def free_port() -> str:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return str(bound.getsockname()[1])


def launched(launcher: list[str], words: list[str], folder: Path, store: str) -> None:
    """Runs the training script under a launcher; every rank leaves its weights in ``folder``."""
    (folder / "dumping.py").write_text(DUMP)
    words += ["--trainer.callbacks+=dumping.Dump", "--trainer.devices", "auto"]
    script = str(ROOT / "pipeline" / "train.py")
    path = os.pathsep.join([str(folder), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, script, "fit", *words], cwd=folder, capture_output=True, text=True, timeout=240,
        env={**environment, "MLFLOW_TRACKING_URI": store},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def one_run_of_two(folder: Path, store: str, launcher: str, gan: bool) -> None:
    client = MlflowClient(store)
    run_id = json.loads((folder / "run" / "run.json").read_text())["run_id"]
    run = client.get_run(run_id)
    alike = client.search_runs([run.info.experiment_id], f"attributes.run_name = '{folder.name}'")
    assert [found.info.run_id for found in alike] == [run_id]
    assert run.info.status == "FINISHED"
    assert run.data.tags["world_size"] == "2"
    assert run.data.tags["launcher"] == launcher
    assert run.data.metrics["train/images_seen"] == 3 * 2 * 2  # steps, batch, ranks
    assert read_provenance(folder / "run" / "net.safetensors")["steps"] == 3
    first, second = (torch.load(folder / f"rank{rank}.pt") for rank in range(2))
    assert any(key.startswith("discriminator") for key in first) == gan
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture
def words(tiny: Callable[..., list[str]], tmp_path: Path) -> Callable[..., list[str]]:
    """Three steps, and one validation picture for two ranks: one of them has none."""
    more = ["--trainer.max_steps", "3", "--data.val_limit", "1", "--run.name", tmp_path.name]
    return lambda *, gan: tiny(*more, "--run.checkpoint_every", "2", gan=gan)


def test_lightning_run_trains_one_adversarial_run_in_a_world_of_two(words, tmp_path, store):
    lightning = [str(SCRIPTS / "lightning"), "run", "--accelerator", "cpu", "--devices", "2"]
    launched([*lightning, "--main-port", free_port()], words(gan=True), tmp_path, store)
    one_run_of_two(tmp_path, store, "lightning run", gan=True)


@pytest.mark.slow
def test_torchrun_trains_one_run_in_a_world_of_two_and_resumes_it(words, tmp_path, store):
    torchrun = [str(SCRIPTS / "torchrun"), "--nproc_per_node", "2", "--master_port"]
    launched([*torchrun, free_port()], words(gan=False), tmp_path, store)
    one_run_of_two(tmp_path, store, "torchrun", gan=False)
    more = [*words(gan=False), "--trainer.max_steps", "5"]
    launched([*torchrun, free_port()], more, tmp_path, store)
    assert read_provenance(tmp_path / "run" / "net.safetensors")["steps"] == 5


@pytest.mark.slow
def test_lightnings_own_processes_train_one_run_too(words, tmp_path, store):
    more = [*words(gan=True), "--trainer.devices", "2", "--trainer.accelerator", "cpu"]
    script = str(ROOT / "pipeline" / "train.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": store}
    done = subprocess.run(
        [sys.executable, script, "fit", *more], cwd=tmp_path, capture_output=True, text=True,
        env=environment, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    run_id = json.loads((tmp_path / "run" / "run.json").read_text())["run_id"]
    assert MlflowClient(store).get_run(run_id).data.tags["world_size"] == "2"


def test_training_leaves_a_core_to_each_reader_and_takes_them_back(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    taken = []
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    for readers in (0, 2, 20):
        with cores_shared_with(readers):
            pass
    assert taken == [8, 6, 8, 1, 8]
