"""Trainings in which something really fails: a rank, a shard server, a disk, a tracking server."""

import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from mlflow import MlflowClient

from pipeline import cli
from pipeline.checkpoints import newest
from pipeline.files import NoSpaceError
from pipeline.train import CONF, configured, fit
from sr_module.checkpoint import read_provenance

pytestmark = pytest.mark.timeout(900)

ROOT = CONF.parent
SCRIPTS = Path(sys.executable).parent
Words = Callable[..., list[str]]


def train(words: list[str], *watching: pl.Callback) -> Any:
    return fit(configured(words), watching=watching)


def state(folder: Path) -> dict[str, Any]:
    saved = torch.load(folder / "last.ckpt", weights_only=True)
    return {**saved["state_dict"], "step": torch.tensor(saved["global_step"])}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


class At(pl.Callback):
    """Calls something behind the ``step``-th step."""

    def __init__(self, step: int, call: Callable[[], Any]) -> None:
        self.step, self.call = step, call

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            self.call()


def lightning_run(
    words: list[str], folder: Path, store: str, *options: str, environment: dict[str, str]
) -> Any:
    """Two ranks of the training script."""
    script = str(ROOT / "pipeline" / "train.py")
    return subprocess.run(
        [str(SCRIPTS / "lightning"), "run", "--accelerator", "cpu", "--devices", "2", *options,
         script, "fit", *words, "--trainer.devices", "auto"],
        env={**os.environ, **environment, "MLFLOW_TRACKING_URI": store}, cwd=folder,
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_a_killed_rank_ends_all_and_the_same_command_ends_like_an_undisturbed_one(
    tiny: Words, tmp_path: Path, store: str, free_port: Callable[[], int], killing: dict[str, str]
):
    run = partial(lightning_run, environment=killing)
    port = ["--main-port", str(free_port())]
    kill = ["--trainer.callbacks+=killing.KillOnce"]
    killed = run(tiny(*kill, gan=True, out="cut"), tmp_path, store, *port)
    assert killed.returncode == 128 + signal.SIGKILL, killed.stderr
    assert "rank 1 ended by signal 9; the others were ended too" in killed.stderr
    assert int(state(tmp_path / "cut")["step"]) == 3
    for out in ("cut", "whole"):
        done = run(tiny(gan=True, out=out), tmp_path, store, *port)
        assert done.returncode == 0, done.stderr
    assert same(state(tmp_path / "cut"), state(tmp_path / "whole"))


class BringBack(logging.Handler):
    """Brings a server up again when a reader says that it is away."""

    def __init__(self, server: Any) -> None:
        super().__init__()
        self.server, self.falls = server, 0

    def emit(self, record: logging.LogRecord) -> None:
        if "trying again" in record.getMessage():
            self.falls += 1
            self.server.up()


def test_a_shard_server_that_falls_and_comes_back_changes_nothing(
    tiny: Words, shards: Path, tmp_path: Path, serve: Any, store: str
):
    """Once while a shard is read, once between two steps."""
    whole_shard = ["--data.shuffle_buffer", "64"]  # the first batch waits for all of it
    server = serve(shards)
    watch = BringBack(server)
    logging.getLogger("pipeline.transfer").addHandler(watch)
    server.dies_at = next(shards.glob("train-*.tar")).name
    try:
        train(
            tiny("--data.shards", server.address, "--data.retry_s", "60", *whole_shard, out="cut"),
            At(4, server.down),
        )
    finally:
        logging.getLogger("pipeline.transfer").removeHandler(watch)
    assert watch.falls == 2
    train(tiny(*whole_shard, out="whole"))
    assert same(state(tmp_path / "cut"), state(tmp_path / "whole"))


def test_a_shard_server_that_stays_away_ends_the_run_which_goes_on_when_it_is_back(
    tiny: Words, shards: Path, tmp_path: Path, serve: Any, store: str
):
    server = serve(shards)
    words = tiny("--data.shards", server.address, "--data.retry_s", "0.5", out="cut")
    with pytest.raises(ConnectionError, match=r"cannot be reached .*data\.retry_s"):
        train(words, At(4, server.down))
    assert int(state(tmp_path / "cut")["step"]) == 3
    server.up()
    train(words)
    train(tiny(out="whole"))
    assert same(state(tmp_path / "cut"), state(tmp_path / "whole"))


@pytest.fixture
def few_mib(disk_of: Callable[[str], Path]) -> Path:
    """A disk of four MiB."""
    return disk_of("4m")


class Fill(pl.Callback):
    """Leaves no byte free on the run's disk behind the fourth step.

    The checkpoint of the third one is whole by then, unless it is to be caught in the making.
    """

    def __init__(self, disk: Path, *, checkpoint_whole: bool) -> None:
        self.litter, self.checkpoint_whole = disk / "litter", checkpoint_whole

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == (4 if self.checkpoint_whole else 3):
            if self.checkpoint_whole:
                trainer.strategy.checkpoint_io.wait()
            self.litter.write_bytes(bytes(shutil.disk_usage(self.litter.parent).free))


def test_a_full_disk_ends_the_run_with_its_last_checkpoint_whole_and_it_goes_on_with_room(
    tiny: Words, few_mib: Path, tmp_path: Path, store: str
):
    """And no point of a curve is missing afterwards, or there twice."""
    words = [*tiny(), "--run.out", str(few_mib / "run")]
    fill = Fill(few_mib, checkpoint_whole=True)
    with pytest.raises(NoSpaceError, match=r"no room on disk while writing .*/run/"):
        train(words, fill)
    found = newest(few_mib / "run")
    assert found.path == few_mib / "run" / "last.ckpt"
    assert not found.damaged
    assert int(state(few_mib / "run")["step"]) == 3
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("tests").experiment_id
    (failed,) = client.search_runs([experiment], f"tags.folder = '{few_mib / 'run'}'")
    assert failed.info.status == "FAILED"
    fill.litter.unlink()
    train(words)
    train(tiny(out="whole"))
    assert same(state(few_mib / "run"), state(tmp_path / "whole"))
    points = client.get_metric_history(failed.info.run_id, "train/images_seen")
    assert sorted(point.step for point in points) == [1, 2, 3, 4, 5, 6, 7]
    assert client.get_run(failed.info.run_id).info.status == "FINISHED"


def test_a_disk_that_is_full_for_a_checkpoint_ends_the_run_at_once_not_at_the_next_checkpoint(
    tiny: Words, few_mib: Path, store: str
):
    """The step of the failed one is followed by one more at most, where a thousand might be."""
    steps: list[int] = []

    class Wait(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
            steps.append(trainer.global_step)
            if writing := trainer.strategy.checkpoint_io._writing:
                wait([writing])

    words = [*tiny(), "--run.out", str(few_mib / "run"), "--trainer.max_steps", "100"]
    words += ["--run.checkpoint_every", "3", "--run.log_every", "100", "--data.steps_per_epoch"]
    with pytest.raises(NoSpaceError, match=r"no room on disk while writing .*last\.ckpt"):
        train([*words, "100"], Fill(few_mib, checkpoint_whole=False), Wait())
    assert steps == [0, 1, 2, 3]
    assert not (few_mib / "run" / "last.ckpt").exists()


class LeaveLittle(pl.Callback):
    """Behind the last checkpoint, room for the network and not for the code that is packed with it.

    So that the disk fills up in the middle of a folder that a library copies.
    """

    def __init__(self, disk: Path) -> None:
        self.litter = disk / "litter"

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.strategy.checkpoint_io.wait()
        free = shutil.disk_usage(self.litter.parent).free
        self.litter.write_bytes(bytes(free - 2**19))


def test_a_disk_that_is_full_at_the_very_end_is_told_in_words_and_the_same_command_ends_the_run(
    tiny: Words, few_mib: Path, store: str
):
    words = [*tiny(), "--run.out", str(few_mib / "run")]
    little = LeaveLittle(few_mib)
    with pytest.raises(NoSpaceError, match=r"no room on disk while writing .*/run/.*/network"):
        train(words, little)
    assert int(state(few_mib / "run")["step"]) == 7
    little.litter.unlink()
    trained = train(words)
    run = MlflowClient(store).get_run(trained.run.run_id)
    assert run.info.status == "FINISHED"
    assert len(run.outputs.model_outputs) == 1


@pytest.mark.slow
def test_a_tracking_server_that_is_stopped_does_not_stop_the_training_and_gets_all_when_it_is_back(
    tiny: Words, tmp_path: Path, serving: Any, monkeypatch: pytest.MonkeyPatch
):
    """Every point of every curve, once, and the network: with the command that the run names."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(tmp_path) as served:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", served.address)
        trained = train(tiny(out="cut"), At(3, partial(served.stop, signal.SIGKILL)))
    assert trained.steps == 7
    assert read_provenance(trained.net)["steps"] == 7
    with serving(tmp_path, port=served.port):
        assert cli.main(["tracking", "sync", "--folders", str(tmp_path / "cut")]) == 0
        _assert_all_there(MlflowClient(served.address), trained.run.run_id)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'own.db'}")
    train(tiny(out="whole"))
    assert same(state(tmp_path / "cut"), state(tmp_path / "whole"))


def _assert_all_there(client: MlflowClient, run_id: str) -> None:
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert len(run.outputs.model_outputs) == 1
    steps = {"train/loss": range(1, 8), "train/images_seen": range(1, 8), "val/psnr_y": (4, 7)}
    for metric, expected in steps.items():
        points = client.get_metric_history(run_id, metric)
        assert sorted(point.step for point in points) == list(expected), metric


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def two_nodes() -> Iterator[list[str]]:
    """The names of two network namespaces with a cable between them: 10.99.N.1 and 10.99.N.2."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    number = os.getpid() % 250
    names = [f"srdet{number}a", f"srdet{number}b"]
    try:
        _ip("netns", "add", names[0])
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    try:
        _ip("netns", "add", names[1])
        ends = [f"veth{number}a", f"veth{number}b"]
        _ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for last, (name, end) in enumerate(zip(names, ends, strict=True), start=1):
            _ip("link", "set", end, "netns", name)
            _ip("-n", name, "addr", "add", f"10.99.{number}.{last}/24", "dev", end)
            _ip("-n", name, "link", "set", end, "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


@pytest.mark.slow
def test_two_nodes_with_networks_of_their_own_train_one_run(
    tiny: Words, two_nodes: list[str], tmp_path: Path, store: str
):
    """The very command of the README, once on each node, over a cable between them."""
    number = os.getpid() % 250
    script = str(ROOT / "pipeline" / "train.py")
    words = [*tiny(gan=True), "--trainer.devices", "auto"]
    started = []
    for rank, name in enumerate(two_nodes):
        end = f"veth{number}{'ab'[rank]}"
        own = {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": store, "GLOO_SOCKET_IFNAME": end}
        command = ["ip", "netns", "exec", name, str(SCRIPTS / "lightning"), "run"]
        command += ["--accelerator", "cpu", "--devices", "1", "--num-nodes", "2"]
        command += ["--node-rank", str(rank), "--main-address", f"10.99.{number}.1"]
        started.append(
            subprocess.Popen(
                [*command, script, "fit", *words],
                env={**os.environ, **own},
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    for process in started:
        said, _ = process.communicate(timeout=280)
        assert process.returncode == 0, said
    here = {"PYTHONPATH": str(ROOT)}
    whole = lightning_run(tiny(gan=True, out="whole"), tmp_path, store, environment=here)
    assert whole.returncode == 0, whole.stderr
    assert same(state(tmp_path / "run"), state(tmp_path / "whole"))
