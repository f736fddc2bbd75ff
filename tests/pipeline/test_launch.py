import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from pytorch_lightning.strategies import StrategyRegistry

from pipeline import cli
from pipeline.launch import CHOICES, launcher_words, lightning_main
from pipeline.world import SHARE
from sr_module.checkpoint import read_provenance

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sys.executable).parent


def test_the_lightning_command_has_one_word(capsys):
    assert lightning_main(["--help"]) == 0
    assert lightning_main([]) == 2
    assert lightning_main(["run", "--help"]) == 0
    assert lightning_main(["run", "--devices", "2", "--help"]) == 0
    assert lightning_main(["run", "--devices=2", "--accelerator", "-h", "x.py"]) == 0
    assert cli.main(["launch", "--help"]) == 0
    captured = capsys.readouterr()
    assert (captured.out + captured.err).count("usage: lightning run") == 6
    assert "error" not in captured.err


def test_another_word_without_a_foreign_command_is_said_to_be_unknown(capsys):
    assert lightning_main(["fit", "--help"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("lightning: error: unknown word 'fit'; the one word here is `run`")
    assert "lightning-sdk, which is not installed" in told


def test_a_launch_without_a_script_is_refused(capsys):
    assert lightning_main(["run", "--devices", "2"]) == 2
    assert cli.main(["launch", "model", "--devices", "2"]) == 2
    told = capsys.readouterr().err
    assert told.count("no script among: --devices 2") == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--device", "8", "x.py"], "unknown launcher option '--device'; did you mean '--devices'"),
        (["--trainer.max_steps", "8", "x.py"], "options of the script stand behind it"),
        (["--accelerator=cuda0", "x.py"], "unknown value of --accelerator 'cuda0'; did you mean"),
        (["--precision", "bf-16", "x.py"], "did you mean 'bf16'? choose from: 64-true"),
        (["--num-nodes", "two", "x.py"], "--num-nodes is 'two'; it must be a whole number"),
        (["--node_rank", "2", "--num_nodes=2", "x.py"], "--node-rank is 2; with --num-nodes 2"),
        (["--devices", "gpu", "x.py"], "--devices is 'gpu'; allowed: a number"),
        (["--devices", "0", "x.py"], "--devices is '0'; allowed: a number from 1"),
        (["--devices", "0,,3", "x.py"], "--devices is '0,,3'; allowed: a number from 1"),
        (["--devices", ",", "x.py"], "--devices is ','; allowed: a number from 1"),
        (["--devices", "-1", "x.py"], "--devices is '-1'; allowed: a number from 1"),
        (["--num-nodes", "0", "x.py"], "--num-nodes is 0; it counts all nodes and must be 1"),
        (["--main-port", "99999", "x.py"], "--main-port is 99999; ports go from 1 to 65535"),
        (["--main-port", "0", "x.py"], "--main-port is 0; ports go from 1 to 65535"),
        (["--strategy", "dp", "--devices", "4", "x.py"], "--strategy is dp, one process for"),
        (["--strategy=dpp", "x.py"], "unknown value of --strategy 'dpp'; did you mean 'ddp'?"),
        (["--strategy", "ddp_spawn", "x.py"], "unknown value of --strategy 'ddp_spawn'"),
        (["--devices"], "--devices needs a value"),
        (["train.py", "fit"], "no script 'train.py' in"),
    ],
)
def test_what_the_launcher_does_not_know_is_refused_in_words(tmp_path, monkeypatch, words, said):
    (tmp_path / "x.py").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="(?s)" + re.escape(said)):
        launcher_words(words)


def test_the_strategies_of_a_launch_are_lightnings_but_for_those_that_start_processes():
    others = ("spawn", "fork", "notebook", "xla", "tpu", "single")
    lightnings = StrategyRegistry.available_strategies()
    joined = {name for name in lightnings if not any(word in name for word in others)}
    assert set(CHOICES["strategy"]) == joined | {"auto"}


def test_devices_that_are_not_there_are_refused_before_anything_starts(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    (tmp_path / "x.py").touch()
    for words in (["--accelerator", "cuda"], ["--accelerator", "cpu", "--devices", "0,3"]):
        assert lightning_main(["run", *words, str(tmp_path / "x.py")]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert "--accelerator is cuda, but torch sees no such device here" in told[0]
    assert "--devices is 0,3, which names GPUs, but the processes compute on the CPU" in told[1]


def test_gpus_that_were_named_are_all_that_the_started_processes_see(tmp_path, monkeypatch):
    started = {}

    def start(options, words):
        started.update(os.environ, devices=options.devices, words=words)

    monkeypatch.setattr("lightning_fabric.cli.main", start)
    for name in ("CUDA_VISIBLE_DEVICES", SHARE):  # set by the launcher, and taken back afterwards
        monkeypatch.setenv(name, "")
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    (tmp_path / "x.py").touch()
    words = ["run", "--accelerator", "cuda", "--devices", "2,3", str(tmp_path / "x.py"), "fit"]
    assert lightning_main(words) == 0
    assert started["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert (started["devices"], started["words"]) == ("2", ["fit"])
    assert int(started["OMP_NUM_THREADS"]) == max(1, len(os.sched_getaffinity(0)) // 2)


def test_a_port_that_is_taken_is_told_in_a_sentence(tmp_path):
    (tmp_path / "x.py").touch()
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [str(SCRIPTS / "lightning"), "run", "--accelerator", "cpu", "--main-port", port]
        done = subprocess.run(
            [*command, str(tmp_path / "x.py")], capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 2
    said = f"port {port} is taken on this machine; choose another with --main-port"
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_options_before_the_script_are_the_launchers_and_all_behind_it_the_scripts(
    tmp_path, monkeypatch
):
    (tmp_path / "x.py").touch()
    monkeypatch.chdir(tmp_path)
    words = ["--devices", "8", "--num-nodes=2", "--node_rank", "1", "--main-address", "10.0.0.1"]
    options, left = launcher_words([*words, "x.py", "fit", "--devices", "3", "--help"])
    assert (options.devices, options.num_nodes, options.node_rank) == ("8", 2, 1)
    assert (options.main_address, options.main_port, options.script) == ("10.0.0.1", 29400, "x.py")
    assert (options.accelerator, options.strategy, options.precision) == (None, None, None)
    assert left == ["fit", "--devices", "3", "--help"]


@pytest.fixture
def foreign(tmp_path, monkeypatch) -> None:
    """Another installed package with a command of the same name."""
    (tmp_path / "cloud.py").write_text(
        "import sys\ndef main():\n    print('cloud got', sys.argv)\n    return 7\n"
    )
    told = tmp_path / "cloud_sdk-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: cloud-sdk\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text("[console_scripts]\nlightning = cloud:main\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("foreign")
def test_other_words_go_to_the_foreign_command_of_that_name_and_it_is_said(capsys):
    assert lightning_main(["login", "--me"]) == 7
    told = capsys.readouterr()
    assert told.out == "cloud got ['lightning', 'login', '--me']\n"
    assert "`lightning run` is srdet's; all other words go to cloud-sdk" in told.err
    assert lightning_main(["run", "--help"]) == 0
    assert "usage: lightning run" in capsys.readouterr().out


def test_the_launcher_ends_with_the_status_of_the_first_rank_that_failed(tmp_path, free_port):
    script = tmp_path / "fails.py"
    script.write_text("import os, sys\nsys.exit(5 if os.environ['RANK'] == '1' else 0)\n")
    command = [str(SCRIPTS / "lightning"), "run", "--accelerator", "cpu", "--devices", "2"]
    done = subprocess.run(
        [*command, "--main-port", str(free_port()), str(script)], capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 5
    assert "lightning run: rank 1 ended with 5; the others were ended too" in done.stderr
    assert "Traceback" not in done.stderr


DUMP = """
import pytorch_lightning as pl
import torch


class Dump(pl.Callback):
    '''Every rank's weights at the end.'''

    def on_train_end(self, trainer, pl_module):
        weights = {k: v for k, v in pl_module.named_parameters() if "averaged" not in k}
        torch.save(weights, f"rank{trainer.global_rank}.pt")
"""


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
    run_id = json.loads((folder / "run" / "record" / "run.json").read_text())["run_id"]
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


def test_lightning_run_trains_one_adversarial_run_in_a_world_of_two(
    words, tmp_path, store, free_port
):
    lightning = [str(SCRIPTS / "lightning"), "run", "--accelerator", "cpu", "--devices", "2"]
    launched([*lightning, "--main-port", str(free_port())], words(gan=True), tmp_path, store)
    one_run_of_two(tmp_path, store, "lightning run", gan=True)


@pytest.mark.slow
def test_torchrun_trains_one_run_in_a_world_of_two_and_resumes_it(
    words, tmp_path, store, free_port
):
    torchrun = [str(SCRIPTS / "torchrun"), "--nproc_per_node", "2", "--master_port"]
    launched([*torchrun, str(free_port())], words(gan=False), tmp_path, store)
    one_run_of_two(tmp_path, store, "torchrun", gan=False)
    more = [*words(gan=False), "--trainer.max_steps", "5"]
    launched([*torchrun, str(free_port())], more, tmp_path, store)
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
    run_id = json.loads((tmp_path / "run" / "record" / "run.json").read_text())["run_id"]
    assert MlflowClient(store).get_run(run_id).data.tags["world_size"] == "2"
